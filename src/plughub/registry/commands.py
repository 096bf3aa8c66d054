"""Runs the programs that install packages: in a process group of their own, for so long, in a folder that grows so far."""

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plughub.kit.errors import InstallFailed

_LOOK_EVERY_S = 0.5
_TOLD_BYTES = 4000
_TOLD = 600
# What a package manager reads of its environment; nothing else of the hub's reaches it.
_KEPT = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TMPDIR|XDG_\w+|PIP_\w+|(?i:npm_config_\w+)|(?i:https?_proxy|no_proxy|all_proxy)"
    r"|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|SYSTEMROOT"
)
_USERINFO = re.compile(r"//[^/@\s]+@")
_FAULT = re.compile(r"^(?:npm (?:error|ERR!)|ERROR:) *(?!A complete log|\[notice)(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long one installation may take in all, and how many bytes its folder may hold."""

    seconds: float
    max_bytes: int


def environment(path: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a package manager, with these folders at the front of its PATH."""
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return {**kept, "PATH": os.pathsep.join([*path, kept.get("PATH", os.defpath)])}


async def run(command: Sequence[str], folder: Path, bounds: Bounds, env: Mapping[str, str]) -> None:
    """Run to the end. Raises InstallFailed, with the program's own words; a cancellation ends it too, with all that it started."""
    log = folder / "install.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=env, start_new_session=True
        )
    try:
        async with asyncio.timeout(bounds.seconds):
            await _finish(process, folder, bounds.max_bytes)
    except TimeoutError as error:
        raise InstallFailed(f"it took more than {bounds.seconds:.0f} s") from error
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all of it has ended
        await process.wait()
    if process.returncode != 0:
        raise InstallFailed(_said(log) or f"the installer ended with code {process.returncode}")


async def _finish(process: asyncio.subprocess.Process, folder: Path, max_bytes: int) -> None:
    ended = asyncio.ensure_future(process.wait())
    try:
        while not (await asyncio.wait([ended], timeout=_LOOK_EVERY_S))[0]:
            if await asyncio.to_thread(size_of, folder) > max_bytes:
                raise InstallFailed(f"it has more than {max_bytes} bytes")
    finally:
        ended.cancel()
    if await asyncio.to_thread(size_of, folder) > max_bytes:
        raise InstallFailed(f"it has more than {max_bytes} bytes")


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return size


def _said(log: Path) -> str:
    """What the program complained of, without whom it asked as."""
    text = _USERINFO.sub("//", log.read_bytes()[-_TOLD_BYTES:].decode("utf-8", "replace"))
    lines = [line.strip() for line in _FAULT.findall(text) if line.strip()]
    return " ".join(lines)[:_TOLD]
