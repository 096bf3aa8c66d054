"""Walk 4: every row that changes something leaves a row in the audit, whoever adds it."""

import pytest

from plughub.door.routes import PUBLIC, Route
from plughub.events.audit_check import verify
from tests.serving import Json, Served
from tests.walks.rows import ROWS, SCOPED, Things, ask, name, path, placed
from tests.walks.test_commit import WRITING, change

pytestmark = pytest.mark.anyio


async def newest(served: Served, **wanted: str) -> Json:
    query = "&".join(f"{key}={value}" for key, value in {"limit": "1", **wanted}.items())
    found: Json = (await served.call("GET", f"/api/audit-logs?{query}")).json()["audit_logs"][0]
    return found


async def fresh(served: Served) -> tuple[Things, str]:
    """Things of this test alone, for a row may remove them; and the secret of the key."""
    disabled = {"name": "walked", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    server = await served.call("POST", "/api/servers", disabled)
    key = await served.call("POST", "/api/auth/keys", {"name": "walked"})
    return await placed(served, Things(server.json()["uuid"], key.json()["id"])), key.json()["key"]


@pytest.mark.requirement("audit.every-change")
@pytest.mark.parametrize("row", WRITING, ids=name)
async def test_every_change_leaves_a_row_with_its_key_and_request(lite: Served, row: Route) -> None:
    things, secret = await fresh(lite)
    body = {"token": secret} if row.path.endswith("/leaked") else change(lite, row, things)
    answer = await lite.call(row.method, path(row, things), body)
    assert answer.status_code < 300, answer.text
    told = await newest(lite)
    assert told["request_id"] == answer.headers["x-request-id"]
    who = ("anonymous", None) if row.scope == PUBLIC else ("key", "Operator")
    assert (told["outcome"], told["actor"]["type"], told["actor"]["name"], told["address"]) == ("ok", *who, "127.0.0.1")
    assert told["action"].split(".")[0] == told["object"]["type"]
    assert told["changes"] and told["object"]["name"]


@pytest.mark.requirement("audit.refusals")
@pytest.mark.parametrize("row", [row for row in SCOPED if not row.hot and row.scope != "admin"], ids=name)
async def test_every_refused_request_for_a_scope_leaves_a_row(lite: Served, row: Route) -> None:
    organization = await lite.operator()
    key = await lite.key_of(organization, scopes=["read:usage"])
    answer = await ask(lite, row, Things.missing(), key=key)
    assert answer.status_code == 403
    await lite.app.refusals.written()
    told = await newest(lite, action="request.refused")
    assert (told["request_id"], told["outcome"]) == (answer.headers["x-request-id"], "FORBIDDEN")
    assert told["object"]["name"] == name(row) and told["note"] == {"required_scope": row.scope}


@pytest.mark.requirement("audit.tamper-evident")
async def test_the_chain_of_all_that_fits(lite: Served) -> None:
    chain = lite.database.chain
    assert chain is not None
    assert {verdict.reason async for verdict in verify(lite.database, chain)} == {None}


def test_the_walk_is_of_all_rows_that_write() -> None:
    assert len(WRITING) > 20 and {row.method for row in ROWS if row in WRITING} == {"POST", "PUT", "PATCH", "DELETE"}
