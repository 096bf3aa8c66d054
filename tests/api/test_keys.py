"""Keys over HTTP, in both dialects."""

import pytest

from plughub.api.models import KeyCreated, KeyDetail, KeyList, KeyRevoked, Success, SuccessPage, V1Key, V1KeyCreated, V1KeyDetail
from plughub.keys.secret import parse
from plughub.kit.caller import DEFAULT_SCOPES
from plughub.kit.clock import rfc3339
from plughub.kit.ids import public_id
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
KEYS, V1 = "/api/auth/keys", "/v1/api-keys"


async def make(served: Served, key: str | None = None, path: str = KEYS, **given: object) -> Json:
    answer = await served.call("POST", path, {"name": "made", **given}, key=key)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: Json = answer.json()["data"] if path == V1 else answer.json()
    return made


@pytest.mark.requirement("keys.create-on-api", "keys.format", "keys.shown-once", "keys.scopes-default", "http.times")
async def test_a_key_is_made_and_its_secret_is_shown_once(served: Served) -> None:
    made = await make(
        served, kind="secret", environment="test", description="d", labels={"team": "a"}, expires_at="2030-01-01T00:00:00+01:00"
    )
    read = KeyCreated.model_validate(made)
    assert parse(read.key) is not None and read.key.startswith("sk_test_ph_")
    assert (read.prefix, read.last4) == (read.key[:15], read.key[-4:])
    assert set(read.scopes) == DEFAULT_SCOPES
    assert (read.servers, read.labels, read.expires_at) == ("*", {"team": "a"}, "2029-12-31T23:00:00.000Z")
    live = await make(served)
    got = await served.call("GET", f"{KEYS}/{live['id']}")
    shown = KeyDetail.model_validate(got.json()).model_dump()
    assert shown == {name: value for name, value in live.items() if name != "key"} | {"addresses": []}
    listed = await served.call("GET", KEYS + "?limit=100")
    for answer in (got, listed, await served.call("GET", V1 + "?per_page=100")):
        assert live["key"] not in answer.text and answer.headers["cache-control"] == "no-store"
    assert live["id"] in {key.id for key in KeyList.model_validate(listed.json()).keys}
    assert read.id not in {key.id for key in KeyList.model_validate(listed.json()).keys}, "the other environment's"


@pytest.mark.requirement("keys.create-on-v1", "keys.list-and-get")
async def test_v1_makes_keys_that_read_and_call(served: Served) -> None:
    demo = public_id("mcp", served.demo_id)
    made = V1KeyCreated.model_validate(await make(served, path=V1, permissions={"mcps": [demo]}, description="d"))
    assert made.permissions.mcps == [demo]
    shown = KeyDetail.model_validate((await served.call("GET", f"{KEYS}/{made.id}")).json())
    assert (shown.scopes, shown.servers) == (["execute:tools", "read:servers"], [served.demo_id])
    got = (await served.call("GET", f"{V1}/{made.id}")).json()
    assert Success[V1KeyDetail].model_validate(got).data.permissions.mcps == [demo]
    everything = V1KeyCreated.model_validate(await make(served, path=V1))
    assert everything.permissions.mcps == "*"
    assert (await served.call("GET", "/v1/mcps", key=everything.key)).status_code == 200
    assert (await served.call("GET", V1, key=everything.key)).status_code == 403


