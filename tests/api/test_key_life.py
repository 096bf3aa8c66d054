"""What happens to a key after it was made, as its callers see it: rotation, addresses, last use, leaks."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx2
import pytest

from plughub.api.models import KeyDetail, KeyRotated
from plughub.keys.secret import generate
from plughub.kit.clock import rfc3339
from tests.serving import Json, RawCall, Served, events_of, serving

pytestmark = pytest.mark.anyio
KEYS = "/api/auth/keys"
LEAKED = KEYS + "/leaked"


async def make(served: Served, **given: object) -> Json:
    answer = await served.call("POST", KEYS, {"name": "life", **given})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def rotate(served: Served, made: Json, **body: object) -> Json:
    answer = await served.call("POST", f"{KEYS}/{made['id']}/rotate", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    done: Json = answer.json()
    return done


async def at_doors(served: Served, key: str, headers: dict[str, str] | None = None) -> dict[str, httpx2.Response]:
    """A call with the key at each door."""
    demo, text = served.demo_id, {"text": "x"}
    return {
        "api": await served.call("POST", f"/api/servers/{demo}/tools/echo/execute", {"parameters": text}, key=key, headers=headers),
        "v1": await served.call("POST", "/v1/mcp/invoke", {"mcp_id": demo, "tool": "echo", "arguments": text}, key=key, headers=headers),
        "list": await served.call("GET", "/api/servers", key=key, headers=headers),
        "mcp": await served.rpc("tools/list", key=key, modern=True, headers=headers or {}),
    }


async def statuses(served: Served, key: str) -> list[int]:
    return [answer.status_code for answer in (await at_doors(served, key)).values()]


WORKS, REVOKED = [200, 200, 200, 200], [410, 401, 410, 410]


@pytest.mark.requirement("keys.rotation")
async def test_rotation_gives_a_new_secret_and_the_old_one_works_for_the_overlap(served: Served) -> None:
    made = await make(served, scopes=["admin"])
    assert await statuses(served, made["key"]) == WORKS
    done = await rotate(served, made)
    read = KeyRotated.model_validate(done)
    assert (read.id, read.prefix, read.last4) == (made["id"], read.key[:15], read.key[-4:])
    assert read.key != made["key"] and read.previous.prefix == made["prefix"]
    assert read.previous.valid_until == rfc3339(served.clock.now + 86_400)
    assert await statuses(served, made["key"]) == await statuses(served, read.key) == WORKS
    shown = (await served.call("GET", f"{KEYS}/{made['id']}")).json()
    assert shown["previous"]["valid_until"] == done["previous"]["valid_until"]
    assert read.key not in json.dumps(shown) and made["key"] not in json.dumps(shown)
    served.clock.advance(86_399)
    assert await statuses(served, made["key"]) == WORKS
    served.clock.advance(1)
    answers = await at_doors(served, made["key"])
    assert [answer.status_code for answer in answers.values()] == REVOKED
    assert answers["v1"].json()["error"]["code"] == "revoked_key"
    assert await statuses(served, read.key) == WORKS
    assert (await served.call("GET", f"{KEYS}/{made['id']}")).json()["previous"] is None
    # By itself, and at once.
    again = await served.call("POST", f"{KEYS}/{made['id']}/rotate", {"overlap_seconds": 0}, key=read.key)
    assert await statuses(served, read.key) == REVOKED
    assert await statuses(served, again.json()["key"]) == WORKS
    await served.call("DELETE", f"{KEYS}/{made['id']}")
    assert await statuses(served, again.json()["key"]) == REVOKED
    assert (await served.call("POST", f"{KEYS}/{made['id']}/rotate", {})).status_code == 409


@pytest.mark.requirement("keys.rotation", "keys.rotation-not-by-narrower")
async def test_what_cannot_be_rotated_is_told(served: Served) -> None:
    made, narrow = await make(served), await make(served, scopes=["write:keys"])
    path = f"{KEYS}/{made['id']}/rotate"
    for wrong in (-1, 604_801, "86400", 1.5, True, None):
        answer = await served.call("POST", path, {"overlap_seconds": wrong})
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "overlap_seconds"), wrong
    answer = await served.call("POST", path, {}, key=narrow["key"])
    assert (answer.status_code, answer.json()["error"]["details"]["reason"]) == (403, "wider_than_caller")
    assert (await served.call("POST", path, {"overlap_seconds": 604_800})).status_code == 200


@pytest.fixture(scope="module")
async def proxied(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Served]:
    """A hub behind a proxy: the tests' own address is trusted."""
    folder = tmp_path_factory.mktemp("proxied")
    async with serving(f"sqlite:///{folder}/own.db", folder, trusted_proxies="127.0.0.1 10.0.0.0/8") as found:
        yield found


