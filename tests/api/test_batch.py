"""POST /api/batch: operations that each pass the whole way in, one after the other, at once, or all or none."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import anyio
import httpx2
import pytest
import structlog
from sqlalchemy import text

from plughub.api.framework import is_of_database, writes_in_work
from plughub.db.unit_of_work import Event
from plughub.events.audit_check import verify
from tests.serving import FakeMcp, Json, RawCall, Served, text_result, upstream
from tests.walks.rows import ROWS, name

pytestmark = pytest.mark.anyio
BATCH = "/api/batch"


def create(name: str, id_: str | None = None, **more: Any) -> Json:
    body = {"name": name, "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    return {**({"id": id_} if id_ else {}), "method": "POST", "path": "/servers", "body": body, **more}


def get(path: str, **more: Any) -> Json:
    return {"method": "GET", "path": path, **more}


async def send(served: Served, *operations: Json, key: Any = None, mode: str = "sequential", **headers: str) -> httpx2.Response:
    return await served.call("POST", BATCH, {"operations": operations, "mode": mode}, key=key, headers=headers)


async def results(served: Served, *operations: Json, key: Any = None, mode: str = "sequential") -> list[Json]:
    answer = await send(served, *operations, key=key, mode=mode)
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["results"]
    assert [each["index"] for each in found] == list(range(len(operations)))
    assert answer.json()["succeeded"] == sum(each["status"] < 400 for each in found)
    return found


def statuses(found: list[Json]) -> list[int]:
    return [each["status"] for each in found]


async def names(served: Served, key: str | None = None) -> list[str]:
    return [server["name"] for server in (await served.call("GET", "/api/servers", key=key)).json()["servers"]]


@pytest.mark.requirement("events.batch", "events.batch-references")
@pytest.mark.parametrize("mode", ["sequential", "parallel"])
async def test_a_server_is_made_used_and_removed_in_one_request(served: Served, mode: str) -> None:
    made, shown, called, gone, again = await results(
        served,
        create("Passing", "made"),
        get("/api/servers/{{made.body.uuid}}", id="shown"),
        {
            "id": "called",
            "method": "POST",
            "path": f"/servers/{served.demo_id}/tools/echo/execute",
            "body": {"parameters": {"text": "{{made.body.slug}} of {{shown.status}}"}},
        },
        {"id": "gone", "method": "DELETE", "path": "/servers/{{made.body.uuid}}", "depends_on": ["called"]},
        get("/servers/{{made.body.uuid}}", depends_on=["gone"]),
        mode=mode,
    )
    assert statuses([made, shown, called, gone, again]) == [201, 200, 200, 204, 404]
    assert made["body"]["uuid"] == shown["body"]["uuid"]
    assert called["body"]["result"] == f"{made['body']['slug']} of 200"
    assert gone["body"] is None
    assert len({each["headers"]["x-request-id"] for each in (made, shown, called, gone, again)}) == 5


@pytest.mark.requirement("events.batch")
async def test_a_failure_stops_those_that_depend_on_it_and_whatever_depends_on_them(served: Served) -> None:
    operations = [
        {"id": "bad", "method": "POST", "path": "/servers", "body": {"name": "x"}},
        get("/servers/{{bad.body.uuid}}", id="after"),
        create("Depends", "later", depends_on=["after"]),
        create("Beside"),
        get("/servers/{{3.body.nothing}}", id="wrong"),
        get("/servers", depends_on=["wrong"]),
    ]
    for mode in ("sequential", "parallel"):
        found = await results(served, *operations, mode=mode)
        assert statuses(found) == [400, 424, 424, 201, 400, 424]
        assert [each["body"]["error"]["details"].get("operation") for each in found if each["status"] == 424] == ["bad", "after", "wrong"]
        assert "{{3.body.nothing}}" in found[4]["body"]["message"]
    assert "Depends" not in await names(served)


@pytest.mark.requirement("events.batch-atomic")
async def test_all_or_nothing(served: Served) -> None:
    before = await names(served)
    found = await results(served, create("One", "one"), create("Two"), get("/servers/nope", id="bad"), create("Three"), mode="atomic")
    assert statuses(found) == [424, 424, 404, 424]
    assert [each["body"]["error"]["details"].get("rolled_back") for each in found] == [True, True, None, False]
    assert found[0]["body"]["message"] == "Rolled back: 'bad' failed, and the batch is atomic"
    assert await names(served) == before
    logged = await logs(served, [each["headers"]["x-request-id"] for each in found])
    assert logged == ["FAILED_DEPENDENCY", "FAILED_DEPENDENCY", "NOT_FOUND", "FAILED_DEPENDENCY"], "the log says what became of them"
    all_of_it = [
        create("One", "one"),
        get("/servers/{{one.body.uuid}}"),
        {"method": "PATCH", "path": "/servers/{{one.body.uuid}}", "body": {"name": "New"}},
    ]
    found = await results(served, *all_of_it, mode="atomic")
    assert statuses(found) == [201, 200, 200], "an operation sees what those before it have done"
    assert await names(served) == [*before, "New"]


async def logs(served: Served, ids: list[str]) -> list[str]:
    await served.app.hub.writer.flush()
    async with served.database.read() as connection:
        rows = (await connection.execute(text("SELECT request_id, outcome FROM event WHERE request_id IS NOT NULL"))).all()
    outcomes = {row.request_id: row.outcome for row in rows}
    return [outcomes[id_] for id_ in ids]


@pytest.mark.requirement("events.batch-atomic", "audit.every-change")
async def test_an_atomic_batch_is_one_transaction_and_each_deed_has_its_own_request(served: Served) -> None:
    told: list[int] = []

    async def listen(events: Sequence[Event]) -> None:
        told.append(len(events))

    served.database.listeners.append(listen)
    found = await results(served, *(create(f"Deed {n}") for n in range(5)), mode="atomic")
    served.database.listeners.remove(listen)
    assert (statuses(found), told) == ([201] * 5, [5])
    audit = (await served.call("GET", "/api/audit-logs?limit=5")).json()["audit_logs"]
    assert [row["request_id"] for row in reversed(audit)] == [each["headers"]["x-request-id"] for each in found]
    chain = served.database.chain
    assert chain is not None
    assert {verdict.reason async for verdict in verify(served.database, chain)} == {None}


@pytest.mark.requirement("events.batch-atomic", "data.failing-commit-is-no-success")
async def test_a_commit_that_fails_acknowledges_nothing(lite: Served) -> None:
    trap = [
        "CREATE TABLE trap_target (id INTEGER PRIMARY KEY)",
        "CREATE TABLE trap (id INTEGER REFERENCES trap_target(id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER trap_trigger AFTER INSERT ON event BEGIN INSERT INTO trap VALUES (1); END",
    ]
    async with lite.database.unit_of_work() as uow:
        for statement in trap:
            await uow.execute(text(statement))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the traces take seconds to be written
    before = await names(lite)
    answer = await send(lite, create("Never"), create("Neither"), mode="atomic")
    kept = await lite.call("POST", "/api/servers", create("Nor this")["body"], headers={"Idempotency-Key": "trapped"})
    async with lite.database.unit_of_work() as uow:
        for what in ("TRIGGER trap_trigger", "TABLE trap", "TABLE trap_target"):
            await uow.execute(text(f"DROP {what}"))
    assert (answer.status_code, kept.status_code) == (500, 500)
    assert await names(lite) == before
    again = await lite.call("POST", "/api/servers", create("Nor this")["body"], headers={"Idempotency-Key": "trapped"})
    assert (again.status_code, "idempotent-replayed" in again.headers) == (201, False)


@pytest.mark.requirement("events.batch-atomic")
async def test_what_is_more_than_the_database_is_refused_before_anything_runs(lite: Served) -> None:
    before = await names(lite)
    mcp_id = (await lite.call("GET", "/v1/mcps")).json()["data"][0]["id"]
    reaching = [
        ("POST", f"/servers/{lite.demo_id}/tools/echo/execute"),
        ("POST", "/v1/mcp/invoke"),
        ("POST", f"/servers/{lite.demo_id}/test"),
        ("POST", f"/servers/{lite.demo_id}/restart"),
        ("GET", f"/servers/{lite.demo_id}/health"),
        ("GET", f"/servers/{lite.demo_id}/tools"),
        ("GET", f"/v1/mcps/{mcp_id}"),
    ]
    for method, path in reaching:
        answer = await send(lite, create("Before"), {"method": method, "path": path, "body": {}}, mode="atomic")
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "operations.1.path"), path
        assert "more than change the database" in answer.json()["message"]
    assert await names(lite) == before


@pytest.mark.requirement("events.batch-counted", "limits.refusal")
async def test_operations_count_and_share_one_place_among_those_at_once(served: Served) -> None:
    organization = await served.organization("Counted", "pro")
    admin = await served.key_of(organization)
    made = await served.call("POST", "/api/auth/keys", {"name": "k", "scopes": ["admin"], "rate_limit": {"concurrency": 1}}, key=admin)
    key = made.json()["key"]
    for mode in ("sequential", "parallel", "atomic"):
        before = int((await served.call("GET", "/api/rate-limit", key=key)).headers["x-ratelimit-remaining"])
        answer = await send(
            served, *(get("/servers") for _ in range(5)), get("/rate-limit") if mode != "atomic" else get("/servers"), key=key, mode=mode
        )
        assert statuses(answer.json()["results"]) == [200] * 6
        spent = 6 if mode == "atomic" else 5
        assert int(answer.headers["x-ratelimit-remaining"]) == before - spent
    refused = await send(served, get("/servers", id="a b"), key=key)
    assert (refused.status_code, int(refused.headers["x-ratelimit-remaining"])) == (400, before - spent - 1), (
        "no batch at all counts as one"
    )
    assert (await served.call("GET", "/api/servers", key=key)).status_code == 200, "the place was given back"


@pytest.mark.requirement("events.batch-counted")
async def test_what_is_over_the_limit_is_refused_alone_and_an_atomic_batch_whole(served: Served) -> None:
    organization = await served.organization("Small", "free")
    key = await served.key_of(organization)
    found = await results(served, *(get("/servers") for _ in range(12)), key=key)
    assert statuses(found) == [200] * 10 + [429] * 2
    assert found[-1]["headers"]["retry-after"] == str(found[-1]["body"]["error"]["details"]["retry_after"])
    served.clock.advance(12)  # two more
    found = await results(served, *(create(f"n{n}") for n in range(3)), key=key, mode="atomic")
    assert statuses(found) == [424, 424, 429]
    served.clock.advance(60)
    assert await names(served, key) == []


@pytest.mark.requirement("events.batch", "keys.revoked-answers-410")
async def test_a_batch_that_ends_its_own_key_goes_no_further(served: Served) -> None:
    made = (await served.call("POST", "/api/auth/keys", {"name": "k", "scopes": ["admin"]})).json()
    found = await results(
        served, get("/servers"), {"method": "DELETE", "path": f"/auth/keys/{made['id']}"}, get("/servers"), key=made["key"]
    )
    assert statuses(found) == [200, 200, 410]


@pytest.mark.requirement("events.batch")
async def test_a_browser_sends_batches_too_and_logs_in_alone(lite: Served) -> None:
    browser = await lite.browser(await lite.operator())
    assert statuses(await results(lite, create("By hand"), get("/auth/me"), key=browser)) == [201, 200]
    for method, path in (("POST", "/auth/login"), ("POST", "/auth/logout"), ("POST", "/auth/password"), ("POST", "/cli/auth/initiate")):
        refused = await send(lite, {"method": method, "path": path, "body": {}}, key=browser)
        assert (refused.status_code, "is asked alone" in refused.json()["message"]) == (400, True), path


@pytest.mark.requirement("events.batch")
async def test_there_is_no_batch_in_a_batch_and_no_stream(lite: Served) -> None:
    refused = [
        {"method": "POST", "path": "/batch", "body": {"operations": []}},
        {"method": "POST", "path": "/api/v2/batch", "body": {}},
        {"method": "POST", "path": f"/servers/{lite.demo_id}/tools/echo/execute", "headers": {"accept": "text/event-stream"}, "body": {}},
        get(f"/servers/{lite.demo_id}/logs?follow=true"),
        get(f"/servers/{lite.demo_id}/logs", headers={"Accept": "text/event-stream"}),
    ]
    for operation in refused:
        answer = await send(lite, operation, Accept="application/json, text/event-stream")
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "operations.0.path"), operation
    plain = get(f"/servers/{lite.demo_id}/logs")
    assert (await send(lite, plain, Accept="text/event-stream")).json()["results"][0]["status"] == 200, "that of the batch is of the batch"


@pytest.mark.requirement("events.batch", "events.batch-references")
async def test_a_reference_leads_to_no_other_route(lite: Served) -> None:
    found = await results(lite, create("export", "made"), get("/servers/{{made.body.name}}"), get("/servers/{{made.body.config.url}}"))
    assert statuses(found) == [201, 400, 404]
    assert "may not lead to another route" in found[1]["body"]["message"]


@pytest.mark.requirement("events.batch")
async def test_bodies_that_are_no_json_come_as_text(lite: Served) -> None:
    found = await results(lite, get("/audit-logs/export"), get("/openapi.json"), get("/nothing"))
    assert statuses(found) == [200, 200, 404]
    assert isinstance(found[0]["body"], str) and found[1]["body"]["openapi"] == "3.1.0"
    tagged = (await results(lite, get("/profiles")))[0]["headers"]["etag"]
    assert (await results(lite, get("/profiles", headers={"If-None-Match": tagged})))[0]["status"] == 304


@pytest.mark.requirement("events.batch")
async def test_parallel_operations_run_at_once_and_wait_for_what_they_need(lite: Served) -> None:
    fake = FakeMcp(tools=[{"name": name, "inputSchema": {"type": "object"}} for name in ("a", "b", "c")])
    fake.held = {name: asyncio.Event() for name in ("a", "b")}
    fake.results = {name: text_result(name) for name in ("a", "b", "c")}
    async with upstream(lite, fake) as made:
        path = f"/servers/{made['uuid']}/tools/"
        operations = [{"id": name, "method": "POST", "path": f"{path}{name}/execute", "body": {}} for name in ("a", "b", "c")]
        operations[2]["depends_on"] = ["a", "b"]
        batch = asyncio.ensure_future(results(lite, *operations, mode="parallel"))
        with anyio.fail_after(5):
            while len(called(fake)) < 2:
                await asyncio.sleep(0)
        assert sorted(called(fake)) == ["a", "b"]
        for held in fake.held.values():
            held.set()
        assert [each["body"]["result"] for each in await batch] == ["a", "b", "c"]


def called(fake: FakeMcp) -> list[str]:
    return [seen.json["params"]["name"] for seen in fake.calls]


@pytest.mark.requirement("events.batch")
async def test_whoever_leaves_a_batch_stops_it(lite: Served) -> None:
    fake = FakeMcp(held={"echo": asyncio.Event()})
    async with upstream(lite, fake) as made:
        call = RawCall(lite, "POST", BATCH, {"content-type": "application/json"})
        path = f"/servers/{made['uuid']}/tools/echo/execute"
        operations = [{"method": "POST", "path": path, "body": {}}, {"method": "DELETE", "path": f"/servers/{made['uuid']}"}]
        running = call.piece(json.dumps({"operations": operations}).encode()).start()
        with anyio.fail_after(5):
            while not called(fake):
                await asyncio.sleep(0)
        call.leave()
        with anyio.fail_after(5):
            assert (await running).messages == []
        assert (await lite.call("GET", f"/api/servers/{made['uuid']}")).status_code == 200
        fake.held["echo"].set()


@pytest.mark.requirement("events.batch", "limits.refusal")
async def test_answers_are_bounded_together(lite: Served) -> None:
    fake = FakeMcp(results={"echo": text_result("x" * 7_000_000)})
    async with upstream(lite, fake) as made:
        operation = {"method": "POST", "path": f"/servers/{made['uuid']}/tools/echo/execute", "body": {}}
        found = await results(lite, *[operation] * 4)
    assert statuses(found) == [200, 200, 200, 413]
    assert found[-1]["body"]["message"] == "Not run: the answers of this batch are too large already"


def test_every_row_says_whether_it_may_be_part_of_a_transaction() -> None:
    def of(check: Any) -> set[str]:
        return {name(row) for row in ROWS if check(row)}

    assert {"POST /api/servers", "DELETE /api/servers/{uuid}", "POST /api/auth/keys"} <= of(writes_in_work) <= of(is_of_database)
    assert not {"POST /api/servers/{uuid}/restart", "GET /v1/mcps/{mcp_id}", "POST /api/auth/login"} & of(is_of_database)
