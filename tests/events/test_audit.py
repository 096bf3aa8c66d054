"""The audit's chain: what is written, and that no damage to it goes unseen."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update

from plughub.db.audit import BEGUN, Actor, Chain, Deed, Hidden
from plughub.db.engine import Database
from plughub.db.tables import audit, audit_head
from plughub.events.audit_check import Anchor, Verdict, verify
from plughub.events.audit_log import AuditFilter, AuditRow, list_audit, list_in_order
from plughub.identity.service import Organization, create_organization, update_organization
from plughub.keys.schemas import KeyCreate, KeyUpdate
from plughub.keys.service import Peppers, create_key, update_key
from plughub.kit.crypto import Sealer
from plughub.servers.schemas import ServerCreate
from plughub.servers.service import create_server, update_server
from tests.conftest import CHAIN, FakeClock

pytestmark = pytest.mark.anyio
ROWS = 12


async def do(database: Database, organization: Organization, *actions: str, **given: Any) -> None:
    """Each in a commit of its own."""
    for action in actions:
        async with database.unit_of_work() as uow:
            uow.audit(Deed(action, "thing", "1", "a thing", organization_id=organization.id, **given))


async def verdicts(database: Database, chain: Chain = CHAIN, **anchors: Anchor) -> dict[str, Verdict]:
    return {verdict.organization_id: verdict async for verdict in verify(database, chain, anchors)}


async def rows_of(database: Database, organization: Organization, **wanted: Any) -> list[AuditRow]:
    async with database.read() as connection:
        return (await list_in_order(connection, organization.id, AuditFilter(**wanted), 0))[0]


@pytest.fixture
async def chained(database: Database, tenant: Organization) -> Organization:
    """An organisation with ROWS rows, the first of them its own creation."""
    await do(database, tenant, *(f"thing.{number}" for number in range(2, ROWS + 1)))
    assert (await verdicts(database))[tenant.id].rows == ROWS
    return tenant


def row(organization: Organization, seq: int) -> Any:
    return (audit.c.organization_id == organization.id) & (audit.c.seq == seq)


@pytest.mark.requirement("audit.same-commit", "audit.who-what-where")
async def test_what_is_done_is_told_with_who_and_from_where_and_what_changed(
    database: Database, tenant: Organization, sealer: Sealer, peppers: Peppers
) -> None:
    actor = Actor("key", "k" * 36, None, "192.0.2.7", "req_1")
    env = {"TOKEN": "hunter2", "MODE": "hunter3"}
    body = ServerCreate(name="S", type="STDIO", config={"command": "run", "args": ["a"], "env": env, "secret_args": ["hunter4"]})
    founder = tenant.founder()
    async with database.unit_of_work() as uow:
        await update_organization(uow, tenant.id, stdio_allowed=True)
    allowed = Organization(**{**{name: getattr(tenant, name) for name in Organization.__slots__}, "stdio_allowed": True})
    async with database.unit_of_work(actor) as uow:
        server = await create_server(uow, allowed.founder(), body, sealer)
        key, _ = await create_key(uow, founder, KeyCreate(name="K"), peppers)
    async with database.unit_of_work(actor) as uow:
        patch = {"name": "T", "config": {"env": {"TOKEN": "hunter5"}, "url": None}}
        await update_server(uow, allowed.founder(), server.id, patch, sealer)
        await update_key(uow, founder, key.id, KeyUpdate(scopes=["read:servers"], status="suspended"))
    rows = await rows_of(database, tenant)
    names = ["organization.created", "organization.updated", "server.created", "key.created", "server.updated", "key.suspended"]
    assert [found.action for found in rows] == names
    assert [found.seq for found in rows] == [1, 2, 3, 4, 5, 6]
    made, changed, suspended = rows[2], rows[4], rows[5]
    assert (made.actor_kind, made.key_id, made.address, made.request_id) == ("key", "k" * 36, "192.0.2.7", "req_1")
    assert (made.object_kind, made.object_id, made.object_name, made.environment) == ("server", server.id, "S", "live")
    assert (rows[1].actor_kind, rows[1].environment, rows[1].changes) == (
        "hub",
        None,
        {"stdio_allowed": {"before": False, "after": True}},
    )
    assert changed.changes == {"name": {"before": "S", "after": "T"}, "config.env.TOKEN": {"before": "***", "after": "***"}}
    assert suspended.changes["status"] == {"before": "active", "after": "suspended"}
    assert suspended.changes["scopes"]["after"] == ["read:servers"]
    async with database.read() as connection:
        stored = (await connection.execute(select(audit))).all()
    assert "hunter" not in repr(stored)


@pytest.mark.requirement("audit.same-commit")
async def test_what_is_rolled_back_was_never_audited_and_the_chain_goes_on(database: Database, chained: Organization) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.unit_of_work() as uow:
            uow.audit(Deed("thing.lost", "thing", organization_id=chained.id))
            raise ZeroDivisionError
    setup = {
        "sqlite": [
            "CREATE TABLE t (id INTEGER PRIMARY KEY)",
            "CREATE TABLE u (id INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)",
        ],
        "postgresql": [
            "CREATE TABLE t (id INTEGER PRIMARY KEY)",
            "CREATE TABLE u (id INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)",
        ],
    }[database.kind]
    async with database.unit_of_work() as uow:
        for statement in setup:
            await uow.execute(text(statement))
    try:
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            async with database.unit_of_work() as uow:
                uow.audit(Deed("thing.failed", "thing", organization_id=chained.id))
                await uow.execute(text("INSERT INTO u VALUES (1)"))
        await do(database, chained, "thing.next")
        found = await rows_of(database, chained)
        assert [(found[-1].seq, found[-1].action)] == [(ROWS + 1, "thing.next")]
        assert (await verdicts(database))[chained.id].broken_at is None
    finally:
        async with database.unit_of_work() as uow:
            await uow.execute(text("DROP TABLE u"))
            await uow.execute(text("DROP TABLE t"))


@pytest.mark.requirement("audit.order-is-commit-order")
async def test_writers_in_two_processes_leave_one_chain_without_gaps(
    database: Database, database_url: str, tenant: Organization, operator: Organization, clock: FakeClock
) -> None:
    other = Database(database_url, clock, CHAIN) if database.kind == "postgresql" else database
    both = [tenant, operator]

    async def work(where: Database, name: str) -> None:
        for number in range(15):
            async with where.unit_of_work() as uow:
                # In both orders: neither may wait for the other for ever.
                for organization in both[:: 1 if number % 2 else -1]:
                    uow.audit(Deed(f"{name}.{number}", "thing", organization_id=organization.id))

    await asyncio.gather(*(work(where, f"w{n}") for n, where in enumerate((database, other, database, other))))
    if other is not database:
        await other.aclose()
    for organization in both:
        found = await rows_of(database, organization)
        assert [one.seq for one in found] == list(range(1, 62))
        for n in range(4):
            mine = [one.action for one in found if one.action.startswith(f"w{n}.")]
            assert mine == [f"w{n}.{number}" for number in range(15)]
    assert all(verdict.broken_at is None for verdict in (await verdicts(database)).values())


async def test_the_head_of_a_chain_is_made_once_however_many_begin_it(database: Database, database_url: str, clock: FakeClock) -> None:
    other = Database(database_url, clock, CHAIN) if database.kind == "postgresql" else database

    async def begin(where: Database) -> None:
        async with where.unit_of_work() as uow:
            uow.audit(Deed("thing.done", "thing", organization_id="o" * 36))

    await asyncio.gather(*(begin(where) for where in (database, other, database, other)))
    if other is not database:
        await other.aclose()
    verdict = (await verdicts(database))["o" * 36]
    assert (verdict.rows, verdict.broken_at) == (5, None)
    async with database.read() as connection:
        found, _ = await list_in_order(connection, "o" * 36, AuditFilter(), 0)
    assert [one.action for one in found] == [BEGUN, *["thing.done"] * 4]


FORGED: Sequence[tuple[str, Any]] = [
    ("at", 1.0),
    ("action", "x"),
    ("outcome", "FORBIDDEN"),
    ("actor_kind", "user"),
    ("key_id", "k"),
    ("user_id", "u"),
    ("address", "192.0.2.1"),
    ("request_id", "req"),
    ("object_kind", "x"),
    ("object_id", None),
    ("object_name", "another"),
    ("environment", "test"),
    ("changes", '{"a":{}}'),
    ("note", '{"a":1}'),
    ("mac", b"m" * 32),
]


@pytest.mark.requirement("audit.tamper-evident")
async def test_every_edit_of_every_column_is_found_where_it_is(database: Database, chained: Organization) -> None:
    assert {name for name, _ in FORGED} == {column.name for column in audit.c} - {"organization_id", "seq", "key_version"}
    for at, (name, value) in enumerate(FORGED):
        seq = 2 + at % (ROWS - 1)
        async with database.unit_of_work() as uow:
            held = (await uow.execute(select(audit.c[name]).where(row(chained, seq)))).scalar()
            await uow.execute(update(audit).where(row(chained, seq)).values({name: value}))
        verdict = (await verdicts(database))[chained.id]
        assert (name, verdict.broken_at, verdict.rows) == (name, seq, seq - 1)
        async with database.unit_of_work() as uow:
            await uow.execute(update(audit).where(row(chained, seq)).values({name: held}))
    assert (await verdicts(database))[chained.id].broken_at is None


@pytest.mark.requirement("audit.tamper-evident")
@pytest.mark.parametrize("seq", [1, 5, ROWS])
async def test_a_removed_row_is_missed(database: Database, chained: Organization, seq: int) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(row(chained, seq)))
    verdict = (await verdicts(database))[chained.id]
    assert verdict.broken_at == seq and "missing" in (verdict.reason or "")


@pytest.mark.requirement("audit.tamper-evident")
async def test_removed_rows_closed_up_and_exchanged_rows_are_found(database: Database, chained: Organization) -> None:
    async def move(moves: Sequence[tuple[int, int]]) -> None:
        async with database.unit_of_work() as uow:
            for source, goal in moves:
                await uow.execute(update(audit).where(row(chained, source)).values(seq=goal))

    await move([(4, 99), (5, 4), (99, 5)])
    assert (await verdicts(database))[chained.id].broken_at == 4
    await move([(4, 99), (5, 4), (99, 5)])
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(row(chained, 6)))
    await move([(seq, seq - 1) for seq in range(7, ROWS + 1)])
    assert (await verdicts(database))[chained.id].broken_at == 6


@pytest.mark.requirement("audit.tamper-evident")
async def test_a_cut_off_tail_is_missed_even_when_more_is_done_afterwards(database: Database, chained: Organization) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(audit.c.organization_id == chained.id, audit.c.seq > 8))
    assert (await verdicts(database))[chained.id].broken_at == 9
    await do(database, chained, "thing.after")
    assert (await verdicts(database))[chained.id].broken_at == 9


@pytest.mark.requirement("audit.tamper-evident")
async def test_a_head_that_is_moved_back_removed_or_emptied_is_found(database: Database, chained: Organization) -> None:
    of_it = audit_head.c.organization_id == chained.id
    async with database.read() as connection:
        head = (await connection.execute(select(audit_head).where(of_it))).one()._asdict()
        eighth = (await connection.execute(select(audit.c.mac).where(row(chained, 8)))).scalar_one()
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(audit.c.organization_id == chained.id, audit.c.seq > 8))
        await uow.execute(update(audit_head).where(of_it).values(seq=8, mac=eighth))
    assert "head was changed" in ((await verdicts(database))[chained.id].reason or "")
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit_head).where(of_it))
    assert "head is missing" in ((await verdicts(database))[chained.id].reason or "")
    await do(database, chained, "thing.after")  # begins anew, and says so
    assert (await verdicts(database))[chained.id].broken_at == 9
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(audit.c.organization_id == chained.id))
        await uow.execute(delete(audit_head).where(of_it))
    assert "head is missing" in ((await verdicts(database))[chained.id].reason or "")
    async with database.unit_of_work() as uow:
        await uow.execute(insert(audit_head).values(**{**head, "seq": 0, "mac": b"", "seal": b""}))
    await do(database, chained, "thing.after")
    verdict = (await verdicts(database))[chained.id]
    assert verdict.broken_at == 1 and "begun anew" in (verdict.reason or "")


@pytest.mark.requirement("audit.tamper-evident")
async def test_rows_that_others_add_or_bring_from_another_organisation_are_found(
    database: Database, chained: Organization, operator: Organization
) -> None:
    async with database.unit_of_work() as uow:
        fifth = (await uow.execute(select(audit).where(row(chained, 5)))).one()._asdict()
        await uow.execute(insert(audit).values(**{**fifth, "seq": ROWS + 1}))
    assert (await verdicts(database))[chained.id].broken_at == ROWS + 1
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(row(chained, ROWS + 1)))
        await uow.execute(
            update(audit).where(row(operator, 1)).values(**{k: v for k, v in fifth.items() if k not in ("organization_id", "seq")})
        )
    found = await verdicts(database)
    assert (found[chained.id].broken_at, found[operator.id].broken_at) == (None, 1)


@pytest.mark.requirement("audit.tamper-evident")
async def test_a_whole_older_state_put_back_is_found_by_its_anchor_alone(database: Database, chained: Organization) -> None:
    of_it = audit_head.c.organization_id == chained.id
    async with database.read() as connection:
        older = (await connection.execute(select(audit_head).where(of_it))).one()._asdict()
    await do(database, chained, "thing.hidden", "thing.hidden")
    seen = (await verdicts(database))[chained.id].head
    assert seen is not None
    anchor = Anchor(chained.id, *seen)
    assert (await verdicts(database, **{chained.id: anchor}))[chained.id].broken_at is None
    async with database.unit_of_work() as uow:
        await uow.execute(delete(audit).where(audit.c.organization_id == chained.id, audit.c.seq > ROWS))
        await uow.execute(update(audit_head).where(of_it).values(**older))
    assert (await verdicts(database))[chained.id].broken_at is None
    assert (await verdicts(database, **{chained.id: anchor}))[chained.id].broken_at == ROWS + 1
    await do(database, chained, "thing.other", "thing.other")
    assert (await verdicts(database, **{chained.id: anchor}))[chained.id].broken_at == ROWS + 2


@pytest.mark.requirement("audit.key-ring")
async def test_rows_of_an_older_secret_fit_while_the_ring_holds_it(database: Database, database_url: str, chained: Organization) -> None:
    newer = Chain({1: b"c" * 32, 2: b"d" * 32})
    rotated = Database(database_url, database.clock, newer)
    await do(rotated, chained, "thing.newer")
    assert (await verdicts(database, newer))[chained.id].broken_at is None
    only = (await verdicts(database, Chain({2: b"d" * 32})))[chained.id]
    assert only.broken_at == 1 and "secret 1" in (only.reason or "")
    assert (await verdicts(database, Chain({1: b"x" * 32, 2: b"d" * 32})))[chained.id].broken_at == 1
    await do(database, chained, "thing.older")  # a process that was not told
    assert (await verdicts(database, newer))[chained.id].broken_at == ROWS + 2
    await rotated.aclose()


@pytest.mark.requirement("audit.filters")
async def test_filters_and_pages_find_the_rows_newest_first(database: Database, tenant: Organization, clock: FakeClock) -> None:
    for number in range(10):
        clock.advance(100)
        kind = Actor("key", "a" * 36) if number % 2 else Actor("user", None, "u" * 36)
        outcome = "FORBIDDEN" if number == 4 else "ok"
        await do(database, tenant, f"{'key' if number < 5 else 'server'}.deleted", actor=kind, outcome=outcome)
    start = clock.now - 1000

    async def seqs(limit: int = 100, examined: int = 1000, **wanted: Any) -> list[int]:
        found: list[int] = []
        after: int | None = None
        async with database.read() as connection:
            while True:
                page = await list_audit(connection, tenant.id, AuditFilter(**wanted), after, limit, examined)
                found += [one.seq for one in page.rows]
                if page.next is None:
                    return found
                after = page.next

    assert await seqs() == await seqs(limit=3) == await seqs(limit=2, examined=3) == list(range(11, 0, -1))
    assert await seqs(actor="a" * 36) == await seqs(actor="a" * 36, limit=1, examined=2) == [11, 9, 7, 5, 3]
    assert await seqs(actor="u" * 36, action="key.delete") == [6, 4, 2]
    assert await seqs(action="server.*") == [11, 10, 9, 8, 7]
    assert await seqs(action="server.deleted", object="1") == await seqs(action="server.delete", object="thing") == [11, 10, 9, 8, 7]
    assert await seqs(outcome="refused") == await seqs(outcome="FORBIDDEN") == [6]
    assert await seqs(actor="hub") == [1]
    assert await seqs(since=start + 250, until=start + 500) == await seqs(since=start + 250, until=start + 500, examined=2) == [5, 4]
    assert await seqs(action="key_deleted") == []


async def test_what_is_told_is_bounded_and_any_text_can_be_kept(database: Database, tenant: Organization) -> None:
    big = {f"field{number}": "x" * 10_000 for number in range(300)}
    odd = {"nul": "a\0b", "half": "\ud800", "list": list(range(1000)), "deep": {"a": {"b": Hidden("s")}}}
    await do(database, tenant, "thing.big", before=big)
    await do(database, tenant, "thing.odd", after=odd, note={"n\0": "\udfff"})
    async with database.unit_of_work() as uow:
        uow.audit(Deed("thing.named", "thing", "1", "n\0ul \ud800", organization_id=tenant.id))
    rows = await rows_of(database, tenant)
    assert len(repr(rows[1].changes)) < 20_000
    assert rows[2].changes["deep"]["after"] == {"a": {"b": "***"}} and len(rows[2].changes["list"]["after"]) == 51
    assert rows[3].object_name == "n\N{REPLACEMENT CHARACTER}ul ?"
    assert (await verdicts(database))[tenant.id].broken_at is None


async def test_an_organisation_from_before_the_audit_begins_its_chain_with_the_next_deed(
    database: Database, tenant: Organization, clock: FakeClock
) -> None:
    async with database.unit_of_work() as uow:  # as an older version left them
        await uow.execute(delete(audit))
        await uow.execute(delete(audit_head))
    assert {verdict.broken_at for verdict in (await verdicts(database)).values()} == {None}
    clock.advance(5)
    await do(database, tenant, "thing.done")
    assert [found.action for found in await rows_of(database, tenant)] == [BEGUN, "thing.done"]
    assert {verdict.broken_at for verdict in (await verdicts(database)).values()} == {None}
    clock.advance(5)
    async with database.unit_of_work() as uow:
        newer = await create_organization(uow, "Newer")
    assert [found.action for found in await rows_of(database, newer)] == ["organization.created"]
