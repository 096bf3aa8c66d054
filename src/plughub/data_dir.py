"""The folder where an embedded hub keeps everything: one process at a time, and the keys that the database alone does not give away."""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer

_SECRET_BYTES = 32


class DataDirInUse(Exception):
    """Another process has the data directory open."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The pepper of key digests and the ring that seals server configurations, each by version."""

    peppers: Peppers
    sealer: Sealer


class DataDir:
    """The open data directory; the lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder and take its lock. Raises DataDirInUse in words for the user, OSError when it cannot be written."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path / "plughub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise DataDirInUse(
                f"The data directory {self.path.absolute()} is in use by another plughub process"
                + (f" (process {owner})" if owner.isdigit() else "")
                + ". Stop it first, or choose another folder with --data-dir."
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock = handle

    def close(self) -> None:
        """Let the next process in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def load_secrets(path: Path) -> Secrets:
    """The secrets of the hub, made on the first start; processes that share a database share this file.

    Raises OSError, and ValueError when the file does not hold them.
    """
    if not path.exists():
        _make(path)
    try:
        held = json.loads(path.read_text())
        peppers = {int(version): bytes.fromhex(value) for version, value in held["peppers"].items()}
        ring = {int(version): bytes.fromhex(value) for version, value in held["seals"].items()}
        return Secrets(Peppers(peppers), Sealer(ring))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the secrets of a hub: restore it from a backup") from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = {"peppers": {"1": os.urandom(_SECRET_BYTES).hex()}, "seals": {"1": os.urandom(_SECRET_BYTES).hex()}}
    part = path.with_suffix(".new")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(held, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
