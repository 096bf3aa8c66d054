"""`plughub audit`: checks and exports the audit on the database itself, whether the hub runs or not. Nothing is written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from plughub.api.audit import exported
from plughub.data_dir import load_secrets
from plughub.db.audit import Chain
from plughub.db.engine import Database, database_url
from plughub.db.migrate import HEAD, revision
from plughub.events.audit_check import Anchor, Verdict, verify
from plughub.events.audit_log import AuditFilter
from plughub.kit.clock import SystemClock
from plughub.kit.ids import parse_public_id
from plughub.serve import CannotServe, database_name, database_reason
from plughub.settings import Settings

T = TypeVar("T")


def verify_audit(settings: Settings, anchors: Sequence[str]) -> list[Verdict]:
    """A verdict for every organisation. `anchors`: `ORGANIZATION:SEQ:MAC`, as an earlier check told them.

    Raises CannotServe, OSError, ValueError.
    """
    given = {anchor.organization_id: anchor for anchor in map(_anchor, anchors)}
    chain = _chain(settings)

    async def check(database: Database) -> list[Verdict]:
        return [verdict async for verdict in verify(database, chain, given)]

    return _with_database(settings, check)


def export_audit(settings: Settings, organization: str, form: str, write: Callable[[bytes], object]) -> None:
    """Every row of one organisation, oldest first, as jsonl or csv. Raises CannotServe, OSError, ValueError."""
    organization_id = _organization(organization)

    async def export(database: Database) -> None:
        async for part in exported(database, organization_id, AuditFilter(), form):
            write(part)

    _with_database(settings, export)


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _opened(settings) as database:
            return await work(database)

    name = database_name(settings)
    try:
        return asyncio.run(run())
    except SQLAlchemyError as error:
        raise CannotServe(f"The database {name} cannot be used: {database_reason(error, settings)}") from error


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    database = Database(database_url(settings), SystemClock())
    try:
        if database.kind == "sqlite" and not database.path.exists():
            raise CannotServe(f"There is no database at {database.path}")
        found = await revision(database)
        if found != HEAD:
            raise CannotServe(f"The database has schema {found or 'none'}, this version works on {HEAD}: see `plughub migrate`")
        yield database
    finally:
        await database.aclose()


def _chain(settings: Settings) -> Chain:
    path = settings.secrets_file or settings.data_dir / "secrets.json"
    if not path.exists():  # which would make it
        raise CannotServe(f"There is no secrets file {path}: without it nothing can be checked")
    return Chain(load_secrets(path).peppers.ring)


def _organization(text: str) -> str:
    found = parse_public_id("org", text)
    if found is None:
        raise CannotServe(f"'{text}' is no id of an organisation: `plughub audit verify` lists them")
    return found


def _anchor(text: str) -> Anchor:
    organization, _, rest = text.partition(":")
    seq, _, mac = rest.partition(":")
    if not (seq.isascii() and seq.isdigit() and mac):
        raise CannotServe(f"'{text}' is no anchor: ORGANIZATION:ROW:MAC, as `plughub audit verify` prints it")
    return Anchor(_organization(organization), int(seq), mac)
