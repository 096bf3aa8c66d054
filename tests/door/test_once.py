"""`Idempotency-Key`: done once, answered the same way; and what is said when there is no answer to give."""

import asyncio
import json
import re
from collections import Counter
from hashlib import sha256
from typing import Any

import anyio
import httpx2
import pytest
from sqlalchemy import func, select

from plughub.db.answer_tables import kept_answer
from plughub.db.jobs import Job
from plughub.db.kept_answers import KEPT_S, Claim, claim_key
from plughub.door.once import MAX_KEPT_BYTES, without_secrets
from plughub.door.routes import PUBLIC, Route
from plughub.jobs import prune_answers
from plughub.settings import Settings
from tests.serving import FakeMcp, Json, RawCall, Served, text_result, upstream
from tests.walks.rows import PERSONAL, ROWS, Things, credential, name, path, placed, whole_body
from tests.walks.test_commit import WRITING

pytestmark = pytest.mark.anyio
# They take a code or a token that is not made up, or are of somebody who has logged in by it.
NOT_MADE_UP = ("/accept", "/approve", "/deny", "/confirm", "/disable", "/backup-codes", "/leave", "/switch")
POSTS = tuple(row for row in ROWS if row.method == "POST" and row.door in ("api", "v1") and row.scope != PUBLIC and not row.hot)


def server(name: str, **more: Any) -> Json:
    return {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False, **more}


async def create(served: Served, once: str, body: Json | None = None, **given: Any) -> httpx2.Response:
    return await served.call("POST", "/api/servers", body or server("Once"), headers={"Idempotency-Key": once}, **given)


def replayed(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def named(served: Served, wanted: str, key: str | None = None) -> list[str]:
    servers = (await served.call("GET", "/api/servers", key=key)).json()["servers"]
    return [found["uuid"] for found in servers if found["name"] == wanted]


def reason(answer: httpx2.Response) -> str:
    assert answer.status_code == 409, answer.text
    found: str = answer.json()["error"]["details"]["reason"]
    return found


def called(fake: FakeMcp) -> int:
    return len(fake.calls)


async def until_called(fake: FakeMcp, times: int = 1) -> None:
    with anyio.fail_after(10):
        while called(fake) < times:
            await asyncio.sleep(0)


def execute(made: Json) -> str:
    return f"/api/servers/{made['uuid']}/tools/echo/execute"


@pytest.mark.requirement("http.head-and-idempotency", "http.idempotency-in-one-commit")
async def test_what_was_done_once_is_not_done_again(served: Served) -> None:
    first = await create(served, "k1")
    again = [await create(served, key) for key in ("k1", '"k1"')]
    assert (first.status_code, replayed(first)) == (201, False)
    for answer in again:
        assert (answer.status_code, answer.content, replayed(answer)) == (201, first.content, True)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] != first.headers["x-request-id"]
        assert answer.headers["x-ratelimit-remaining"]
    assert await named(served, "Once") == [first.json()["uuid"]]
    assert (await create(served, "k1", key=await served.key_of(await served.operator(), scopes=["read:servers"]))).status_code == 403


