"""Whether the audit is as it was written: every row signed after the one before, none missing, up to the signed head."""

import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.audit import BEGUN, Chain
from plughub.db.engine import Database
from plughub.db.tables import audit, audit_head, organization

_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one organisation's audit. `rows` fit; `broken_at` is the first row that does not (None: all do), `reason` says why.

    `head` is the number and mac of the last row, to be kept elsewhere and given as an `Anchor` later.
    """

    organization_id: str
    name: str | None
    rows: int
    broken_at: int | None = None
    reason: str | None = None
    head: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """A row as it was seen earlier: who can write the database can also put an older copy of it back, and only this shows it."""

    organization_id: str
    seq: int
    mac: str


class _Broken(Exception):
    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.seq = seq


async def verify(database: Database, chain: Chain, anchors: Mapping[str, Anchor] | None = None) -> AsyncIterator[Verdict]:
    """A verdict for every organisation that has or should have an audit, while the hub may be running."""
    async with database.read() as connection:
        ids = union(select(audit_head.c.organization_id), select(audit.c.organization_id), select(organization.c.id))
        known = (await connection.execute(ids.order_by("organization_id"))).scalars().all()
        first_at = (await connection.execute(select(func.min(audit.c.at)))).scalar()
        for organization_id in [*known, *sorted(set(anchors or ()) - set(known))]:
            yield await _verdict(connection, chain, organization_id, first_at, (anchors or {}).get(organization_id))


async def _verdict(
    connection: AsyncConnection, chain: Chain, organization_id: str, first_at: float | None, anchor: Anchor | None
) -> Verdict:
    about = (await connection.execute(select(organization).where(organization.c.id == organization_id))).mappings().first()
    name = about["name"] if about is not None else None
    # An organisation that was made before anything was audited begins its audit late, if at all.
    older = about is None or first_at is None or about["created_at"] < first_at
    walk = _Walk(connection, chain, organization_id, anchor)
    try:
        head = await walk.head(older=older)
        await walk.rows(head[0], older=older)
        if head[0] and (head[0], walk.mac.hex()) != head:
            raise _Broken(head[0], "the last row is not the one that the head names")
        if anchor is not None and walk.seq < anchor.seq:
            raise _Broken(walk.seq + 1, f"rows up to {anchor.seq} were there when the anchor was taken")
    except _Broken as broken:
        return Verdict(organization_id, name, walk.seq, broken.seq, str(broken))
    return Verdict(organization_id, name, walk.seq, head=head if head[0] else None)


class _Walk:
    """Through one chain: `seq` and `mac` of the last row that fits."""

    def __init__(self, connection: AsyncConnection, chain: Chain, organization_id: str, anchor: Anchor | None) -> None:
        self._connection = connection
        self._chain = chain
        self._id = organization_id
        self._anchor = anchor
        self._version = 0
        self.seq = 0
        self.mac = b""

    async def head(self, *, older: bool) -> tuple[int, str]:
        """The number and mac of the last row that there must be. Raises _Broken."""
        # In this order: what is added meanwhile is in the head, not missing from it.
        last = (await self._connection.execute(select(func.max(audit.c.seq)).where(audit.c.organization_id == self._id))).scalar() or 0
        query = select(audit_head).where(audit_head.c.organization_id == self._id)
        head = (await self._connection.execute(query)).mappings().first()
        if head is None:
            if last or not older:
                raise _Broken(last + 1, "the head is missing: rows may have been cut off")
            return 0, ""
        seq, mac, version = head["seq"], bytes(head["mac"]), head["key_version"]
        if not self._chain.knows(version):
            raise _Broken(seq, f"the head is signed with secret {version}, which the secrets file does not hold")
        if not hmac.compare_digest(bytes(head["seal"]), self._chain.seal(self._id, seq, mac, version)):
            raise _Broken(seq, "the head was changed")
        if last > seq:
            raise _Broken(seq + 1, "the row is not in the head: it was added, or the head was put back")
        return seq, mac.hex()

    async def rows(self, end: int, *, older: bool) -> None:
        """Look at every row up to `end`. Raises _Broken for the first that does not fit."""
        while self.seq < end:
            query = select(audit).where(audit.c.organization_id == self._id, audit.c.seq > self.seq, audit.c.seq <= end)
            found = (await self._connection.execute(query.order_by(audit.c.seq).limit(_PAGE))).all()
            for row in found:
                self._look_at(row._asdict(), older=older)
            if not found:
                raise _Broken(self.seq + 1, f"missing from the end: the head names {end} rows")

    def _look_at(self, row: Mapping[str, Any], *, older: bool) -> None:
        seq, version = row["seq"], row["key_version"]
        if seq != self.seq + 1:
            raise _Broken(self.seq + 1, "missing")
        if not self._chain.knows(version):
            raise _Broken(seq, f"signed with secret {version}, which the secrets file does not hold")
        if version < self._version:
            raise _Broken(seq, "signed with an older secret than the row before")
        mac = self._chain.mac(row, self.mac)
        if not hmac.compare_digest(bytes(row["mac"]), mac):
            raise _Broken(seq, "changed, moved, or put in the place of another")
        if row["action"] == BEGUN and not (seq == 1 and older):
            raise _Broken(seq, "the audit was begun anew here: what was before it is lost")
        if self._anchor is not None and self._anchor.seq == seq and self._anchor.mac != mac.hex():
            raise _Broken(seq, "not the row that was here when the anchor was taken")
        self.seq, self.mac, self._version = seq, mac, version
