"""Servers out of and into clients' files, over HTTP; and the flat way to register one."""

from typing import Any

import pytest

from plughub.api.models import ClientFileOut, ImportedOut, ServerOut
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
EXPORT, IMPORT, FLAT = "/api/servers/export", "/api/servers/import", "/api/mcp-servers"
URL = {"type": "http", "url": "http://127.0.0.1:1/mcp"}


async def imported(served: Served, key: str, servers: Json, query: str = "", **more: Any) -> ImportedOut:
    answer = await served.call("POST", IMPORT + query, {"mcpServers": servers, **more}, key=key)
    assert answer.status_code == 200, answer.text
    return ImportedOut.model_validate(answer.json())


async def slugs(served: Served, key: str) -> list[str]:
    return [server["slug"] for server in (await served.call("GET", "/api/servers", key=key)).json()["servers"]]


@pytest.mark.requirement("servers.export-and-import", "servers.export-without-secrets")
async def test_what_went_out_comes_in_elsewhere_and_its_secrets_only_with_their_values(served: Served) -> None:
    here = await served.key_of(await served.organization("Here", stdio_allowed=True))
    there = await served.key_of(await served.organization("There", stdio_allowed=True))
    stdio = {"command": "/no/such", "args": ["-y"], "env": {"KEY": "canary-1"}, "secret_args": ["canary-2"]}
    for body in (
        {"name": "One", "type": "STDIO", "config": stdio, "enabled": False},
        {"name": "Two", "type": "STREAMABLE_HTTP", "config": {"url": URL["url"] + "?k=canary-3", "headers": {"A": "canary-4"}}},
    ):
        assert (await served.call("POST", "/api/servers", body, key=here)).status_code == 201
    answer = await served.call("GET", EXPORT, key=here)
    written = ClientFileOut.model_validate(answer.json()).mcpServers
    assert list(written) == ["one", "two"] and "canary" not in answer.text and "***" not in answer.text
    open_ = await imported(served, there, written)
    assert [server.enabled for server in open_.imported] == [False, False]
    assert [warning.field for warning in open_.warnings] == ["mcpServers.one", "mcpServers.two"]
    values = {"KEY": "canary-1", "ONE_ARG_1": "canary-2", "TWO_K": "canary-3", "TWO_A": "canary-4"}
    whole = await served.call("POST", IMPORT + "?on_conflict=rename", {"mcpServers": written, "values": values}, key=there)
    assert "canary" not in whole.text
    found = ImportedOut.model_validate(whole.json())
    assert found.warnings == [] and found.renamed == {"one": "one-2", "two": "two-2"}
    target = await target_of(served, there, found.imported[0])
    assert (target.args, target.secret_args, target.env) == (("-y",), ("canary-2",), {"KEY": "canary-1"})
    target = await target_of(served, there, found.imported[1])
    assert (target.url, target.headers) == (URL["url"] + "?k=canary-3", {"A": "canary-4"})


async def target_of(served: Served, key: str, server: ServerOut) -> Any:
    entry = await served.app.hub.keys.resolve(key)
    assert entry is not None
    return await served.app.hub.servers.visible(entry.caller, server.uuid)


@pytest.mark.requirement("servers.export-and-import")
async def test_an_export_back_into_its_own_hub_changes_nothing(served: Served) -> None:
    key = await served.key_of(await served.organization("Back"))
    config = {"url": URL["url"], "headers": {"A": "canary"}}
    made = await served.call("POST", "/api/servers", {"name": "Mine", "type": "SSE", "config": config}, key=key)
    done = await imported(served, key, (await served.call("GET", EXPORT, key=key)).json()["mcpServers"])
    assert (done.imported, done.skipped, done.on_conflict) == ([], ["mine"], "skip")
    now = await served.call("GET", f"/api/servers/{made.json()['uuid']}", key=key)
    assert now.json()["updated_at"] == made.json()["updated_at"]


@pytest.mark.requirement("servers.import-whole-or-not")
async def test_names_that_exist_are_skipped_renamed_or_refused(served: Served) -> None:
    key = await served.key_of(await served.organization("Names"))
    await imported(served, key, {"a": URL, "B c": URL})
    assert (await imported(served, key, {"A": URL, "b C": URL, "b-c": URL, "d": URL})).skipped == ["A", "b C", "b-c"]
    done = await imported(served, key, {"a": URL}, "?on_conflict=rename")
    again = await imported(served, key, {"a": URL}, "?on_conflict=rename")
    assert (done.renamed, again.renamed) == ({"a": "a-2"}, {"a": "a-3"})
    assert await slugs(served, key) == ["a", "b-c", "d", "a-2", "a-3"]
    refused = await served.call("POST", IMPORT + "?on_conflict=error", {"mcpServers": {"e": URL, "a": URL}}, key=key)
    assert (refused.status_code, refused.json()["error"]["details"]["names"]) == (409, ["a"])
    assert "e" not in await slugs(served, key)
    wrong = await served.call("POST", IMPORT + "?on_conflict=perhaps", {"mcpServers": {}}, key=key)
    assert (wrong.status_code, wrong.json()["error"]["details"]["field"]) == (400, "on_conflict")


