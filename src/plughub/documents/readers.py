"""Runs `documents.reading`: a few at a time, each for a bounded time, with a bounded answer, whatever is in the file."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from plughub.documents.bounds import MAX_DIFF_BYTES, MAX_TEXT_BYTES, TIME_S
from plughub.kit.errors import Invalid, Unavailable

_AT_ONCE = 2
_WAITING = 32
_MOST = max(MAX_TEXT_BYTES, MAX_DIFF_BYTES) + 64 * 1024
_TOO_LONG = f"it takes longer than {TIME_S} s to read"


class Readers:
    """Bounded in number, time and size; a reader that is not waited for any more is killed."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def text(self, kind: str, path: Path) -> tuple[bytes, bool]:
        """The text of the file, and whether there is more of it. Raises Invalid (it cannot be read: why), Unavailable."""
        head, body = await self._run("text", kind, str(path))
        if "error" in head:
            raise Invalid("file", f"The file cannot be read: {head['error']}")
        return body, bool(head["truncated"])

    async def diff(self, old: Path, new: Path) -> tuple[bytes, Mapping[str, Any]]:
        """The unified difference of two texts, and `added`, `removed`, `truncated`. Raises Invalid, Unavailable."""
        head, body = await self._run("diff", str(old), str(new))
        if "error" in head:
            raise Invalid("v1", f"These versions cannot be compared: {head['error']}")
        return body, head

    async def _run(self, *arguments: str) -> tuple[dict[str, Any], bytes]:
        if self._waiting >= _WAITING:
            raise Unavailable("Too many files are being read")
        self._waiting += 1
        try:
            async with self._gate:
                return await _read(arguments)
        finally:
            self._waiting -= 1


async def _read(arguments: tuple[str, ...]) -> tuple[dict[str, Any], bytes]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-m", "plughub.documents.reading", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        start_new_session=True,
        limit=_MOST,
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(TIME_S):
            answer = await _up_to(child.stdout, _MOST)
            code = await child.wait()
    except TimeoutError:
        return {"error": _TOO_LONG}, b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code != 0:
        return {"error": _TOO_LONG if code < 0 else "its form is not known"}, b""
    head, _, body = answer.partition(b"\n")
    return msgspec.json.decode(head, type=dict[str, Any]), body


async def _up_to(stream: asyncio.StreamReader, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while (piece := await stream.read(256 * 1024)) and size <= most:
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)