def forwarded(*addresses: str) -> dict[str, str]:
    return {"X-Forwarded-For": ", ".join(addresses)}


@pytest.mark.requirement("keys.allowed-addresses")
async def test_a_key_is_refused_from_other_addresses_at_every_door(proxied: Served) -> None:
    made = await make(proxied, scopes=["admin"], allowed_ips=["203.0.113.0/24", "2001:db8::/32"])
    assert made["allowed_ips"] == ["203.0.113.0/24", "2001:db8::/32"]
    for inside in (forwarded("203.0.113.9"), forwarded("192.0.2.1", "203.0.113.9", "10.0.0.7"), forwarded("2001:db8::1")):
        assert [each.status_code for each in (await at_doors(proxied, made["key"], inside)).values()] == WORKS
    for outside, address in ((forwarded("203.0.113.9", "192.0.2.1"), "192.0.2.1"), ({}, "127.0.0.1"), (forwarded("x"), "127.0.0.1")):
        for door, answer in (await at_doors(proxied, made["key"], outside)).items():
            error = answer.json()["error"]
            details = error["data"] if door == "mcp" else error["details"]
            assert (answer.status_code, details["reason"], details["address"]) == (403, "address_not_allowed", address)
    path, home = f"{KEYS}/{made['id']}", {**forwarded("203.0.113.9")}
    assert (await proxied.call("PATCH", path, {"allowed_ips": ["127.0.0.1"]})).json()["allowed_ips"] == ["127.0.0.1"]
    assert (await proxied.call("GET", "/api/servers", key=made["key"], headers=home)).status_code == 403
    assert await statuses(proxied, made["key"]) == WORKS
    assert (await proxied.call("PATCH", path, {"allowed_ips": None})).json()["allowed_ips"] is None
    assert (await proxied.call("GET", "/api/servers", key=made["key"], headers=home)).status_code == 200
    for wrong in ([], ["office"], ["10.0.0.5/8"], "10.0.0.0/8", [1]):
        answer = await proxied.call("PATCH", path, {"allowed_ips": wrong})
        assert (answer.status_code, answer.json()["error"]["details"]["field"].partition(".")[0]) == (400, "allowed_ips"), wrong


@pytest.mark.requirement("keys.client-address")
async def test_audit_tells_the_same_addresses(proxied: Served) -> None:
    await proxied.call("POST", "/api/projects", {"name": "seen"}, headers=forwarded("203.0.113.9", "192.0.2.1"))
    await proxied.call("POST", "/api/auth/login", {"email": "no@example.com", "password": "x" * 12}, key="", headers=forwarded("192.0.2.2"))
    rows = (await proxied.call("GET", "/api/audit-logs")).json()["audit_logs"]
    addresses = {row["action"]: row["address"] for row in rows}
    assert addresses["project.created"] == "192.0.2.1"
    assert "192.0.2.2" in addresses.values()


@pytest.mark.requirement("keys.client-address")
async def test_the_limit_of_addresses_counts_the_same_addresses(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path}/own.db", tmp_path, trusted_proxies="127.0.0.1", address_limit_per_minute=2) as hub:
        for _ in range(3):
            last = await hub.call("GET", "/api/servers", key="", headers=forwarded("192.0.2.66", "203.0.113.9"))
        assert last.status_code == 429
        for other in (forwarded("203.0.113.9", "203.0.113.10"), {}):
            assert (await hub.call("GET", "/api/servers", key="", headers=other)).status_code == 401


