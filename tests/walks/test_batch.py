"""Walk 5: what a request of its own is refused, an operation of a batch is refused in the same words. A sample of the rows."""

from dataclasses import dataclass

import pytest

from plughub.door.routes import PUBLIC, SIGNED_IN, Route
from plughub.kit.caller import SCOPES
from tests.serving import Json, Served
from tests.walks.rows import OPEN, SCOPED, Things, ask, has_id, name, path, placed, whole_body

pytestmark = pytest.mark.anyio


def in_batches(row: Route) -> bool:
    """What may be an operation at all."""
    streamed = row.event_source or row.output_kind == "text/event-stream"
    return row.door in ("api", "v1") and row.path != "/api/batch" and row.scope not in (PUBLIC, SIGNED_IN) and not streamed


SAMPLE = [row for row in SCOPED if in_batches(row)][::3]
NAMED = [row for row in OPEN if in_batches(row) and has_id(row)][::3]
# People and organisations belong to both environments.
OF_BOTH = ("organization", "user_id", "app_id", "grant_id")


@dataclass
class People:
    """Keys of another organisation and environment, and what is foreign to them."""

    strangers: tuple[str, str]
    things: Things


@pytest.fixture(scope="module")
async def people(lite: Served) -> People:
    owner = await lite.organization("Owner", stdio_allowed=True)
    key = await lite.key_of(owner)
    made = await lite.call("POST", "/api/servers", {"name": "x", "type": "STDIO", "config": {"command": "/nonexistent"}}, key=key)
    own = (await lite.call("POST", "/api/auth/keys", {"name": "x"}, key=key)).json()["id"]
    things = await placed(lite, Things(made.json()["uuid"], own), key=key)
    return People((await lite.key_of(await lite.organization("Stranger")), await lite.key_of(owner, "test")), things)


async def in_a_batch(served: Served, row: Route, things: Things, key: str) -> Json:
    """The answer to the row as an operation between two others."""
    own = {"method": row.method, "path": path(row, things), "body": whole_body(row, things), "id": "own"}
    beside = {"method": "GET", "path": "/rate-limit"}
    answer = await served.call("POST", "/api/batch", {"operations": [beside, own, beside]}, key=key)
    assert answer.status_code == 200, answer.text
    before, found, after = answer.json()["results"]
    assert (before["status"], after["status"]) == (200, 200)
    result: Json = found
    return result


async def same_as_alone(served: Served, row: Route, things: Things, key: str) -> Json:
    """The same; it must be what the request alone is answered."""
    found, alone = await in_a_batch(served, row, things, key), await ask(served, row, things, key=key)
    wanted, told = alone.json(), found["body"]
    for body in (wanted, told):
        body.pop("request_id", None)
        body["error"]["details"].pop("request_id", None)
    assert (found["status"], told) == (alone.status_code, wanted)
    assert found["headers"].get("www-authenticate") == alone.headers.get("www-authenticate")
    assert found["headers"]["cache-control"] == "no-store"
    return found


@pytest.mark.requirement("routes.walk-callers", "events.batch", "keys.scope-missing-answers-403")
@pytest.mark.parametrize("row", SAMPLE, ids=name)
async def test_without_the_scope_an_operation_is_a_403(lite: Served, people: People, row: Route) -> None:
    key = await lite.key_of(await lite.operator(), scopes=sorted(SCOPES - {row.scope, "admin"}))
    found = await same_as_alone(lite, row, people.things, key)
    assert found["status"] == 403
    assert found["body"]["error"]["details"]["required_scope"] == row.scope


@pytest.mark.requirement("routes.walk-callers", "events.batch", "routes.foreign-is-missing")
@pytest.mark.parametrize("row", NAMED, ids=name)
async def test_what_is_foreign_looks_missing_in_a_batch(lite: Served, people: People, row: Route) -> None:
    for key in people.strangers[:1] if any(part in row.path for part in OF_BOTH) else people.strangers:
        foreign = await same_as_alone(lite, row, people.things, key)
        missing = await same_as_alone(lite, row, Things.missing(), key)
        assert (foreign["status"], foreign["body"]) == (404, missing["body"])


@pytest.mark.requirement("routes.walk-errors", "events.batch-counted", "limits.refusal")
async def test_over_the_limit_every_operation_is_a_429(lite: Served) -> None:
    key = await lite.key_of(await lite.organization("Spent", "free"))
    while (await lite.call("GET", "/api/servers", key=key)).status_code == 200:
        pass
    for row in [row for row in SAMPLE if row.cost]:
        found = await same_as_alone(lite, row, Things.missing(), key)
        assert (found["status"], found["headers"].get("retry-after")) == (429, str(found["body"]["error"]["details"]["retry_after"]))


@pytest.mark.requirement("audit.refusals", "events.batch")
async def test_a_refused_operation_leaves_its_row_in_the_audit(lite: Served) -> None:
    key = await lite.key_of(await lite.operator(), scopes=["read:servers"])
    row = next(row for row in SAMPLE if not row.hot and row.scope == "write:servers")
    found = await in_a_batch(lite, row, Things.missing(), key)
    await lite.app.refusals.written()
    told = (await lite.call("GET", "/api/audit-logs?action=request.refused&limit=1")).json()["audit_logs"][0]
    assert (told["request_id"], told["object"]["name"]) == (found["headers"]["x-request-id"], name(row))


def test_the_sample_is_of_both_dialects_and_of_hot_rows() -> None:
    assert len(SAMPLE) > 20 and len(NAMED) > 10
    assert {row.door for row in SAMPLE} == {"api", "v1"}
    assert any(row.hot for row in (*SAMPLE, *NAMED))
