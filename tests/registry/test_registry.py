"""The registry as its callers see it, on both databases: found, starred, submitted, installed from what needs no download."""

import anyio
import pytest

from plughub.events.catalogue import SERVER_INSTALLED, SERVER_UNINSTALLED
from plughub.identity.service import Organization
from tests.registry.documents import Json, document, package
from tests.serving import Served

pytestmark = pytest.mark.anyio
MEMORY = "io.github.modelcontextprotocol/server-memory"


async def results(served: Served, query: str, key: str | None = None) -> list[Json]:
    answer = await served.call("GET", f"/api/registry/search?{query}", key=key)
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["results"]
    return found


async def names(served: Served, query: str, key: str | None = None) -> list[str]:
    return [found["name"] for found in await results(served, query, key)]


async def detail(served: Served, name: str, key: str | None = None) -> Json:
    answer = await served.call("GET", f"/api/registry/servers/{name.replace('/', '%2F')}", key=key)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def submit(served: Served, server: Json, key: str | None = None) -> Json:
    answer = await served.call("POST", "/api/registry/submit", {"server": server}, key=key)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


@pytest.fixture(scope="module")
async def tenant(served: Served) -> Organization:
    return await served.organization("Tenant")


@pytest.fixture(scope="module")
async def tenant_key(served: Served, tenant: Organization) -> str:
    return await served.key_of(tenant)


@pytest.mark.requirement("registry.catalogue", "registry.search")
async def test_the_catalogue_is_there_from_the_first_start(served: Served) -> None:
    found = await results(served, "limit=100")
    assert {"weather-server", MEMORY, "io.github.haris-musa/excel-mcp-server"} <= {one["name"] for one in found}
    assert len([one for one in found if one["source"] == "catalogue"]) == 15
    assert {one["package_type"] for one in found if one["source"] == "catalogue"} == {"npm", "pypi", "builtin"}
    shown = await detail(served, MEMORY)
    assert shown["server"]["packages"][0]["version"] == shown["version"] == "2026.8.31"


@pytest.mark.requirement("registry.search")
async def test_every_word_must_be_there_and_signs_mean_themselves(served: Served) -> None:
    assert await names(served, "q=WEATHER") == ["weather-server"]
    assert await names(served, "q=graph+remembers") == [MEMORY]
    assert await names(served, "q=graph+weather") == await names(served, "q=%25") == await names(served, "q=_____") == []
    assert (await names(served, "q=time"))[0] == "io.github.modelcontextprotocol/server-time"
    assert (await served.call("GET", "/api/registry/search?q=a%00b")).status_code == 200
    page = (await served.call("GET", "/api/registry/search?limit=2&offset=1")).json()
    assert (len(page["results"]), page["limit"], page["offset"]) == (2, 2, 1) and page["total"] >= 15


@pytest.mark.requirement("registry.names")
async def test_a_last_part_is_enough_until_two_servers_have_it(served: Served) -> None:
    assert (await detail(served, "SERVER-MEMORY"))["name"] == MEMORY
    await submit(served, document("com.example/server-memory"))
    answer = await served.call("GET", "/api/registry/servers/server-memory")
    assert answer.status_code == 409
    assert answer.json()["error"]["details"]["names"] == ["com.example/server-memory", MEMORY]
    assert (await detail(served, MEMORY))["name"] == MEMORY
    assert (await served.call("POST", "/api/registry/install", {"server_name": "server-memory"})).status_code == 409
    assert (await detail(served, "weather-server"))["name"] == "weather-server"


@pytest.mark.requirement("registry.figures")
async def test_a_star_is_a_persons_or_an_organisations_and_counts_once(served: Served, tenant: Organization, tenant_key: str) -> None:
    path = "/api/registry/servers/server-git/star"
    somebody = await served.browser(tenant)
    for key, stars in ((tenant_key, 1), (tenant_key, 1), (await served.key_of(tenant), 1), (somebody, 2), (served.key, 3)):
        assert (await served.call("PUT", path, key=key)).json()["stars"] == stars
    assert (await detail(served, "server-git", tenant_key))["starred"] is True
    assert (await results(served, "q=server-git"))[0]["stars"] == 3
    for _ in range(2):
        assert (await served.call("DELETE", path, key=tenant_key)).json() == {
            "name": "io.github.modelcontextprotocol/server-git",
            "starred": False,
            "stars": 2,
        }
    changes = (await served.call("GET", "/api/audit-logs?action=registry.unstarred", key=tenant_key)).json()["audit_logs"]
    assert [change["changes"] for change in changes] == [{"starred": {"before": True, "after": False}}]


