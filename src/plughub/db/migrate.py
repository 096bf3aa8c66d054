"""Bring the schema to the newest revision, from empty or from any older one."""

import importlib
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from plughub.db.engine import Database

# The newest file of `migrations/versions`; a test compares. Known here so that a start on a current schema loads no Alembic.
HEAD = "0015"
_LOCK = 7_405_120_051


class SchemaUnknown(Exception):
    """The database has a revision that this version does not know: it was made by a newer one."""


async def migrate(database: Database) -> None:
    """Create or upgrade every table, in one transaction. Raises SchemaUnknown."""
    if await revision(database) == HEAD:
        return
    async with database.unit_of_work() as uow:
        if uow.dialect == "postgresql":
            # Several processes may start at once on an empty database.
            await uow.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK})
        await uow.connection.run_sync(_upgrade)


async def revision(database: Database) -> str | None:
    """The revision that the database has; None when it is empty."""
    async with database.read() as connection:
        return await connection.run_sync(_revision)


def alembic_config(connection: Connection | None = None) -> Any:
    """Alembic's Config for our migrations, bound to an open connection."""
    config = importlib.import_module("alembic.config").Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    config = alembic_config(connection)
    known = importlib.import_module("alembic.script").ScriptDirectory.from_config(config)
    current = _revision(connection)
    if current is not None and current not in {script.revision for script in known.walk_revisions()}:
        raise SchemaUnknown(f"the database has schema {current}, this version knows up to {HEAD}: start a newer plughub")
    importlib.import_module("alembic.command").upgrade(config, "head")
