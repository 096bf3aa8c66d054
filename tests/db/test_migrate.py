"""Migrations: from nothing to what the code expects, on both databases."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import upgrade
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from plughub.db.engine import Database
from plughub.db.migrate import HEAD, SchemaUnknown, alembic_config, migrate
from plughub.db.tables import metadata

pytestmark = pytest.mark.anyio


def differences(connection: Connection) -> object:
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True}), metadata)


async def drop_all(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.connection.run_sync(metadata.drop_all)
        await uow.execute(text("DROP TABLE alembic_version"))


@pytest.mark.requirement("data.migrations-from-empty")
async def test_migrations_from_empty_lead_to_the_tables_of_the_code(database: Database) -> None:
    await drop_all(database)
    async with database.read() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == []
    await migrate(database)
    async with database.read() as connection:
        names = set(await connection.run_sync(lambda c: inspect(c).get_table_names()))
        assert names == {*metadata.tables, "alembic_version"}
        assert await connection.run_sync(differences) == []
        assert (await connection.execute(text("SELECT id, change_no FROM hub"))).all() == [(1, 0)]


@pytest.mark.requirement("data.migrations-from-empty")
async def test_processes_that_start_together_on_an_empty_database_migrate_once(database: Database) -> None:
    await drop_all(database)
    others = [Database(str(database.url.render_as_string(hide_password=False)), database.clock) for _ in range(3)]
    try:
        await asyncio.gather(*(migrate(other) for other in others))
    finally:
        for other in others:
            await other.aclose()
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM hub"))).scalar_one() == 1


@pytest.mark.requirement("data.migrations-from-empty")
async def test_rows_of_the_first_schema_keep_their_times(database: Database) -> None:
    await drop_all(database)
    async with database.unit_of_work() as uow:
        await uow.connection.run_sync(lambda c: upgrade(alembic_config(c), "0001"))
        for statement in (
            "INSERT INTO organization VALUES ('o', 'O', 'o', 'free', false, false, 1)",
            "INSERT INTO space VALUES ('s', 'o', 'live', 0, 'e')",
            "INSERT INTO project VALUES ('p', 'o', 's', 'P', '', true, 2)",
            "INSERT INTO profile VALUES ('f', 'p', 's', 'F', 'f', true, 3)",
            "INSERT INTO server VALUES ('v', 's', 'f', 'v', 'V', '', 'STDIO', '', true, 1, 4, 4)",
        ):
            await uow.execute(text(statement))
    await migrate(database)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT created_at, updated_at FROM project"))).all() == [(2, 2)]
        assert (await connection.execute(text("SELECT created_at, updated_at, description FROM profile"))).all() == [(3, 3, "")]
        assert (await connection.execute(text("SELECT server_id, state, failures FROM server_state"))).all() == [("v", None, 0)]


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await migrate(database)
    await migrate(database)


def test_head_named_in_the_code_is_the_newest_script() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == HEAD


async def test_database_of_a_newer_version_is_refused_in_words(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await uow.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(SchemaUnknown, match="9999"):
            await migrate(database)
    finally:
        async with database.unit_of_work() as uow:
            await uow.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": HEAD})
