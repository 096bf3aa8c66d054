"""Answers to requests with an Idempotency-Key, as rows: claimed before the request has an effect, and kept for a day.

Whoever claims a key and shares the transaction with the effect leaves both or neither. Whoever must commit the claim first, because the
effect is elsewhere, leaves a claim without a status when it is cut off: the effect may be there, and nobody runs it again.
"""

from dataclasses import dataclass

from sqlalchemy import delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from plughub.db.answer_tables import kept_answer
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.ids import new_id

KEPT_S = 86_400.0
# Of one caller: then the oldest make room.
MOST = 10_000
_AT_ONCE = 100
# A row that is over is as good as none.
_CLAIM = text(
    "INSERT INTO kept_answer (id, owner, digest, fingerprint, request_id, node_id, created_at)"
    " VALUES (:id, :owner, :digest, :fingerprint, :request_id, :node_id, :now)"
    " ON CONFLICT (owner, digest) DO UPDATE SET id = excluded.id, fingerprint = excluded.fingerprint, request_id = excluded.request_id,"
    " node_id = excluded.node_id, created_at = excluded.created_at, status = NULL, answer = NULL WHERE kept_answer.created_at <= :over"
    " RETURNING id"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One use of a key: `owner` names the caller, `digest` is of the key, `fingerprint` of the request that it came with."""

    owner: str
    digest: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a key. `status` None: no answer is known (yet); `answer` is sealed, None when it was too large."""

    fingerprint: bytes
    request_id: str
    node_id: str
    status: int | None
    answer: bytes | None


async def find_kept(connection: AsyncConnection, claim: Claim, now: float) -> Kept | None:
    """What the caller's key led to within the last day."""
    columns = (getattr(kept_answer.c, name) for name in Kept.__slots__)
    row = (await connection.execute(select(*columns).where(*_same(claim), kept_answer.c.created_at > now - KEPT_S))).first()
    return None if row is None else Kept(**row._mapping)


async def claim_key(uow: UnitOfWork, claim: Claim, request_id: str, node_id: str, *, most: int = MOST) -> bool:
    """Take the key for this request; False when another has it. Waits for whoever is about to commit the same."""
    now = uow.clock.time()
    values = {"id": new_id(), "request_id": request_id, "node_id": node_id, "now": now, "over": now - KEPT_S}
    mine = {name: getattr(claim, name) for name in Claim.__slots__}
    if (await uow.execute(_CLAIM, {**values, **mine})).first() is None:
        return False
    oldest = (
        select(kept_answer.c.id)
        .where(kept_answer.c.owner == claim.owner)
        .order_by(kept_answer.c.created_at.desc())
        .limit(_AT_ONCE)
        .offset(most)
    )
    await uow.execute(delete(kept_answer).where(kept_answer.c.id.in_(oldest.scalar_subquery())))
    return True


async def keep_answer(uow: UnitOfWork, claim: Claim, status: int, answer: bytes | None) -> None:
    """The request is done, and this is what it was answered."""
    await uow.execute(update(kept_answer).where(*_same(claim)).values(status=status, answer=answer))


async def release_key(uow: UnitOfWork, claim: Claim) -> None:
    """Nothing was done: the key is as if it had never been sent."""
    await uow.execute(delete(kept_answer).where(*_same(claim)))


async def prune_answers(uow: UnitOfWork) -> None:
    """Remove what is older than a day."""
    await uow.execute(delete(kept_answer).where(kept_answer.c.created_at <= uow.clock.time() - KEPT_S))


def _same(claim: Claim) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return kept_answer.c.owner == claim.owner, kept_answer.c.digest == claim.digest
