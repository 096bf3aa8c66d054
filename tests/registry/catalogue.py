"""Every server of the catalogue, installed from its real registry and asked for its tools: `python -m tests.registry.catalogue`.

A few minutes, one line a server; exit code 1 when one of them cannot be installed or does not answer.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plughub.registry.launch import choose, inputs_of
from tests.serving import Served, serving

INSTALL_S, MIB = 300, 1024 * 1024


async def check() -> int:
    """How many failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "init", "-q", str(folder / "repository")], check=True)
        settings = {"install_timeout_s": INSTALL_S, "start_timeout_s": 60}
        async with serving(f"sqlite:///{folder}/plughub.db", folder, **settings) as hub:
            hub.client.timeout = INSTALL_S
            found = (await hub.call("GET", "/api/registry/search?limit=100")).json()["results"]
            return sum([not await answers(hub, one["name"], folder) for one in found])


async def answers(hub: Served, name: str, folder: Path) -> bool:
    """Whether the server is installed, lists tools, and leaves nothing behind."""
    shown = (await hub.call("GET", f"/api/registry/servers/{name.replace('/', '%2F')}")).json()
    wanted = [one.label for one in inputs_of(choose(shown["server"], stdio=True)) if one.required]
    env = {label: str(folder / ("repository" if label == "repository" else "." if label == "directory" else label)) for label in wanted}
    began = time.perf_counter()
    made = await hub.call("POST", "/api/registry/install", {"server_name": name, "env": env})
    took_s = time.perf_counter() - began
    if made.status_code != 201:
        tell(f"{name:52} {made.json()['error']['message']}")
        return False
    path = f"/api/servers/{made.json()['uuid']}"
    tools = await hub.call("GET", f"{path}/tools")
    told = f"{tools.json()['total']} tools" if tools.status_code == 200 else tools.json()["error"]["message"]
    size = sum(file.lstat().st_size for file in hub.app.hub.registry.packages.home.rglob("*")) / MIB
    tell(f"{name:52} {took_s:5.1f} s {size:6.1f} MiB  {told}")
    await hub.call("DELETE", path)
    return tools.status_code == 200


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(min(asyncio.run(check()), 1))