@pytest.mark.requirement("keys.last-use")
async def test_the_last_use_and_the_addresses_are_told_of_the_key_and_of_the_secret_before(proxied: Served) -> None:
    made = await make(proxied, scopes=["admin"])
    path = f"{KEYS}/{made['id']}"
    assert (made["last_used_at"], made["last_used_ip"]) == (None, None)
    first = proxied.clock.now
    await proxied.call("GET", "/api/servers", key=made["key"], headers=forwarded("203.0.113.9"))
    proxied.clock.advance(5)
    await proxied.call("GET", "/api/servers", key=made["key"], headers=forwarded("203.0.113.10"))
    with anyio.fail_after(5):  # by itself, after a moment
        while (shown := KeyDetail.model_validate((await proxied.call("GET", path)).json())).last_used_at is None:
            pass
    assert (shown.last_used_at, shown.last_used_ip) == (rfc3339(first + 5), "203.0.113.10")
    assert [(seen.address, seen.first_seen_at) for seen in shown.addresses] == [
        ("203.0.113.10", rfc3339(first + 5)),
        ("203.0.113.9", rfc3339(first)),
    ]
    rotated = await rotate(proxied, made)
    assert rotated["previous"]["last_used_ip"] == "203.0.113.10"
    proxied.clock.advance(5)
    await proxied.call("GET", "/api/servers", key=made["key"], headers=forwarded("203.0.113.9"))
    await proxied.call("GET", "/api/nothing", key="")
    await proxied.app.hub.uses.flush()
    shown = KeyDetail.model_validate((await proxied.call("GET", path)).json())
    assert shown.previous is not None
    assert (shown.previous.last_used_at, shown.previous.last_used_ip) == (rfc3339(first + 10), "203.0.113.9")
    assert (shown.last_used_at, [seen.address for seen in shown.addresses]) == (rfc3339(first + 10), ["203.0.113.9", "203.0.113.10"])
    listed = (await proxied.call("GET", KEYS + "?limit=100")).json()["keys"]
    assert next(key for key in listed if key["id"] == made["id"])["previous"] == shown.previous.model_dump()
    proxied.clock.advance(5)
    await proxied.call("GET", "/api/servers", key=rotated["key"], headers=forwarded("203.0.113.9"))
    await proxied.app.hub.uses.flush()
    shown = KeyDetail.model_validate((await proxied.call("GET", path)).json())
    assert shown.previous is not None
    assert (shown.last_used_at, shown.previous.last_used_at) == (rfc3339(first + 15), rfc3339(first + 10))


@pytest.mark.requirement("keys.rotation-due")
async def test_a_secret_of_90_days_is_due_until_it_is_rotated(served: Served) -> None:
    made = await make(served)
    served.clock.advance(90 * 86_400 - 1)
    assert (await served.call("GET", f"{KEYS}/{made['id']}")).json()["rotation_due"] is False
    served.clock.advance(1)
    assert (await served.call("GET", f"{KEYS}/{made['id']}")).json()["rotation_due"] is True
    assert (await rotate(served, made))["rotation_due"] is False


@pytest.mark.requirement("keys.leaked")
async def test_whoever_can_show_a_key_may_end_it(served: Served) -> None:
    made, other = await make(served, kind="secret"), await make(served)
    unknown = generate("public", "live")
    assert (await served.call("GET", "/api/servers", key=made["key"])).status_code == 200
    one = await served.call("POST", LEAKED, {"token": made["key"]}, key="", headers={"Origin": "https://example.com"})
    assert (one.status_code, [each["label"] for each in one.json()]) == (200, ["true_positive"])
    assert await statuses(served, made["key"]) == REVOKED
    several = [{"token": text, "type": "k", "url": "https://example.com/x", "source": "commit"} for text in (unknown, other["key"], "x")]
    answer = await served.call("POST", LEAKED, several, key="")
    assert [(each["token_type"], each["label"]) for each in answer.json()] == [
        ("k", "false_positive"),
        ("k", "true_positive"),
        ("k", "false_positive"),
    ]
    assert other["key"] not in answer.text and unknown not in answer.text
    assert await statuses(served, other["key"]) == REVOKED
    for wrong, field in (
        ([], "body"),
        ([{"token": "x"}] * 101, "body"),
        ({}, "token"),
        ({"token": 1}, "token"),
        ([{"url": "x"}], "0.token"),
    ):
        answer = await served.call("POST", LEAKED, wrong, key="")
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field), wrong