@pytest.mark.requirement("registry.submissions")
async def test_a_submitted_server_is_its_organisations_until_the_operator_approves_it(served: Served, tenant_key: str) -> None:
    made = await submit(served, document("com.tenant/secret-plan", title="Plan"), tenant_key)
    assert made["visible_to"] == "organization"
    assert await names(served, "q=secret-plan", tenant_key) == ["com.tenant/secret-plan"]
    assert await names(served, "q=secret-plan") == []
    for path in ("/api/registry/servers/secret-plan", "/v0.1/servers/com.tenant%2Fsecret-plan/versions"):
        assert (await served.call("GET", path)).status_code == 404
    assert (await served.call("POST", "/api/registry/install", {"server_name": "secret-plan"})).status_code == 404
    assert (await served.call("PUT", "/api/registry/servers/secret-plan/star", key=tenant_key)).json()["stars"] == 1
    approve = f"/api/admin/registry/submissions/{made['id']}/approve"
    assert (await served.call("POST", approve, key=tenant_key)).status_code == 403
    for _ in range(2):
        assert (await served.call("POST", approve)).json()["visible_to"] == "everybody"
    assert [(one["name"], one["stars"]) for one in await results(served, "q=secret-plan")] == [("com.tenant/secret-plan", 1)]
    assert (await served.call("GET", "/v0.1/servers/com.tenant%2Fsecret-plan/versions/latest")).status_code == 200
    assert (await served.call("DELETE", f"/api/admin/registry/submissions/{made['id']}")).status_code == 200
    assert await names(served, "q=secret-plan", tenant_key) == []


@pytest.mark.requirement("registry.submissions")
async def test_a_name_is_taken_once_and_a_version_too(served: Served, tenant_key: str) -> None:
    for name in (MEMORY, "com.tenant/x"):
        first = await served.call("POST", "/api/registry/submit", {"server": document(name)}, key=tenant_key)
        assert first.status_code == (409 if name == MEMORY else 201)
    again = await served.call("POST", "/api/registry/submit", {"server": document("com.tenant/x")}, key=tenant_key)
    assert again.json()["error"]["message"] == "Version 1.0.0 of 'com.tenant/x' is in the registry already"
    await submit(served, document("com.tenant/x", version="1.1.0"), tenant_key)
    shown = await detail(served, "com.tenant/x", tenant_key)
    assert (shown["version"], shown["versions"]) == ("1.1.0", ["1.1.0", "1.0.0"])
    # Another organisation may call its own the same; what is shown to everybody may not collide.
    other = await served.key_of(await served.organization("Other"))
    theirs, ours = await submit(served, document("com.tenant/x"), other), shown["version"]
    assert (await detail(served, "com.tenant/x", other))["version"] != ours
    assert (await served.call("POST", f"/api/admin/registry/submissions/{theirs['id']}/approve")).status_code == 200
    mine = (await served.call("GET", "/api/admin/registry/submissions?limit=100")).json()["submissions"]
    [mine] = [one["id"] for one in mine if one["name"] == "com.tenant/x" and one["version"] == "1.1.0"]
    assert (await served.call("POST", f"/api/admin/registry/submissions/{mine}/approve")).status_code == 409


@pytest.mark.requirement("registry.submissions")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "server"),
        ({"repository": "nonsense"}, "repository"),
        ({"repository": "https://example.com"}, "repository"),
        ({"repository": "https://example.com/a/../b"}, "repository"),
        ({"server": {"name": "com.example/a"}}, "server.version"),
        ({"server": document(name="x y/z")}, "server.name"),
        ({"server": document(packages=[package("--evil")])}, "server.packages.0.identifier"),
    ],
)
async def test_a_bad_submission_names_its_field(served: Served, body: Json, field: str) -> None:
    answer = await served.call("POST", "/api/registry/submit", body)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


@pytest.mark.requirement("registry.install", "registry.install-asks")
async def test_a_remote_server_is_installed_with_what_it_asks_for(served: Served, tenant_key: str) -> None:
    header = {"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isRequired": True, "isSecret": True}}}
    remote = {"type": "streamable-http", "url": "https://mcp.example.com/mcp", "headers": [header]}
    await submit(served, document("com.tenant/remote", title="Remote", remotes=[remote]), tenant_key)
    missing = await served.call("POST", "/api/registry/install", {"server_name": "remote"}, key=tenant_key)
    assert (missing.status_code, missing.json()["error"]["details"]["field"]) == (400, "env.token")
    project = (await served.call("POST", "/api/projects", {"name": "Mine"}, key=tenant_key)).json()
    wrong = {"server_name": "remote", "env": {"token": "t"}, "project_uuid": "x"}
    assert (await served.call("POST", "/api/registry/install", wrong, key=tenant_key)).json()["error"]["details"]["field"] == "project_uuid"
    body = {"serverName": "remote", "env": {"token": "t0ken"}, "projectUuid": project["uuid"]}
    made = await served.call("POST", "/api/registry/install", body, key=tenant_key)
    assert made.status_code == 201, made.text
    assert (made.json()["type"], made.json()["profile_uuid"]) == ("STREAMABLE_HTTP", project["default_profile_uuid"])
    assert made.json()["config"] == {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "***"}}
    assert "t0ken" not in made.text