@pytest.mark.requirement("keys.patch", "keys.suspended-answers-403", "json.camel-and-snake-case")
async def test_a_key_is_changed_on_both_dialects(served: Served) -> None:
    made = await make(served)
    path = f"{KEYS}/{made['id']}"
    for patch, part in (
        ({"name": "new"}, {"name": "new"}),
        ({"description": "x", "labels": {"a": "b"}}, {"description": "x", "labels": {"a": "b"}}),
        ({"scopes": ["read:servers"]}, {"scopes": ["read:servers"]}),
        ({"servers": []}, {"servers": []}),
        ({"servers": [public_id("mcp", served.demo_id)]}, {"servers": [served.demo_id]}),
        ({"servers": "*"}, {"servers": "*"}),
        ({"expiresAt": "2030-01-01T00:00:00Z"}, {"expires_at": "2030-01-01T00:00:00.000Z"}),
        ({"expires_at": None}, {"expires_at": None}),
        ({"status": "suspended"}, {"status": "suspended"}),
        ({"status": "active"}, {"status": "active"}),
    ):
        answer = await served.call("PATCH", path, patch)
        assert answer.status_code == 200, answer.text
        assert {name: answer.json()[name] for name in part} == part
        expected = 403 if part == {"status": "suspended"} else 200
        assert (await served.call("GET", "/api/servers", key=made["key"])).status_code == expected
    v1 = f"{V1}/{made['id']}"
    answer = await served.call("PATCH", v1, {"permissions": {"mcps": []}, "name": "v1", "status": "suspended"})
    read = Success[V1Key].model_validate(answer.json()).data
    assert (read.permissions.mcps, read.name, read.status) == ([], "v1", "suspended")


