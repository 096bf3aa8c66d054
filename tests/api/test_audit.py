"""The audit over REST: lists, filters, exports."""

import csv
import io
import json

import pytest

from plughub.api.audit import COLUMNS, csv_line
from plughub.api.audit_shapes import ActivityList, AuditEntry, AuditList
from plughub.db.audit import Deed
from plughub.door.refusals import WINDOW_S, RefusalTrail
from plughub.events.audit_log import AuditRow
from plughub.kit.ids import new_id
from tests.serving import Json, RawCall, Served

pytestmark = pytest.mark.anyio
LOGS = "/api/audit-logs"


async def listed(served: Served, query: str = "", key: str | None = None) -> AuditList:
    answer = await served.call("GET", f"{LOGS}?{query}", key=key)
    assert answer.status_code == 200, answer.text
    return AuditList.model_validate(answer.json())


async def new_key(served: Served, **given: object) -> Json:
    made: Json = (await served.call("POST", "/api/auth/keys", {"name": "k", **given})).json()
    return made


@pytest.mark.requirement("audit.filters", "audit.who-what-where")
async def test_the_list_tells_who_did_what_and_is_filtered_in_both_spellings(served: Served) -> None:
    key = await new_key(served, name="Rotor")
    served.clock.advance(10)
    answer = await served.call("PATCH", f"/api/auth/keys/{key['id']}", {"name": "Motor", "scopes": ["read:servers"]})
    own = (await listed(served, "limit=1")).audit_logs[0]
    assert (own.action, own.outcome, own.request_id) == ("key.updated", "ok", answer.headers["x-request-id"])
    assert (own.object.type, own.object.id, own.object.name, own.environment) == ("key", key["id"], "Motor", "live")
    assert own.changes["name"] == {"before": "Rotor", "after": "Motor"} and "scopes" in own.changes
    assert own.actor.type == "key" and own.actor.name == "Operator" and own.actor.key_id
    one = [own.seq]
    for query in (
        f"object={key['id']}&action=key.update",
        f"object={key['id']}&action=key.updated&actor={own.actor.key_id}&outcome=ok",
        f"object={key['id']}&user={own.actor.key_id}&since={own.timestamp}",
        f"object={key['id']}&start_date=2027-01-15&end_date=2027-01-15&action=key.updated",
    ):
        assert [row.seq for row in (await listed(served, query.replace("+", "%2B"))).audit_logs] == one, query
    assert (await listed(served, "end_date=2027-01-14")).audit_logs == []
    assert (await listed(served, "actor=hub&action=organization.*")).audit_logs[0].object.id.startswith("org_")  # type: ignore[union-attr]
    first = await listed(served, "limit=1")
    second = await listed(served, f"limit=1&cursor={first.next_cursor}")
    assert second.audit_logs[0].seq == first.audit_logs[0].seq - 1
    for query, field in (
        ("actor=nope", "actor"),
        ("user=nope", "user"),
        ("object=No!", "object"),
        ("since=2027-01-15", "since"),
        ("end_date=2027-13-45", "end_date"),
        ("cursor=x", "cursor"),
        ("outcome=%20", "outcome"),
    ):
        refused = await served.call("GET", f"{LOGS}?{query}")
        assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, field)


@pytest.mark.requirement("audit.every-change")
async def test_a_restart_changes_nothing_in_the_database_and_is_told_all_the_same(served: Served) -> None:
    answer = await served.call("POST", f"/api/servers/{served.demo_id}/restart")
    assert answer.status_code == 200
    row = (await listed(served, f"object={served.demo_id}&limit=1")).audit_logs[0]
    assert (row.action, row.request_id, row.changes) == ("server.restarted", answer.headers["x-request-id"], {})


@pytest.mark.requirement("audit.who-may-read")
async def test_organisations_environments_and_server_lists_keep_apart(served: Served) -> None:
    operator, other = await served.operator(), await served.organization("Other one")
    await new_key(served, name="live secret name")
    stranger, test = await served.key_of(other), await served.key_of(operator, "test", name="of test")
    assert {row.object.name for row in (await listed(served, key=stranger)).audit_logs} == {"Other one", "test"}
    seen = await served.call("GET", f"{LOGS}?limit=100", key=test)
    assert "live secret name" not in seen.text and "of test" in seen.text
    assert {row["environment"] for row in seen.json()["audit_logs"]} == {"test", None}
    refused = await served.call("GET", LOGS, key=await served.key_of(operator, servers=[]))
    assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (403, "server_list")
    exported = await served.call("GET", f"{LOGS}/export", key=test)
    assert "live secret name" not in exported.text and "of test" in exported.text


