"""Walk 3: the commit itself fails. Nothing is acknowledged: the first byte of every answer comes after the commit."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from plughub.door.routes import Route
from tests.serving import Json, RawCall, Served
from tests.walks.rows import ROWS, Things, ask, check_error, code_of, credential, dumps, name, path, placed, whole_body

pytestmark = pytest.mark.anyio
# They reach a server or search, and change nothing in the database; or take a token that is not made up.
REACHING = {
    "POST /api/documents/search",
    "POST /api/rag/query",
    "POST /api/invitations/accept",
    "POST /api/servers/{uuid}/test",
    "POST /v1/mcps/{mcp_id}/test",
    "POST /api/servers/{uuid}/restart",
    "POST /api/webhooks/{webhook_id}/test",
    # There is no star to take back: tests/registry/test_registry.py.
    "DELETE /api/registry/servers/{server_name}/star",
}
# Accounts tell the log of what ends a session; what they do besides is in tests/api/test_auth.py.
ACCOUNTS = {name(row) for row in ROWS if row.tag in ("Accounts", "Command line")} - {"POST /api/auth/logout"}
WRITING = tuple(row for row in ROWS if row.method != "GET" and not row.hot and name(row) not in REACHING | ACCOUNTS)

# Every change emits an event; with the trap set, each event breaks a constraint that is looked at by the COMMIT alone.
SET = {
    "sqlite": [
        "CREATE TABLE trap_target (id INTEGER PRIMARY KEY)",
        "CREATE TABLE trap (id INTEGER REFERENCES trap_target(id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER trap_trigger AFTER INSERT ON event BEGIN INSERT INTO trap VALUES (1); END",
    ],
    "postgresql": [
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$",
        "CREATE CONSTRAINT TRIGGER trap_trigger AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap()",
    ],
}
UNSET = {
    "sqlite": ["DROP TRIGGER trap_trigger", "DROP TABLE trap", "DROP TABLE trap_target"],
    "postgresql": ["DROP TRIGGER trap_trigger ON event", "DROP FUNCTION trap()"],
}
LISTS = (
    "/api/servers",
    "/api/auth/keys?limit=100",
    "/v1/mcps",
    "/v1/api-keys?per_page=100",
    "/api/projects?limit=100",
    "/api/profiles?limit=100",
    "/api/webhooks?limit=100",
    "/api/documents?limit=100",
)


async def state(served: Served) -> str:
    """All that a caller can see, as text."""
    lists = [await served.call("GET", p) for p in LISTS]
    assert all(answer.status_code == 200 for answer in lists)
    seen = dumps([without_status(answer.json()) for answer in lists])
    async with served.database.read() as connection:
        events = (await connection.execute(text("SELECT count(*) FROM event WHERE change_no IS NOT NULL"))).scalar()
        last = (await connection.execute(text("SELECT change_no FROM hub"))).scalar()
    return f"{seen} {events} {last}"


def without_status(page: Json) -> Json:
    for server in page.get("servers", ()):
        for moving in ("status", "last_error", "tools_count"):
            server.pop(moving)
    for key in page.get("keys", ()):
        for moving in ("last_used_at", "last_used_ip"):  # written a moment after each request
            key.pop(moving)
    for item in page.get("data", ()):
        for moving in ("health", "usage", "last_used"):
            item.pop(moving, None)
    return page


@pytest.fixture(scope="module")
async def trapped(served: Served) -> AsyncIterator[tuple[Served, Things]]:
    """A hub with a server and a key, on a database where no change can be committed."""
    disabled = {"name": "kept", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    server = await served.call("POST", "/api/servers", disabled)
    key = await served.call("POST", "/api/auth/keys", {"name": "kept"})
    things = await placed(served, Things(server.json()["uuid"], key.json()["id"]))
    kind = served.database.kind
    async with served.database.unit_of_work() as uow:
        for statement in SET[kind]:
            await uow.execute(text(statement))
    yield served, things
    async with served.database.unit_of_work() as uow:
        for statement in UNSET[kind]:
            await uow.execute(text(statement))
    assert (await served.call("POST", "/api/auth/keys", {"name": "works again"})).status_code == 201


def change(served: Served, row: Route, things: Things) -> object:
    """A body that changes something."""
    if row.path.endswith("/leaked"):
        return {"token": served.key}
    sent = whole_body(row, things)
    if "user_id" in row.path or "document_id" in row.path:
        return sent
    if "webhook_id" in row.path and row.method == "PATCH":
        return {"description": "Changed"}
    if "server_uuid" in row.path:
        return {"enabled": False}
    if row.path == "/api/admin/organizations/{organization_id}":
        return {"limits": {"hourly": 999_999_999}}
    return {"name": name(row)} if row.method in ("PUT", "PATCH") else sent


# A ticket is no change that the log tells of, so the trap does not catch it.
@pytest.mark.requirement("data.failing-commit-is-no-success", "data.events-commit-with-the-change")
@pytest.mark.parametrize("row", [row for row in WRITING if row.path != "/api/events/tickets"], ids=name)
async def test_a_commit_that_fails_is_a_500_and_changes_nothing(trapped: tuple[Served, Things], row: Route) -> None:
    served, things = trapped
    before = await state(served)
    answer = await served.call(row.method, path(row, things), change(served, row, things), key=await credential(served, row))
    assert answer.status_code == 500, answer.text
    assert code_of(row, answer) == ("internal_error" if row.door == "v1" else "SERVER_ERROR")
    assert "trap" not in answer.text and "FOREIGN" not in answer.text
    assert '"key"' not in answer.text and "_ph_" not in answer.text
    check_error(row, answer)
    assert await state(served) == before


@pytest.mark.requirement("data.failing-commit-is-no-success")
async def test_not_one_byte_of_success_is_sent_before_the_commit(trapped: tuple[Served, Things]) -> None:
    served, _ = trapped
    call = RawCall(served, "POST", "/api/auth/keys", {"content-type": "application/json", "content-length": "12"})
    answer = await call.piece(b'{"name":"x"}').run()
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
    assert answer.status == 500


@pytest.mark.requirement("data.failing-commit-is-no-success")
async def test_caches_keep_what_was_true_when_the_commit_failed(trapped: tuple[Served, Things]) -> None:
    served, _ = trapped
    demo = Things(served.demo_id, "")
    row = next(row for row in ROWS if row.method == "DELETE" and row.path.startswith("/api/servers"))
    assert (await ask(served, row, demo)).status_code == 500
    call = await served.call("POST", f"/api/servers/{served.demo_id}/tools/echo/execute", {"parameters": {"text": "still here"}})
    assert call.json()["result"] == "still here"