@pytest.mark.requirement("keys.not-in-urls", "keys.secret-keys-not-from-browsers")
async def test_a_secret_key_in_a_url_is_refused_with_and_without_a_header(lite: Served) -> None:
    made, public = await make(lite, kind="secret"), await make(lite)
    demo = lite.demo_id
    encoded = made["key"].replace("_", "%5F")
    for path in (
        f"/api/servers?token={made['key']}",
        f"/api/servers?x=%20{encoded}",
        f"/v1/mcps?key={made['key']}",
        f"/servers/{demo}/mcp?a=1&k={made['key']}",
    ):
        for key in ("", made["key"]):
            answer = await lite.rpc("ping", path=path, key=key) if "/mcp?" in path else await lite.call("GET", path, key=key)
            assert answer.status_code == 403
            assert made["key"] not in answer.text and '"secret_key_in_url"' in answer.text
    assert (await lite.call("GET", f"/api/servers?token={public['key']}", key="")).status_code == 401, "in the URL it is no credential"
    assert (await lite.call("GET", "/api/servers?search=task_live", key=made["key"])).status_code != 403


@pytest.mark.requirement("keys.rotation", "keys.open-streams-close-on-revocation")
async def test_streams_end_with_the_secret_that_opened_them_and_with_their_key(lite: Served) -> None:
    made, dying, cut = await make(lite), await make(lite, expires_at=rfc3339(lite.clock.now + 0.2)), await make(lite)
    new = (await rotate(lite, made))["key"]
    path = f"/api/servers/{lite.demo_id}/logs"
    calls = [
        RawCall(lite, "GET", path, {"accept": "text/event-stream"}, key).piece(b"") for key in (made["key"], new, dying["key"], cut["key"])
    ]
    running = [call.start() for call in calls]
    for call in calls:
        await call.answer.until(lambda call=call: bool(call.answer.messages))
    await lite.call("PATCH", f"{KEYS}/{cut['id']}", {"expires_at": rfc3339(lite.clock.now + 0.2)})
    newest = (await rotate(lite, made, overlap_seconds=0))["key"]
    assert (await lite.call("GET", "/api/servers", key=newest)).status_code == 200
    for task in running:
        await task
    codes = [events_of(call.answer.body)[-1][1]["error"]["code"] for call in calls]
    assert codes == ["GONE", "GONE", "UNAUTHORIZED", "UNAUTHORIZED"]


@pytest.mark.requirement("keys.open-streams-close-on-revocation")
async def test_a_stream_that_opens_after_its_key_was_revoked_ends_at_once(lite: Served) -> None:
    made = await make(lite)
    await lite.call("GET", "/api/servers", key=made["key"])
    entry = lite.app.hub.keys.find(made["key"])
    assert entry is not None
    await lite.call("PATCH", f"{KEYS}/{made['id']}", {"status": "suspended"})
    with_held = lite.app.hub.streams.open(entry.caller)
    assert with_held.stopped is not None and with_held.stopped.status == 403
    await lite.call("PATCH", f"{KEYS}/{made['id']}", {"status": "active"})
    again = lite.app.hub.streams.open(entry.caller)
    assert again.stopped is None
    await lite.call("DELETE", f"{KEYS}/{made['id']}")
    late = lite.app.hub.streams.open(entry.caller)
    assert again.stopped is not None and late.stopped is not None and late.stopped.status == 410
    for feed in (with_held, again, late):
        feed.close()


@pytest.mark.requirement("keys.allowed-addresses")
async def test_streams_that_rest_are_opened_anew_when_the_addresses_change(lite: Served) -> None:
    made = await make(lite)
    call = RawCall(lite, "GET", f"/api/servers/{lite.demo_id}/logs", {"accept": "text/event-stream"}, made["key"]).piece(b"")
    running = call.start()
    await call.answer.until(lambda: bool(call.answer.messages))
    await lite.call("PATCH", f"{KEYS}/{made['id']}", {"allowed_ips": ["192.0.2.1"]})
    await running
    assert events_of(call.answer.body)[-1][1]["error"]["code"] == "UNAVAILABLE"