@pytest.mark.requirement("servers.import-whole-or-not", "servers.stdio-is-the-operators", "keys.listed-grant-cannot-create-servers")
async def test_an_import_is_whole_or_nothing(served: Served) -> None:
    organization = await served.organization("Whole")
    key = await served.key_of(organization)
    for bad, status in (({"command": "x"}, 403), ({"command": 5}, 400), ({"url": "x"}, 400)):
        answer = await served.call("POST", IMPORT, {"mcpServers": {"good": URL, "bad": bad}}, key=key)
        assert answer.status_code == status
    assert await slugs(served, key) == []
    await imported(served, key, {"good": URL})
    listed = await served.key_of(organization, servers=[])
    for name in ("good", "other"):
        answer = await served.call("POST", IMPORT, {"mcpServers": {name: URL}}, key=listed)
        assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "server_list")
    assert (await served.call("GET", EXPORT, key=listed)).json() == {"mcpServers": {}}


async def test_a_wrong_value_is_not_repeated(lite: Served) -> None:
    answer = await lite.call("POST", IMPORT, {"mcpServers": {"a": {"command": "x", "env": {"N": ["canary"]}}}})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "mcpServers.a.env.N")
    assert "canary" not in answer.text
    for body in ([], "x", 5, None):
        assert (await lite.call("POST", IMPORT, body, headers={"Content-Type": "application/json"})).status_code == 400


async def test_export_is_no_server_of_that_id(lite: Served) -> None:
    assert (await lite.call("GET", EXPORT)).status_code == 200
    assert (await lite.call("GET", EXPORT.replace("/api/", "/api/v1/"))).status_code == 200
    for method, path in (("DELETE", EXPORT), ("GET", IMPORT)):
        assert (await lite.call(method, path)).status_code == 405


@pytest.mark.requirement("servers.create")
@pytest.mark.parametrize(
    ("body", "kind", "config"),
    [
        ({"transport": "stdio", "command": "x", "args": ["y"], "env": {"A": "b"}}, "STDIO", {"args": ["y"], "env": {"A": "***"}}),
        ({"type": "STDIO", "command": "x"}, "STDIO", {"command": "x"}),
        ({"command": "x"}, "STDIO", {"command": "x"}),
        ({"transport": "http", "url": "http://x/"}, "STREAMABLE_HTTP", {"url": "http://x/", "headers": {}}),
        ({"type": "STREAMABLE_HTTP", "url": "http://x/", "headers": {"A": "b"}}, "STREAMABLE_HTTP", {"headers": {"A": "***"}}),
        ({"transport": "sse", "url": "http://x/"}, "SSE", {"url": "http://x/"}),
    ],
)
async def test_the_flat_form_makes_the_same_server(lite: Served, body: Json, kind: str, config: Json) -> None:
    answer = await lite.call("POST", FLAT, {"name": "Flat", "notes": "n", **body})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert ServerOut.model_validate(made)
    assert (made["name"], made["type"], made["description"]) == ("Flat", kind, "n")
    assert {name: made["config"][name] for name in config} == config
    assert (await lite.call("GET", f"/api/servers/{made['uuid']}")).json()["config"] == made["config"]


@pytest.mark.requirement("servers.create", "errors.invalid-field-is-named")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"command": "x", "name": ""}, "name"),
        ({}, "transport"),
        ({"transport": "telnet", "command": "x"}, "transport"),
        ({"command": "x", "url": "http://x"}, "transport"),
        ({"transport": "stdio"}, "command"),
        ({"transport": "http", "url": "ftp://x"}, "url"),
        ({"transport": "http", "url": "http://x", "command": "y"}, "command"),
        ({"command": "x", "args": "y"}, "args"),
        ({"command": "x", "env": {"A": "***"}}, "env.A"),
        ({"command": "x", "notes": "n" * 2001}, "notes"),
        ({"command": "x", "transport": "stdio", "type": "stdio"}, "type"),
    ],
)
async def test_a_wrong_field_of_the_flat_form_is_named(lite: Served, body: Json, field: str) -> None:
    answer = await lite.call("POST", FLAT, {"name": "x", **body})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field), answer.text
    assert "config." not in answer.text