@pytest.mark.requirement("http.idempotency-refusals")
async def test_a_key_is_good_for_one_request(served: Served) -> None:
    await create(served, "one-request")
    for other in (
        await create(served, "one-request", server("Another")),
        await served.call("POST", "/api/servers?x=1", server("Once"), headers={"Idempotency-Key": "one-request"}),
        await served.call("POST", "/api/projects", {"name": "x"}, headers={"Idempotency-Key": "one-request"}),
    ):
        assert (other.status_code, other.json()["error"]["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    v1 = await served.call(
        "POST", "/v1/mcps", {"name": "x", "endpoint_url": "http://127.0.0.1:9/x"}, headers={"Idempotency-Key": "one-request"}
    )
    assert (v1.status_code, v1.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert await named(served, "Another") == []


@pytest.mark.requirement("http.idempotency-refusals")
@pytest.mark.parametrize("key", ["", '""', '"', 'a"b', "x" * 256, "a b", '"x', "\t", "é"])
async def test_what_is_no_key_is_a_400(lite: Served, key: str) -> None:
    call = RawCall(lite, "POST", "/api/servers", {"content-type": "application/json", "idempotency-key": key})
    answer = await call.piece(json.dumps(server("Never")).encode()).run()
    assert (answer.status, json.loads(answer.body)["error"]["details"]["field"]) == (400, "Idempotency-Key")
    assert await named(lite, "Never") == []


async def test_a_key_that_comes_twice_is_a_400(lite: Served) -> None:
    call = RawCall(lite, "POST", "/api/servers", {"content-type": "application/json", "idempotency-key": "a"})
    call.scope["headers"].append((b"idempotency-key", b"a"))
    answer = await call.piece(json.dumps(server("Never")).encode()).run()
    assert (answer.status, b"more than once" in answer.body) == (400, True)


@pytest.mark.requirement("http.idempotency-in-one-commit")
async def test_fifty_at_once_have_one_effect(served: Served) -> None:
    answers = await asyncio.gather(*(create(served, "raced", server("Raced")) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 50}
    assert sum(map(replayed, answers)) == 49
    assert len({answer.content for answer in answers}) == 1
    assert await named(served, "Raced") == [answers[0].json()["uuid"]]


@pytest.mark.requirement("http.idempotency-recorded-before", "http.idempotency-refusals")
async def test_fifty_calls_of_a_tool_at_once_are_one(served: Served) -> None:
    fake = FakeMcp(held={"echo": asyncio.Event()}, results={"echo": text_result("done")})
    async with upstream(served, fake) as made:

        async def call() -> httpx2.Response:
            return await served.call("POST", execute(made), {"parameters": {}}, headers={"Idempotency-Key": "tool"})

        calls = [asyncio.ensure_future(call()) for _ in range(50)]
        with anyio.fail_after(20):
            while sum(each.done() for each in calls) < 49:
                await asyncio.sleep(0)
        refused = [each.result() for each in calls if each.done()]
        assert {(reason(answer), answer.headers["retry-after"]) for answer in refused} == {("in_progress", "1")}
        fake.held["echo"].set()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.status_code for answer in answers) == [200, *[409] * 49]
        [first] = [answer for answer in answers if answer.status_code == 200]
        again = await call()
        assert (again.content, replayed(again), called(fake)) == (first.content, True, 1)


@pytest.mark.requirement("http.idempotency-recorded-before")
async def test_a_call_that_was_cut_off_may_have_run_and_does_not_run_again(served: Served) -> None:
    fake = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(served, fake) as made:
        call = RawCall(served, "POST", execute(made), {"content-type": "application/json", "idempotency-key": "cut"})
        running = call.piece(b"{}").start()
        await until_called(fake)
        call.leave()
        await running
        again = await served.call("POST", execute(made), {}, headers={"Idempotency-Key": "cut"})
        assert (reason(again), again.json()["error"]["details"]["executed"], called(fake)) == ("may_have_run", "unknown", 1)
        late = await served.call("POST", execute(made), {"timeout_ms": 1}, headers={"Idempotency-Key": "late"})
        assert late.status_code == 504
        again = await served.call("POST", execute(made), {"timeout_ms": 1}, headers={"Idempotency-Key": "late"})
        assert (reason(again), called(fake)) == ("may_have_run", 2)
        fake.held["echo"].set()


@pytest.mark.requirement("http.idempotency-bounded")
async def test_an_error_that_did_nothing_frees_its_key(served: Served) -> None:
    refused = await create(served, "errors", {"name": "x"})
    assert refused.status_code == 400
    assert (await create(served, "errors", {"name": "x"})).status_code == 400
    made = await create(served, "errors")
    assert (made.status_code, replayed(made)) == (201, False), "the request was mended, and its key is as good as before"
    missing = f"/api/servers/{served.demo_id}/tools/nope/execute"
    for _ in range(2):
        answer = await served.call("POST", missing, {}, headers={"Idempotency-Key": "no-tool"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TOOL_NOT_FOUND")
    async with served.database.read() as connection:
        known = set((await connection.execute(select(kept_answer.c.digest))).scalars())
    assert sha256(b"errors").digest() in known and sha256(b"no-tool").digest() not in known
    down = await served.register("down", "http://127.0.0.1:9/mcp")
    for _ in range(2):
        answer = await served.call("POST", execute(down), {}, headers={"Idempotency-Key": "down"})
        assert (answer.status_code, answer.json()["error"]["details"]["executed"]) == (502, "no")


@pytest.mark.requirement("http.idempotency-per-caller")
async def test_a_key_is_its_callers_own(served: Served) -> None:
    operator, stranger = await served.operator(), await served.organization("Stranger")
    others = [await served.key_of(operator), await served.key_of(operator, "test"), await served.key_of(stranger)]
    others += [await served.browser(operator), await served.browser(stranger)]  # type: ignore[list-item]
    first = await create(served, "shared", server("Mine"))
    made = [await create(served, "shared", server(f"Of {n}"), key=other) for n, other in enumerate(others)]
    assert [(answer.status_code, replayed(answer)) for answer in made] == [(201, False)] * 5
    assert len({answer.json()["uuid"] for answer in (first, *made)}) == 6
    for n, other in enumerate(others):
        again = await create(served, "shared", server(f"Of {n}"), key=other)
        assert (replayed(again), again.content) == (True, made[n].content)


@pytest.mark.requirement("http.idempotency-without-secrets")
async def test_a_secret_is_neither_kept_nor_shown_again(served: Served) -> None:
    headers = {"Idempotency-Key": "secret"}
    first = await served.call("POST", "/api/auth/keys", {"name": "k"}, headers=headers)
    again = await served.call("POST", "/api/auth/keys", {"name": "k"}, headers=headers)
    secret = first.json()["key"]
    assert again.json() == {name: value for name, value in first.json().items() if name != "key"}
    assert again.headers.get_list("cache-control") == ["no-store"]
    batch = {"operations": [{"method": "POST", "path": "/auth/keys", "body": {"name": "in a batch"}}]}
    inside = await served.call("POST", "/api/batch", batch, headers=headers | {"Idempotency-Key": "batch-of-secrets"})
    replay = await served.call("POST", "/api/batch", batch, headers=headers | {"Idempotency-Key": "batch-of-secrets"})
    told = inside.json()
    shown = told["results"][0]["body"].pop("key")
    assert (replay.json(), replayed(replay)) == (told, True)
    async with served.database.read() as connection:
        rows = (await connection.execute(select(kept_answer))).all()
        opened = [
            served.secrets.sealer.open(row.answer, f"kept_answer|{row.owner}|{row.digest.hex()}|answer") for row in rows if row.answer
        ]
    kept = b"".join([*opened, *(row.answer or b"" for row in rows)])
    assert secret.encode() not in kept and shown.encode() not in kept
    assert not any(b"Once" in (row.answer or b"") for row in rows), "what is kept is sealed"


def test_secrets_are_known_by_their_names_and_by_how_they_look() -> None:
    long = "x" * 40
    body = {
        "key": "a",
        "key_id": "b",
        "keys": [{"secret": "c", "prefix": "pk_live_ph_abcd"}],
        "more": [f"whsec_{long}", f"pk_test_ph_{long}", 1],
    }
    assert json.loads(without_secrets(json.dumps(body).encode())) == {"key_id": "b", "keys": [{"prefix": "pk_live_ph_abcd"}], "more": [1]}
    assert without_secrets(b"") == b""


@pytest.mark.requirement("http.idempotency-bounded")
async def test_keys_are_forgotten_after_a_day_and_the_oldest_make_room(served: Served) -> None:
    first = await create(served, "a-day")
    served.clock.advance(KEPT_S - 1)
    assert replayed(await create(served, "a-day"))
    served.clock.advance(1)
    second = await create(served, "a-day")
    assert (second.status_code, replayed(second)) == (201, False)
    assert second.json()["uuid"] != first.json()["uuid"]
    claims = [Claim("somebody", bytes([n]) * 32, b"f" * 32) for n in range(5)]
    for claim in claims:
        served.clock.advance(1)
        async with served.database.unit_of_work() as work:
            assert await claim_key(work, claim, "req", "node", most=3)
    async with served.database.unit_of_work() as work:
        left = (await work.execute(select(kept_answer.c.digest).where(kept_answer.c.owner == "somebody"))).scalars()
        assert sorted(left) == [claim.digest for claim in claims[2:]]
        assert not await claim_key(work, claims[4], "req", "node", most=3)
    served.clock.advance(KEPT_S)
    await prune_answers.handler(Settings()).run(served.database, Job("j", prune_answers.KIND, {}, 1, 0.0, "test"))
    async with served.database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(kept_answer))).scalar() == 0


@pytest.mark.requirement("http.idempotency-bounded")
async def test_an_answer_that_is_too_large_is_not_kept_and_nothing_runs_twice(lite: Served) -> None:
    fake = FakeMcp(results={"echo": text_result("x" * MAX_KEPT_BYTES)})
    async with upstream(lite, fake) as made:
        first = await lite.call("POST", execute(made), {}, headers={"Idempotency-Key": "large"})
        again = await lite.call("POST", execute(made), {}, headers={"Idempotency-Key": "large"})
    assert (first.status_code, reason(again), called(fake)) == (200, "answer_not_kept", 1)
    assert again.json()["error"]["details"]["first_request"] == first.headers["x-request-id"]


@pytest.mark.requirement("http.head-and-idempotency")
async def test_a_stream_is_replayed_as_a_stream(lite: Served) -> None:
    fake = FakeMcp(progress={"echo": 2}, results={"echo": text_result("end")})
    async with upstream(lite, fake) as made:
        headers = {"Idempotency-Key": "stream", "Accept": "text/event-stream"}
        first, again = [await lite.call("POST", execute(made), {}, headers=headers) for _ in range(2)]
    assert first.content == again.content and b"event: progress" in first.content
    assert again.headers["content-type"] == first.headers["content-type"] and called(fake) == 1


@pytest.mark.requirement("http.head-and-idempotency", "events.batch")
async def test_operations_of_a_batch_have_keys_of_their_own(served: Served) -> None:
    operation = {"method": "POST", "path": "/servers", "body": server("Of a batch"), "headers": {"Idempotency-Key": "op"}}
    fake = FakeMcp()
    async with upstream(served, fake) as made:
        tool = {"method": "POST", "path": execute(made), "body": {}, "headers": {"Idempotency-Key": "tool-of-a-batch"}}
        answers = [
            (await served.call("POST", "/api/batch", {"operations": [operation, operation, tool]})).json()["results"] for _ in range(2)
        ]
    assert [[each["status"] for each in answer] for answer in answers] == [[201, 201, 200]] * 2
    assert [each["headers"].get("idempotent-replayed") for answer in answers for each in answer] == [
        None,
        "true",
        None,
        "true",
        "true",
        "true",
    ]
    assert (len(await named(served, "Of a batch")), called(fake)) == (1, 1)
    atomic = {**operation, "body": server("All or none"), "headers": {"Idempotency-Key": "atomic"}}
    failing = {"mode": "atomic", "operations": [atomic, {"method": "GET", "path": "/servers/nope"}]}
    assert (await served.call("POST", "/api/batch", failing)).json()["failed"] == 2
    both = (await served.call("POST", "/api/batch", {"mode": "atomic", "operations": [atomic, atomic]})).json()["results"]
    assert [each["headers"].get("idempotent-replayed") for each in both] == [None, "true"], "what was rolled back has kept no answer"
    assert both[0]["body"] == both[1]["body"] and len(await named(served, "All or none")) == 1


@pytest.mark.requirement("http.head-and-idempotency", "http.idempotency-without-secrets")
@pytest.mark.parametrize("row", [row for row in POSTS if not row.path.endswith(NOT_MADE_UP)], ids=name)
async def test_every_post_is_done_once(lite: Served, row: Route) -> None:
    made = await lite.call("POST", "/api/servers", server("Walked"))
    things = Things(made.json()["uuid"], (await lite.call("POST", "/api/auth/keys", {"name": "walked"})).json()["id"])
    things = await placed(lite, things)
    key = await credential(lite, row)
    url, body = path(row, things), whole_body(row, things)
    with anyio.fail_after(10):
        first, again = [await lite.call("POST", url, body, key=key, headers={"Idempotency-Key": f"walk:{row.path}"}) for _ in range(2)]
    if row in PERSONAL and "/logout" in row.path:
        assert (first.status_code, again.status_code) == (204, 401), "a caller that is gone has no answers"
        return
    if first.status_code >= 400:
        assert not replayed(again) and row not in WRITING
        return
    assert (again.status_code, replayed(again)) == (first.status_code, True), again.text
    told, secrets = again.text, [value for value in texts(first.json() if first.content else None) if looks_secret(value)]
    assert not [value for value in secrets if value in told]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        items = [item for name, item in value.items() if name not in _DIGESTS] if isinstance(value, dict) else value
        return [found for item in items for found in texts(item)]
    return [value] if isinstance(value, str) else []


# Of files, which everybody may compute who has them.
_DIGESTS = ("sha256", "content_hash", "contentHash", "fileSha256", "hash")
_ID = re.compile(r"[a-z]+_[0-9A-Za-z]{22}")


def looks_secret(value: str) -> bool:
    """Long, without spaces, and no id, time or address."""
    return len(value) > 24 and " " not in value and value.count("-") < 4 and "/" not in value and _ID.fullmatch(value) is None
