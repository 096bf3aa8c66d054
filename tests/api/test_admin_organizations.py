"""The operator's view of the organisations, and that what they change is felt at once."""

import pytest

from plughub.events.catalogue import ORGANIZATION_UPDATED
from plughub.events.log import list_since
from plughub.identity.service import get_organization
from plughub.kit.ids import parse_public_id
from tests.serving import Served

pytestmark = pytest.mark.anyio
PATH = "/api/admin/organizations"


@pytest.mark.requirement("organizations.admin-routes")
async def test_an_organisation_is_made_with_a_first_key_and_found_in_the_list(served: Served) -> None:
    made = await served.call("POST", PATH, {"name": "Acme", "tier": "pro"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    organization, key = {**made.json()}, made.json()["key"]
    del organization["key"]
    assert organization["limits"] == {"hourly": 1000, "burst": 50, "concurrency": 10}
    listed = (await served.call("GET", PATH + "?limit=100")).json()
    assert listed["total"] == len(listed["organizations"])
    assert listed["organizations"][0]["operator"] and organization in listed["organizations"]
    assert (await served.call("GET", f"{PATH}/{organization['id']}")).json() == organization
    answer = await served.call("GET", "/api/auth/keys", key=key)
    assert [found["scopes"] for found in answer.json()["keys"]] == [["admin"]]
    assert answer.headers["x-ratelimit-limit"] == "1000"
    assert (await served.call("GET", PATH, key=key)).status_code == 403
    second = (await served.call("GET", PATH + "?limit=1&offset=1")).json()["organizations"]
    assert second == listed["organizations"][1:2]


@pytest.mark.requirement("organizations.admin-routes", "limits.enterprise-numbers")
async def test_numbers_of_its_own_are_for_enterprise_and_felt_from_the_next_request_on(served: Served) -> None:
    made = (await served.call("POST", PATH, {"name": "Numbers"})).json()
    path, key = f"{PATH}/{made['id']}", made["key"]
    assert (await served.call("GET", "/api/servers", key=key)).headers["x-ratelimit-limit"] == "100"
    refused = await served.call("PATCH", path, {"limits": {"hourly": 5000}})
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "limits")
    changed = await served.call("PATCH", path, {"tier": "enterprise", "limits": {"hourly": 5000, "burst": 70}})
    assert changed.json()["limits"] == {"hourly": 5000, "burst": 70, "concurrency": 100_000}
    told = await served.call("GET", "/api/servers", key=key)
    assert (told.headers["x-ratelimit-limit"], told.headers["x-ratelimit-remaining"]) == ("5000", "4998")
    assert '"burst";q=70;w=60, "concurrency";q=100000' in told.headers["ratelimit-policy"]
    kept = await served.call("PATCH", path, {"limits": {"burst": None, "concurrency": 3}})
    assert kept.json()["limits"] == {"hourly": 5000, "burst": 1_000_000, "concurrency": 3}
    cleared = await served.call("PATCH", path, {"limits": None})
    assert cleared.json()["limits"] == {"hourly": 1_000_000_000, "burst": 1_000_000, "concurrency": 100_000}
    await served.call("PATCH", path, {"limits": {"hourly": 7}})
    fixed = await served.call("PATCH", path, {"tier": "business"})
    assert fixed.json()["limits"] == {"hourly": 10_000, "burst": 200, "concurrency": 50}
    back = await served.call("PATCH", path, {"tier": "enterprise"})
    assert back.json()["limits"]["hourly"] == 1_000_000_000, "what a fixed tier took away does not come back"


@pytest.mark.requirement("organizations.admin-routes")
async def test_whether_it_may_run_commands_is_the_operators_to_say(served: Served) -> None:
    made = (await served.call("POST", PATH, {"name": "Commands"})).json()
    server = {"name": "s", "type": "STDIO", "config": {"command": "true"}, "enabled": False}
    assert (await served.call("POST", "/api/servers", server, key=made["key"])).status_code == 403
    allowed = await served.call("PATCH", f"{PATH}/{made['id']}", {"stdio_allowed": True})
    assert allowed.json()["stdio_allowed"] is True
    assert (await served.call("POST", "/api/servers", server, key=made["key"])).status_code == 201


@pytest.mark.requirement("organizations.admin-routes")
async def test_a_change_that_changes_nothing_tells_nobody(served: Served) -> None:
    made = (await served.call("POST", PATH, {"name": "Same"})).json()
    id_ = parse_public_id("org", made["id"])
    assert id_ is not None
    async with served.database.read() as connection:
        organization = await get_organization(connection, id_)
    spaces = (organization.live_space_id, organization.test_space_id)
    for change, events in (({}, 0), ({"tier": "free"}, 0), ({"tier": "pro"}, 1), ({"tier": "pro", "limits": {}}, 1)):
        assert (await served.call("PATCH", f"{PATH}/{made['id']}", change)).status_code == 200
        async with served.database.read() as connection:
            for space_id in spaces:
                told = [event.name for event in await list_since(connection, space_id, 0)]
                assert told.count(ORGANIZATION_UPDATED) == events


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"tier": "free"}, "name"),
        ({"name": "x", "tier": None}, "tier"),
        ({"name": "x", "stdio_allowed": "yes"}, "stdio_allowed"),
        ({"name": "x", "tier": "enterprise", "limits": {"hourly": 0}}, "limits.hourly"),
        ({"name": "x", "tier": "enterprise", "limits": {"burst": 1_000_001}}, "limits.burst"),
        ({"name": "x", "tier": "enterprise", "limits": {"concurrency": 1.5}}, "limits.concurrency"),
        ({"name": "x", "tier": "enterprise", "limits": {"daily": 1}}, "limits.daily"),
        ({"name": "x", "operator": True}, "operator"),
    ],
)
async def test_a_body_that_is_wrong_names_the_field(lite: Served, body: dict[str, object], field: str) -> None:
    answer = await lite.call("POST", PATH, body)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)