@pytest.mark.requirement("keys.revoke-keeps-the-row", "keys.revoked-answers-410")
@pytest.mark.parametrize("path", [KEYS, V1])
async def test_a_revoked_key_stays_and_is_refused_at_once(served: Served, path: str) -> None:
    made = await make(served)
    assert (await served.call("GET", "/api/servers", key=made["key"])).status_code == 200
    seen = []
    for _ in range(2):
        answer = await served.call("DELETE", f"{path}/{made['id']}")
        assert answer.status_code == 200
        seen.append(KeyRevoked.model_validate(answer.json()["data"] if path == V1 else answer.json()))
        served.clock.advance(1)
    assert seen[0] == seen[1]
    assert (await served.call("GET", "/api/servers", key=made["key"])).status_code == 410
    assert (await served.call("GET", f"{KEYS}/{made['id']}")).json()["status"] == "revoked"
    again = await served.call("PATCH", f"{KEYS}/{made['id']}", {"status": "active"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")


@pytest.mark.requirement("keys.past-expiry-is-400", "errors.invalid-field-is-named")
async def test_wrong_fields_are_named(served: Served) -> None:
    for body, field in (
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "scopes": ["read:everything"]}, "scopes"),
        ({"name": "x", "servers": ["nope"]}, "servers"),
        ({"name": "x", "kind": "both"}, "kind"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x", "labels": {"a": 1}}, "labels.a"),
        ({"name": "x", "labels": {"": "y"}}, "labels"),
    ):
        answer = await served.call("POST", KEYS, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_PARAMETER"), body
        assert answer.json()["error"]["details"]["field"].startswith(field)
    both = await served.call("POST", KEYS, {"kind": "x", "name": 5, "extra": 1})
    assert {error["field"] for error in both.json()["error"]["details"]["errors"]} == {"kind", "name", "extra"}
    v1 = await served.call("POST", V1, {"name": "x", "expires_at": "2020-01-01T00:00:00Z"})
    assert (v1.status_code, v1.json()["error"]["message"]) == (422, "Validation failed")
    assert "expires_at" in v1.json()["error"]["details"]
    v1 = await served.call("POST", V1, {"name": "x", "permissions": {"mcps": "all"}})
    assert (v1.status_code, v1.json()["error"]["message"]) == (400, "Invalid permissions format")


@pytest.mark.requirement("errors.value-is-cut-and-masked")
async def test_a_value_is_cut_and_secrets_are_hidden(served: Served) -> None:
    answer = await served.call("POST", KEYS, {"name": "x" * 500})
    assert answer.json()["error"]["details"]["value"] == "x" * 200
    for field in ("password", "api_key", "secretThing", "TOKEN", "env", "headers"):
        answer = await served.call("POST", KEYS, {"name": "x", field: "canary-5"})
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["value"] == "***"
        assert "canary-5" not in answer.text
    answer = await served.call("POST", KEYS, {"name": {"password": "canary-5"}})
    assert "canary-5" not in answer.text


@pytest.mark.requirement("keys.never-wider-than-its-maker")
async def test_no_key_makes_a_wider_one(served: Served) -> None:
    maker = await make(
        served, scopes=["write:keys", "read:keys", "read:servers"], servers=[served.demo_id], expires_at="2028-01-01T00:00:00Z"
    )
    made = await make(served, maker["key"])
    assert (made["scopes"], made["servers"], made["expires_at"]) == (["read:servers"], [served.demo_id], maker["expires_at"])
    for wider in (
        {"scopes": ["admin"]},
        {"scopes": ["execute:tools"]},
        {"servers": "*"},
        {"expires_at": "2029-01-01T00:00:00Z"},
        {"expires_at": None},
        {"environment": "test"},
    ):
        answer = await served.call("POST", KEYS, {"name": "x", **wider}, key=maker["key"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN"), wider
        change = {name: value for name, value in wider.items() if name != "environment"}
        if change:
            answer = await served.call("PATCH", f"{KEYS}/{made['id']}", change, key=maker["key"])
            assert answer.status_code == 403, wider
    wide = await make(served)
    for call in (("DELETE", f"{KEYS}/{wide['id']}"), ("PATCH", f"{KEYS}/{wide['id']}", {"name": "mine"})):
        assert (await served.call(*call, key=maker["key"])).status_code == 403
    v1 = await make(served, maker["key"], path=V1)
    assert v1["permissions"] == {"mcps": [public_id("mcp", served.demo_id)]}


@pytest.mark.requirement("http.paging", "keys.list-and-get")
async def test_keys_are_listed_in_pages_and_by_status(served: Served) -> None:
    owner = await served.key_of(await served.organization("Pages"))
    ids = [(await make(served, owner, name=f"k{number}"))["id"] for number in range(5)]
    await served.call("DELETE", f"{KEYS}/{ids[0]}", key=owner)
    page = (await served.call("GET", KEYS + "?limit=2&offset=1", key=owner)).json()
    assert ([key["id"] for key in page["keys"]], page["total"], page["limit"], page["offset"]) == (ids[:2], 6, 2, 1)
    default = (await served.call("GET", KEYS, key=owner)).json()
    assert (default["limit"], default["offset"], len(default["keys"])) == (20, 0, 6)
    revoked = (await served.call("GET", KEYS + "?status=revoked", key=owner)).json()
    assert [key["id"] for key in revoked["keys"]] == [ids[0]]
    v1 = SuccessPage[V1Key].model_validate((await served.call("GET", V1 + "?page=2&per_page=4&status=active", key=owner)).json())
    assert (len(v1.data), v1.pagination.model_dump()) == (1, {"page": 2, "per_page": 4, "total": 5, "total_pages": 2})
    for query in ("limit=0", "limit=101", "limit=x", "offset=-1", "status=odd"):
        answer = await served.call("GET", f"{KEYS}?{query}", key=owner)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, query.split("=")[0])
    for query in ("page=0", "per_page=101", "status=odd"):
        answer = await served.call("GET", f"{V1}?{query}", key=owner)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "validation_error")
        assert query.split("=")[0] in answer.json()["error"]["details"]


@pytest.mark.requirement("keys.expired-answers-401")
async def test_a_key_expires_to_the_second(served: Served) -> None:
    made = await make(served, expires_at=rfc3339(served.clock.now + 100))
    served.clock.advance(99)
    assert (await served.call("GET", "/api/servers", key=made["key"])).status_code == 200
    served.clock.advance(1)
    answer = await served.call("GET", "/api/servers", key=made["key"])
    assert (answer.status_code, "expired" in answer.json()["error"]["details"]["hint"]) == (401, True)
    answer = await served.call("GET", "/v1/mcps", key=made["key"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired_key")
    assert (await served.call("GET", f"{KEYS}/{made['id']}")).json()["status"] == "expired"
