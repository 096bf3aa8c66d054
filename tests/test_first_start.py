"""What a start finds: nothing, its own things, or a database that other secrets sealed."""

import os

import pytest
from sqlalchemy import text

from plughub.data_dir import Secrets
from plughub.db.engine import Database
from plughub.first_start import SecretsLost, check_secrets, prepare
from plughub.identity.service import get_organization
from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer
from plughub.servers.service import get_server, update_server

pytestmark = pytest.mark.anyio


def secrets_of(letter: bytes) -> Secrets:
    return Secrets(Peppers({1: letter * 32}), Sealer({1: letter * 32}))


@pytest.mark.requirement("run.lost-secrets-refused")
async def test_other_secrets_than_the_databases_are_refused(database: Database) -> None:
    ours = secrets_of(b"a")
    await check_secrets(database, ours)
    made = await prepare(database, ours)
    assert made.operator_key is not None and made.demo_id is not None
    await check_secrets(database, ours)
    assert (await prepare(database, ours)).operator_key is None
    with pytest.raises(SecretsLost):
        await check_secrets(database, secrets_of(b"b"))
    with pytest.raises(SecretsLost):
        await check_secrets(database, Secrets(Peppers({2: b"a" * 32}), Sealer({2: b"a" * 32})))
    rotated = Secrets(ours.peppers, Sealer({1: b"a" * 32, 2: os.urandom(32)}))
    await check_secrets(database, rotated)


async def test_one_damaged_row_is_not_taken_for_lost_secrets(database: Database) -> None:
    made = await prepare(database, secrets_of(b"a"))
    async with database.unit_of_work() as uow:
        await uow.execute(text("UPDATE server SET sealed_config = :junk WHERE id = :id"), {"junk": b"junk", "id": made.demo_id})
    await check_secrets(database, secrets_of(b"a"))


async def test_the_demo_server_follows_the_installation_and_keeps_what_was_added(database: Database) -> None:
    secrets = secrets_of(b"a")
    made = await prepare(database, secrets)
    assert made.demo_id is not None
    async with database.unit_of_work() as uow:
        operator_id = (await uow.execute(text("SELECT id FROM organization WHERE operator"))).scalar_one()
        founder = (await get_organization(uow.connection, operator_id)).founder()
        moved = {"command": "/gone/python", "env": {"A": "1"}, "secret_args": ["s"]}
        await update_server(uow, founder, made.demo_id, {"config": moved}, secrets.sealer)
    assert (await prepare(database, secrets)).demo_id == made.demo_id
    async with database.read() as connection:
        config = (await get_server(connection, founder, made.demo_id, secrets.sealer)).config
    assert config["command"] != "/gone/python"
    assert (config["env"], config["secret_args"]) == ({"A": "1"}, ["s"])
