"""Jobs in the database: leased, repeated until they are done, dead after too many failures.

A job is added in the transaction of the change that asks for it. Whoever claims it holds a lease; when the holder dies the lease
runs out and another takes it, so a job may run twice, never not at all.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from plughub.db.tables import job
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.ids import new_id

READY = "ready"
LEASED = "leased"
DEAD = "dead"
_MAX_ERROR = 1000
# As text: this form is the same on both databases, the library's constructs are not.
_ADD = text(
    "INSERT INTO job (id, kind, run_at, attempts, dedupe, payload, state)"
    " VALUES (:id, :kind, :run_at, :attempts, :dedupe, :payload, :state)"
    " ON CONFLICT (dedupe) DO NOTHING RETURNING id"
)


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed job. `attempts` counts this one."""

    id: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int
    lease_until: float
    lease_owner: str


async def add_job(
    uow: UnitOfWork, kind: str, payload: Mapping[str, Any] | None = None, *, run_at: float | None = None, dedupe: str | None = None
) -> bool:
    """Have a job run at `run_at` (now). False when one with the same `dedupe` is there already, in any state."""
    values = {
        "id": new_id(),
        "kind": kind,
        "run_at": uow.clock.time() if run_at is None else run_at,
        "attempts": 0,
        "dedupe": dedupe,
        "payload": json.dumps(payload or {}),
        "state": READY,
    }
    return (await uow.execute(_ADD, values)).first() is not None


async def has_due_job(connection: AsyncConnection, now: float, kinds: Collection[str]) -> bool:
    """Whether a claim would find anything: asked first, because a claim takes the write lock."""
    return (await connection.execute(select(job.c.id).where(_due(now, kinds)).limit(1))).first() is not None


async def claim_jobs(uow: UnitOfWork, owner: str, kinds: Collection[str], *, lease_s: float, limit: int) -> list[Job]:
    """Lease at most `limit` due jobs of these kinds, the longest due first."""
    now = uow.clock.time()
    # SKIP LOCKED: claimers pass each other instead of queueing; on SQLite the transaction is alone.
    due = select(job.c.id).where(_due(now, kinds)).order_by(job.c.run_at, job.c.id).limit(limit).with_for_update(skip_locked=True)
    claim = (
        update(job)
        .where(job.c.id.in_(due.scalar_subquery()))
        .values(state=LEASED, lease_owner=owner, lease_until=now + lease_s, attempts=job.c.attempts + 1)
        .returning(job.c.id, job.c.kind, job.c.payload, job.c.attempts, job.c.lease_until, job.c.lease_owner, job.c.run_at)
    )
    rows = sorted((await uow.execute(claim)).all(), key=lambda row: (row.run_at, row.id))
    return [Job(row.id, row.kind, json.loads(row.payload), row.attempts, row.lease_until, row.lease_owner) for row in rows]


async def extend_lease(uow: UnitOfWork, held: Job, lease_s: float) -> bool:
    """Hold a long job longer. False when the lease was lost: somebody else may be running it."""
    return await _change(uow, held, {"lease_until": uow.clock.time() + lease_s})


async def finish_job(uow: UnitOfWork, held: Job, *, again_at: float | None = None) -> bool:
    """The job is done: it goes, or comes back at `again_at` with a clean record. False when the lease was lost."""
    if again_at is not None:
        return await _change(uow, held, {**_free(READY), "run_at": again_at, "attempts": 0, "last_error": None})
    return (await uow.execute(delete(job).where(_held(held)))).rowcount > 0


async def retry_job(uow: UnitOfWork, held: Job, error: str, *, run_at: float | None) -> bool:
    """The job failed: it comes back at `run_at`, or stays as dead when that is None. False when the lease was lost."""
    values: dict[str, Any] = {**_free(DEAD if run_at is None else READY), "last_error": error[:_MAX_ERROR]}
    if run_at is not None:
        values["run_at"] = run_at
    return await _change(uow, held, values)


async def _change(uow: UnitOfWork, held: Job, values: Mapping[str, Any]) -> bool:
    return (await uow.execute(update(job).where(_held(held)).values(**values))).rowcount > 0


def _free(state: str) -> dict[str, Any]:
    return {"state": state, "lease_owner": None, "lease_until": None}


def _held(held: Job) -> ColumnElement[bool]:
    # Attempts too: the same owner may have lost the lease and claimed the job anew.
    return and_(job.c.id == held.id, job.c.state == LEASED, job.c.lease_owner == held.lease_owner, job.c.attempts == held.attempts)


def _due(now: float, kinds: Collection[str]) -> ColumnElement[bool]:
    ready = and_(job.c.state == READY, job.c.run_at <= now)
    abandoned = and_(job.c.state == LEASED, job.c.lease_until <= now)
    return and_(job.c.kind.in_(kinds), or_(ready, abandoned))
