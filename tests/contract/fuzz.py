"""Schemathesis with all its checks against a hub of its own: `make schemathesis`, or `python -m tests.contract.fuzz --seconds 600`.

Two runs, because one of the operator's keys could be made to run commands on this machine: whatever is generated is sent with the key of
an organisation that may not register commands, and then, with a key that changes nothing, to the demo server of the operator.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio

from plughub.data_dir import load_secrets
from plughub.db.audit import Chain
from plughub.db.engine import Database, database_url
from plughub.db.migrate import migrate
from plughub.identity.service import create_organization
from plughub.keys.schemas import KeyCreate
from plughub.keys.service import create_key
from plughub.kit.clock import SystemClock
from plughub.settings import Settings
from tests.flows.running_hub import RunningHub

CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = "tests.contract.fuzz_hooks"
ROOT = Path(__file__).resolve().parents[2]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
READING = ["read:servers", "execute:tools", "read:keys"]


async def seed(data_dir: Path) -> str:
    """Make an organisation before the hub's first start; its key."""
    settings = Settings(data_dir=data_dir)
    data_dir.mkdir(mode=0o700)
    secrets = load_secrets(data_dir / "secrets.json")
    database = Database(database_url(settings), SystemClock(), Chain(secrets.peppers.ring))
    await migrate(database)
    async with database.unit_of_work() as uow:
        tenant = await create_organization(uow, "Fuzzed", "enterprise")
        _, secret = await create_key(uow, tenant.founder(), KeyCreate(name="fuzz", scopes=["admin"]), secrets.peppers)
    await database.aclose()
    return secret


def run(hub: RunningHub, key: str, seconds: int, parameters: str, *more: str) -> int:
    """One run; its exit code. `parameters`: lines of TOML for what stands in paths."""
    config = hub.data_dir / "schemathesis.toml"
    config.write_text(f"{parameters}\n{CONFIG.read_text()}")
    own = next(row["id"] for row in hub.api("GET", "/api/auth/keys", key=key).json()["keys"] if key.startswith(row["prefix"]))
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT), "FUZZ_OWN_KEY": own}
    options = ["--header", f"Authorization: Bearer {key}", "--max-time", str(seconds), "--no-color", *more]
    command = [str(SCHEMATHESIS), "--config-file", str(config), "run", f"{hub.url}/api/openapi.json", *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, cwd=hub.data_dir, env=environment).returncode


def main() -> int:
    """Run both; 0 when neither found anything and the hub is as well as before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="for each of the two runs")
    parser.add_argument("--seed", type=int, default=1, help="another walk through the same API")
    parser.add_argument("more", nargs="*", help="further options of `schemathesis run`")
    given = parser.parse_args()
    more = ["--seed", str(given.seed), *given.more]
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        tenant = anyio.run(seed, data_dir)
        with RunningHub(data_dir, settings={"PLUGHUB_ADDRESS_LIMIT_PER_MINUTE": "100000000"}) as hub:
            reading = hub.api("POST", "/api/auth/keys", {"name": "reading", "scopes": READING}).json()["key"]
            codes = [run(hub, tenant, given.seconds, "", *more)]
            demo = hub.demo()
            mcp_id = hub.api("GET", "/v1/mcps").json()["data"][0]["id"]
            things = {"path.uuid": demo["uuid"], "path.mcp_id": mcp_id, "path.tool": "echo", "path.name": "plan_a_day"}
            parameters = "\n".join(["[parameters]", *(f'"{name}" = "{value}"' for name, value in things.items())])
            codes.append(run(hub, reading, given.seconds, parameters, "--exclude-tag", "System", *more))
            assert hub.api("GET", "/ready").status_code == 200
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