@pytest.mark.requirement("registry.install", "registry.figures", "registry.uninstall", "registry.search")
async def test_the_demo_server_is_installed_called_counted_and_taken_away(served: Served) -> None:
    before = (await results(served, "q=weather"))[0]["installs"]
    made = (await served.call("POST", "/api/registry/install", {"server_name": "weather-server"})).json()
    called = await served.call("POST", f"/api/servers/{made['uuid']}/tools/echo/execute", {"parameters": {"text": "hello"}})
    assert called.json()["result"] == "hello"
    await served.app.hub.writer.flush()
    assert (await results(served, "q=weather"))[0]["installs"] == before + 1
    [found] = (await served.call("GET", "/api/search?q=weather")).json()["servers"]
    assert (found["slug"], found["installation_count"], found["rating"]) == ("weather-server", before + 1, None)
    served.clock.advance(61)  # what is trending is counted once a minute
    [busy] = [one for one in (await served.call("GET", "/api/trending/servers")).json()["servers"] if one["name"] == "weather-server"]
    assert (busy["install_count"], busy["tool_call_count"], busy["trending_score"]) == (before + 1, 1, 10 * (before + 1) + 1)
    assert (await served.call("GET", "/api/trending/servers?source=COMMUNITY")).json()["servers"] == []
    stats = (await served.call("GET", f"/api/servers/{made['uuid']}/stats")).json()
    assert (stats["installations"], stats["daily_installs"][-1], stats["trending_rank"]) == (before + 1, before + 1, 1)
    assert (await served.call("DELETE", f"/api/servers/{made['uuid']}")).status_code == 204
    assert made["uuid"] not in str((await served.call("GET", "/api/registry/installed")).json())
    assert (await results(served, "q=weather"))[0]["installs"] == before + 1
    told = (await served.call("GET", "/api/audit-logs?action=server.installed&limit=1")).json()["audit_logs"][0]
    assert told["object"]["id"] and told["changes"]["registry_name"]["after"] == "weather-server"


@pytest.mark.requirement("registry.uninstall")
async def test_the_events_tell_of_both(served: Served) -> None:
    heard: list[str] = []

    async def listen(events: object) -> None:
        heard.extend(event.name for event in events if "installed" in event.name)  # type: ignore[attr-defined]

    served.database.listeners.append(listen)
    made = (await served.call("POST", "/api/registry/install", {"server_name": "weather-server"})).json()
    await served.call("DELETE", f"/api/servers/{made['uuid']}")
    with anyio.fail_after(5):
        while len(heard) < 2:
            await anyio.sleep(0)
    served.database.listeners.remove(listen)
    assert heard == [SERVER_INSTALLED, SERVER_UNINSTALLED]


@pytest.mark.requirement("registry.install-rights")
async def test_who_may_not_run_commands_installs_none_and_is_told_before(served: Served, tenant_key: str) -> None:
    shown = await detail(served, MEMORY, tenant_key)
    assert shown["installable"] is False and "not allowed" in shown["reason"]
    body = {"server_name": MEMORY, "env": {"MEMORY_FILE_PATH": "/tmp/x"}}
    answer = await served.call("POST", "/api/registry/install", body, key=tenant_key)
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "stdio_not_allowed")
    listed = await served.key_of(await served.operator(), servers=[])
    answer = await served.call("POST", "/api/registry/install", {"server_name": "weather-server"}, key=listed)
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "server_list")


@pytest.mark.requirement("registry.updates")
async def test_a_newer_version_shows_on_what_was_installed(served: Served, tenant_key: str) -> None:
    await submit(served, document("com.tenant/growing"), tenant_key)
    made = await served.call("POST", "/api/registry/install", {"server_name": "growing"}, key=tenant_key)
    [own] = (await detail(served, "growing", tenant_key))["installations"]
    assert (own["server_uuid"], own["version"], own["update_available"]) == (made.json()["uuid"], "1.0.0", None)
    await submit(served, document("com.tenant/growing", version="1.1.0"), tenant_key)
    [own] = (await detail(served, "growing", tenant_key))["installations"]
    assert (own["version"], own["update_available"]) == ("1.0.0", "1.1.0")


@pytest.mark.requirement("registry.official-api")
async def test_the_official_api_goes_page_by_page_and_leaves_out_the_demo_server(served: Served) -> None:
    seen: list[str] = []
    query = "limit=4&version=latest"
    while True:
        page = (await served.call("GET", f"/v0.1/servers?{query}", key="")).json()
        seen += [one["server"]["name"] for one in page["servers"]]
        assert page["metadata"]["count"] == len(page["servers"])
        if "nextCursor" not in page["metadata"]:
            break
        query = f"limit=4&version=latest&cursor={page['metadata']['nextCursor']}"
    assert seen == sorted(set(seen)) and len(seen) >= 14 and "weather-server" not in seen
    later = (await served.call("GET", "/v0.1/servers?updated_since=2099-01-01T00:00:00Z", key="")).json()
    assert later["servers"] == []
    assert (await served.call("GET", "/v0.1/servers?updated_since=yesterday", key="")).status_code == 400
