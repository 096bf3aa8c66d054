"""What a hub needs before anybody can use it: the operator's organisation, its first key, and a server to try."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from plughub.data_dir import Secrets
from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork
from plughub.identity.accounts import Accounts
from plughub.identity.service import Organization, ensure_operator, get_operator_id, get_organization
from plughub.keys.schemas import KeyCreate
from plughub.keys.service import create_key
from plughub.kit.caller import Environment
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.service import create_server, list_servers, opens, update_server

DEMO_NAME = "Weather Server"
DEMO_DESCRIPTION = "The demo server that comes with Plughub: weather that is made up, tools to try."
_ENVIRONMENTS: tuple[Environment, ...] = ("live", "test")


class SecretsLost(Exception):
    """The secrets are not those that the database was made with."""


@dataclass(frozen=True, slots=True)
class FirstStart:
    """`operator_key` is set on the first start only; `demo_id` is None when the operator has removed the demo server. `setup_code` is what
    the first-run page asks for, at a first start that made no account."""

    operator_key: str | None
    demo_id: str | None
    setup_code: str | None = None


async def check_secrets(database: Database, secrets: Secrets) -> None:
    """Raise SecretsLost when nothing in the database opens with the secrets: neither servers nor keys would work."""
    async with database.read() as connection:
        if not await opens(connection, secrets.sealer):
            raise SecretsLost("the configurations of its servers do not open")


async def prepare(database: Database, secrets: Secrets) -> FirstStart:
    """Make what is missing, in one transaction; a second start finds everything as it was left."""
    async with database.unit_of_work() as uow:
        operator = await ensure_operator(uow)
        if operator is not None:
            return await _make(uow, operator, secrets)
    async with database.unit_of_work() as uow:
        operator_id = await get_operator_id(uow.connection)
        found = await get_organization(uow.connection, operator_id)
        demo = None
        for environment in reversed(_ENVIRONMENTS):
            demo = await _move_demo(uow, found, environment, secrets)
        return FirstStart(None, demo)


async def prepare_owner(accounts: Accounts, first: FirstStart) -> FirstStart:
    """See to the operator's own account: made from the settings, else by whoever has the set-up code. Raises Invalid."""
    if await accounts.ensure_owner() or first.operator_key is None:
        return first
    return replace(first, setup_code=await accounts.make_setup_code())


async def _make(uow: UnitOfWork, operator: Organization, secrets: Secrets) -> FirstStart:
    made: dict[str, Server] = {}
    for environment in _ENVIRONMENTS:
        body = ServerCreate(name=DEMO_NAME, type="STDIO", config=_demo_config(), description=DEMO_DESCRIPTION)
        made[environment] = await create_server(uow, operator.founder(environment), body, secrets.sealer)
    body_of_key = KeyCreate(name="Operator", scopes=["admin"], description="Made at the first start")
    _, secret = await create_key(uow, operator.founder(), body_of_key, secrets.peppers)
    return FirstStart(secret, made["live"].id)


async def _move_demo(uow: UnitOfWork, operator: Organization, environment: Environment, secrets: Secrets) -> str | None:
    """Point the demo server at this installation: the environment it was made in may be gone."""
    founder = operator.founder(environment)
    page = await list_servers(uow.connection, founder, secrets.sealer, limit=1000, offset=0)
    demo = next((server for server in page.items if server.description == DEMO_DESCRIPTION and server.transport == "STDIO"), None)
    if demo is None:
        return None
    config = _demo_config()
    if [demo.config.get("command"), *demo.config.get("args", ())] != [config["command"], *config["args"]]:
        # What the operator added to it goes along: the command is still the hub's own.
        kept = {name: demo.config[name] for name in ("env", "secret_args")}
        await update_server(uow, founder, demo.id, {"config": {**config, **kept}}, secrets.sealer)
    return demo.id


def _demo_config() -> dict[str, str | list[str]]:
    return {"command": sys.executable, "args": ["-I", "-S", str(Path(__file__).with_name("demo_server.py"))]}