@pytest.mark.requirement("audit.export")
async def test_exports_hold_every_row_in_order_piece_by_piece(served: Served) -> None:
    operator, last = await served.operator(), new_id()
    async with served.database.unit_of_work() as uow:
        for number in range(1100):
            uow.audit(Deed("thing.done", "thing", last if number == 1099 else new_id(), organization_id=operator.id))
    answer = await served.call("GET", f"{LOGS}/export")
    lines = [AuditEntry.model_validate_json(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson" and "etag" not in answer.headers
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1)) and len(lines) > 1100
    assert lines[-1].action == "audit.exported" and lines[-1].request_id == answer.headers["x-request-id"]
    few = await served.call("GET", f"{LOGS}/export?format=csv&action=thing.done&object={last}")
    table = list(csv.reader(io.StringIO(few.text)))
    assert table[0] == list(COLUMNS) and len(table) == 2 and table[1][7] == last
    assert few.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    call = RawCall(served, "GET", f"{LOGS}/export")
    raw = await call.piece(b"").run()
    assert len([message for message in raw.messages if message.get("body")]) > 2
    head = await RawCall(served, "HEAD", f"{LOGS}/export").piece(b"").run()
    assert (head.status, head.body) == (200, b"")


@pytest.mark.requirement("audit.export")
@pytest.mark.parametrize("evil", ['=HYPERLINK("http://x")', "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\uff1d1", 'a"b,c\nd'])
def test_no_cell_of_the_csv_is_a_formula(evil: str) -> None:
    row = AuditRow(1, 0.0, "a.b", "ok", "key", None, None, evil, evil, "thing", evil, evil, None, {evil: {"after": evil}}, {})
    cells = next(csv.reader(io.StringIO(csv_line(row, {}).decode(), newline="")))
    assert len(cells) == len(COLUMNS)
    for cell in cells:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"))
    assert cells[COLUMNS.index("object_name")].removeprefix("'") == evil
    assert json.loads(cells[COLUMNS.index("changes")]) == {evil: {"after": evil}}


@pytest.mark.requirement("audit.activity")
async def test_activity_is_told_in_the_words_of_the_documents(served: Served) -> None:
    body = {"name": "Busy", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}, "enabled": False}
    assert (await served.call("POST", "/api/servers", body)).status_code == 201
    answer = await served.call("GET", "/api/organizations/activity?limit=1")
    found = ActivityList.model_validate(answer.json())
    assert [one.model_dump(exclude={"timestamp"}) for one in found.activities] == [
        {"user": "Operator", "action": "created_server", "resource": "Busy"}
    ]
    assert found.next_cursor


@pytest.mark.requirement("audit.refusals")
async def test_the_first_refusal_is_told_at_once_and_its_repetitions_together(served: Served) -> None:
    operator = await served.operator()
    key, trail = await served.key_of(operator, scopes=["read:servers"]), served.app.refusals
    wider = await served.key_of(operator, scopes=["write:keys", "read:servers"])
    for _ in range(50):
        await trail.written()
        last = await served.call("POST", "/api/auth/keys", {"name": "x"}, key=key)
        assert last.status_code == 403
    refused = await served.call("POST", "/api/auth/keys", {"name": "x", "scopes": ["admin"]}, key=wider)
    assert refused.status_code == 403
    await trail.written()
    rows = (await listed(served, "action=request.refused&limit=100")).audit_logs
    mine = [row for row in rows if row.object.name == "POST /api/auth/keys"]
    assert [row.note for row in mine] == [
        {"reason": "wider_than_maker", "required_scope": "admin"},
        {"required_scope": "write:keys"},
    ]
    served.clock.advance(WINDOW_S + 1)
    await trail.sweep()
    row = (await listed(served, "action=request.refused&limit=1")).audit_logs[0]
    assert row.note == {"required_scope": "write:keys", "count": 49} and row.request_id == last.headers["x-request-id"]
    assert trail.kinds == 0


@pytest.mark.requirement("audit.refusals")
async def test_more_kinds_of_refusals_than_there_is_room_for_are_not_kept(lite: Served) -> None:
    small = RefusalTrail(lite.database, max_kinds=2)
    key = await lite.key_of(await lite.operator(), scopes=["read:usage"])
    kept = lite.app.refusals.note
    lite.app.refusals.note = small.note  # type: ignore[method-assign]
    try:
        for path in ("/api/servers", "/api/auth/keys", "/api/projects", "/api/profiles"):
            assert (await lite.call("GET", path, key=key)).status_code == 403
    finally:
        lite.app.refusals.note = kept  # type: ignore[method-assign]
    assert small.kinds == 2
    small.start()
    await small.aclose()
    names = {row.object.name for row in (await listed(lite, "action=request.refused&limit=100")).audit_logs}
    assert {"GET /api/servers", "GET /api/auth/keys"} <= names and "GET /api/profiles" not in names
    assert small.kinds == 0
