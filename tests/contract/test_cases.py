"""The contract as data: every case against the running hub, and a case for every status that a route's row implies."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from plughub.door.dispatch import door_of
from plughub.door.routes import Route, RouteTable
from tests.contract import refusals
from tests.contract.cases import Case, differences, filled, load, placeholders
from tests.contract.refusals import implied
from tests.contract.world import World
from tests.serving import Browser, RawCall, Served, serving
from tests.walks.rows import ROWS, check_error, name

pytestmark = pytest.mark.anyio
ALL = load()
TABLE = RouteTable(ROWS)
CROWD = "crowd"
EVENTS = "text/event-stream"


@pytest.fixture(scope="module")
async def world(served: Served) -> AsyncIterator[World]:
    found = await World.of(served)
    yield found
    await found.close()


@pytest.fixture(scope="module")
async def crowded(lite_url: str, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Served]:
    """A hub whose limit for addresses is used up."""
    async with serving(lite_url, tmp_path_factory.mktemp("crowded"), address_limit_per_minute=1) as found:
        await found.call("GET", "/api/openapi.json", key="")
        yield found


def row_of(case: Case) -> Route:
    """The route that the case asks; a path or method without one is answered like any other of its door."""
    match = TABLE.find(case.request["path"].partition("?")[0].encode())
    found = match[0].get(case.request["method"]) if match else None
    if found is not None:
        return found[0]
    return next(row for row in ROWS if row.door == door_of(case.request["path"]))


async def ask(served: Served, case: Case, key: str | Browser, things: dict[str, str]) -> httpx2.Response:
    request = filled(case.request, things)
    if request["method"] == "GET" and request.get("headers", {}).get("Accept") == EVENTS:  # it may never end
        assert isinstance(key, str)
        return await begin(RawCall(served, request["method"], request["path"], request["headers"], key))
    content = request["raw"].encode() if "raw" in request else request.get("body")
    return await served.call(request["method"], request["path"], content, key=key, headers=request.get("headers"))


async def begin(call: RawCall) -> httpx2.Response:
    """The answer as far as the first event of its stream; then the client leaves."""
    task = call.piece(b"").start()
    answer = call.answer
    await answer.until(lambda: answer.complete or b"\n\n" in answer.body)
    call.leave()
    await task
    return httpx2.Response(answer.status, headers=answer.headers, content=answer.body)


def check(case: Case, answer: httpx2.Response, things: dict[str, str]) -> None:
    wanted = filled(case.answer, things)
    assert answer.status_code == wanted["status"], answer.text
    if answer.status_code >= 400:
        check_error(row_of(case), answer)
    found = differences(wanted.get("headers", {}), dict(answer.headers), "headers")
    if "body" in wanted:
        is_json = answer.content and answer.headers.get("content-type") == "application/json"
        found += differences(wanted["body"], answer.json() if is_json else answer.text)
    assert not found, "\n".join([*found, answer.text])


@pytest.mark.requirement("routes.contract-cases")
@pytest.mark.parametrize("case", [case for case in ALL if case.who != CROWD], ids=lambda case: case.id)
async def test_a_case_of_the_contract(world: World, case: Case) -> None:
    key = await world.key_of(case.who)
    things = await world.things(placeholders(case.request), key)
    check(case, await ask(world.served, case, key, things), things)


@pytest.mark.requirement("routes.contract-cases", "limits.unauthenticated-by-address")
@pytest.mark.parametrize("case", [case for case in ALL if case.who == CROWD], ids=lambda case: case.id)
async def test_a_case_of_a_crowded_address(crowded: Served, case: Case) -> None:
    things = {"missing_server": crowded.demo_id, "missing_slug": "default"}
    check(case, await ask(crowded, case, "", things), things)


@pytest.mark.requirement("routes.contract-cases")
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_every_status_that_a_row_implies_has_a_case(row: Route) -> None:
    shown = {case.answer["status"] for case in ALL if row_of(case) is row}
    assert implied(row) <= shown, f"no case in contract/cases/ for {sorted(implied(row) - shown)}"


@pytest.mark.requirement("routes.contract-cases")
def test_the_refusals_are_what_is_generated() -> None:
    committed = {path.name: path.read_text() for path in sorted(refusals.REFUSALS.glob("*.json"))}
    assert committed == refusals.files(), "run: make contract"


def test_names_of_cases_are_told_apart() -> None:
    ids = [case.id for case in ALL]
    assert sorted(set(ids)) == sorted(ids)


def test_what_is_not_wanted_is_found() -> None:
    assert differences({"a": {"$any": "integer|null"}}, {"a": None, "more": 1}) == []
    assert differences({"a": 1}, {"a": True}) == ["body.a: 1 is wanted, not True"]
    assert differences({"a": 1, "b": 2}, {"a": 1}) == ["body.b: missing"]
    assert differences({"$only": {"a": 1}}, {"a": 1, "b": 2}) == ["body.b: not wanted"]
    assert differences({"$each": {"$any": "time"}}, ["2027-01-15T08:00:00Z", "now"]) == ["body[1]: any time is wanted, not 'now'"]
    assert differences({"$each": 1}, []) == ["body: a list with items is wanted, not []"]
    assert differences({"$has": {"a": 1}}, [{"a": 2}, {"a": 1, "b": 1}]) == []
    assert differences([1, 2], [1]) == ["body: 2 items are wanted, not [1]"]
    assert differences({"$match": "^a"}, "b") == ["body: a text like '^a' is wanted, not 'b'"]


def test_a_file_below_another_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.json").write_text('[{"name":"n","as":"none","request":{},"answer":{}}]')
    assert [case.id for case in load(tmp_path)] == ["x/y: n"]
