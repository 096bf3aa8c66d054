"""The audit: who did what, as one chain of rows per organisation, written in the commit of the change itself.

Each row carries an HMAC of its own content and of the HMAC before it, and each organisation one head with the last of them, under a
key that the database does not hold. A row that is changed, removed, moved or added by any other hand no longer fits
(`events.audit_check`). A head is locked until the commit, so the order of rows is the order of commits, on both databases.
"""

import hashlib
import hmac
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.db.tables import audit, audit_head, space

OK: Final = "ok"
# The first row of an organisation that was made by a version without an audit. Of any other organisation it says that its head was lost.
BEGUN: Final = "audit.begun"
ORGANIZATION_CREATED: Final = "organization.created"
MASK = "***"
ActorKind = Literal["key", "user", "token", "anonymous", "hub"]

_PURPOSE = b"plughub audit chain 1"
# In this order they are signed: a column that is added later needs a new purpose.
_SIGNED = tuple(column.name for column in audit.c if column.name != "mac")
_MAX_TEXT = 500
_MAX_ITEMS = 50
_MAX_FIELDS = 100
_MAX_CHANGES = 16_384
_LEFT_OUT: Final = {"left_out": True}
_make_head = text(
    "INSERT INTO audit_head (organization_id, seq, mac, key_version, seal) VALUES (:organization_id, :seq, :mac, :key_version, :seal) "
    "ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and from where: `anonymous` is a request without a caller."""

    kind: ActorKind = "hub"
    key_id: str | None = None
    user_id: str | None = None
    address: str | None = None
    request_id: str | None = None


THE_HUB = Actor()


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value that is compared, and shown as `shown` only."""

    value: Any = field(repr=False)
    shown: str = MASK


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing done, or refused with an error code as its `outcome`, to the object `kind`, `id`, `name`.

    It belongs to an organisation, by one of its spaces, or by its id and perhaps an environment.
    `before` and `after` are the object's fields; the row keeps those
    that differ. What is secret in them is `Hidden`. `note` is whatever else is worth telling; `actor` is the unit of work's unless given.
    """

    action: str
    kind: str
    id: str | None = None
    name: str | None = None
    space_id: str | None = None
    organization_id: str | None = None
    environment: str | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = OK
    note: Mapping[str, Any] = field(default_factory=dict)
    actor: Actor | None = None


class Chain:
    """Signs rows and heads. `ring`: the hub's secrets by version; new rows are signed with the newest."""

    def __init__(self, ring: Mapping[int, bytes]) -> None:
        self._keys = {version: hmac.digest(secret, _PURPOSE, hashlib.sha256) for version, secret in ring.items()}
        self.current = max(ring)

    def knows(self, version: int) -> bool:
        """Whether what was signed with this version can be checked."""
        return version in self._keys

    def mac(self, row: Mapping[str, Any], before: bytes) -> bytes:
        """Of a row after the row whose mac is `before` (empty for the first)."""
        parts = [_framed(before), *(_framed(row[name]) for name in _SIGNED)]
        return hmac.digest(self._keys[row["key_version"]], b"".join(parts), hashlib.sha256)

    def seal(self, organization_id: str, seq: int, mac: bytes, version: int) -> bytes:
        """Of a head: the chain of this organisation ends with row `seq`."""
        return hmac.digest(self._keys[version], b"head" + b"".join(_framed(part) for part in (organization_id, seq, mac)), hashlib.sha256)


async def append(connection: AsyncConnection, chain: Chain | None, deeds: Sequence[Deed], actor: Actor, at: float) -> None:
    """Write the rows; the last statements before the commit. Raises LookupError for a space that is missing, or without a chain."""
    if chain is None:
        raise LookupError("this database was opened without the secret of its audit")
    spaces = await _spaces(connection, deeds)
    of_organizations: dict[str, list[dict[str, Any]]] = {}
    for deed in deeds:
        organization_id, environment = spaces[deed.space_id] if deed.space_id is not None else (deed.organization_id, deed.environment)
        if organization_id is None:
            raise LookupError(f"{deed.action} belongs to no organisation")
        row = {**_row(deed, deed.actor or actor), "organization_id": organization_id, "environment": environment}
        of_organizations.setdefault(organization_id, []).append({**row, "at": float(at), "key_version": chain.current})
    # Always in the same order, and after spaces and hub: see `UnitOfWork.number`.
    for organization_id in sorted(of_organizations):
        await _extend(connection, chain, organization_id, of_organizations[organization_id])


async def _extend(connection: AsyncConnection, chain: Chain, organization_id: str, rows: list[dict[str, Any]]) -> None:
    head = await _locked_head(connection, organization_id) or await _new_head(connection, chain, organization_id)
    if not head["mac"] and not (head["seq"] == 0 and rows[0]["action"] == ORGANIZATION_CREATED):
        begun = _row(Deed(BEGUN, "organization", organization_id, organization_id=organization_id), THE_HUB)
        rows.insert(0, {**rows[0], **begun, "environment": None})
    seq, mac = head["seq"], bytes(head["mac"])
    for row in rows:
        seq += 1
        row["seq"] = seq
        mac = row["mac"] = chain.mac(row, mac)
    await connection.execute(insert(audit), rows)
    seal = chain.seal(organization_id, seq, mac, chain.current)
    moved = update(audit_head).where(audit_head.c.organization_id == organization_id)
    await connection.execute(moved.values(seq=seq, mac=mac, key_version=chain.current, seal=seal))


async def _new_head(connection: AsyncConnection, chain: Chain, organization_id: str) -> Mapping[str, Any]:
    """A head of nothing; rows that are there without one stay where they are, and what follows them does not fit."""
    last = (await connection.execute(select(func.max(audit.c.seq)).where(audit.c.organization_id == organization_id))).scalar() or 0
    made = {"organization_id": organization_id, "seq": last, "mac": b"", "key_version": chain.current, "seal": b""}
    await connection.execute(_make_head, made)
    # Another process may have made it meanwhile.
    return await _locked_head(connection, organization_id) or made


async def _locked_head(connection: AsyncConnection, organization_id: str) -> dict[str, Any] | None:
    query = select(audit_head).where(audit_head.c.organization_id == organization_id).with_for_update()
    found = (await connection.execute(query)).first()
    return None if found is None else found._asdict()


async def _spaces(connection: AsyncConnection, deeds: Sequence[Deed]) -> dict[str, tuple[str, str]]:
    ids = {deed.space_id for deed in deeds if deed.space_id is not None}
    if not ids:
        return {}
    query = select(space.c.id, space.c.organization_id, space.c.environment).where(space.c.id.in_(ids))
    found = {row.id: (row.organization_id, row.environment) for row in await connection.execute(query)}
    if missing := ids - found.keys():
        raise LookupError(f"no space {min(missing)}")
    return found


def _row(deed: Deed, actor: Actor) -> dict[str, Any]:
    return {
        "action": deed.action,
        "outcome": deed.outcome,
        "actor_kind": actor.kind,
        "key_id": actor.key_id or None,
        "user_id": actor.user_id,
        "address": actor.address,
        "request_id": actor.request_id,
        "object_kind": deed.kind,
        "object_id": deed.id,
        "object_name": None if deed.name is None else _storable(deed.name),
        "changes": _dumped(differences(deed.before, deed.after)),
        "note": _dumped({name: shown(value) for name, value in deed.note.items()}),
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`{field: {before?, after?}}` of the fields that differ, or are on one side alone; bounded, and without what is hidden."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys((*before, *after)):
        if name in before and name in after and before[name] == after[name]:
            continue
        if len(found) == _MAX_FIELDS:
            break
        sides = {"before": before, "after": after}
        found[name[:_MAX_TEXT]] = {side: shown(fields[name]) for side, fields in sides.items() if name in fields}
    return found


def shown(value: Any) -> Any:
    """A value as the audit keeps it: hidden or cut where need be."""
    if isinstance(value, Hidden):
        return value.shown[:_MAX_TEXT]
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[: _MAX_TEXT - 1] + "…"
    if isinstance(value, Mapping):
        return {str(name)[:_MAX_TEXT]: shown(inner) for name, inner in list(value.items())[:_MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else list(value)
        return [shown(item) for item in items[:_MAX_ITEMS]] + ([f"… {len(items)} in all"] if len(items) > _MAX_ITEMS else [])
    return value


def _dumped(value: Mapping[str, Any]) -> str:
    # ASCII alone: no database stumbles over a NUL or half a character in it.
    found = json.dumps(value, separators=(",", ":"))
    return found if len(found) <= _MAX_CHANGES else json.dumps(dict.fromkeys(value, _LEFT_OUT), separators=(",", ":"))


def _storable(name: str) -> str:
    return name[:_MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _framed(value: str | int | float | bytes | None) -> bytes:
    """A value so that no two rows are the same bytes: its kind, its length, itself."""
    if value is None:
        return b"-"
    if isinstance(value, float):
        return b"f" + struct.pack(">d", value)
    if isinstance(value, int):
        return b"i" + value.to_bytes(8, "big", signed=True)
    kind, data = (b"s", value.encode()) if isinstance(value, str) else (b"b", value)
    return kind + len(data).to_bytes(4, "big") + data
