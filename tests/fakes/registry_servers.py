"""Other registries: one of the official API, and one of npm packages; what they say is the test's."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.http_servers import HttpServer, Seen, json_reply, reply

Json = dict[str, Any]
OFFICIAL = "io.modelcontextprotocol.registry/official"


def entry(server: Any, **official: Any) -> Json:
    """An entry of a list, as a registry gives it."""
    return {"server": server, "_meta": {OFFICIAL: {"status": "active", "isLatest": True, **official}}}


@dataclass
class FakeRegistry:
    """`GET /v0.1/servers`: `pages` one after the other; a cursor is the number of the next one. `status` of every answer but the first
    `good` ones."""

    pages: list[list[Any]] = field(default_factory=lambda: [[]])
    status: int = 200
    good: int = 0
    raw: bytes | None = None
    cursor: str | None = None
    asked: list[dict[str, list[str]]] = field(default_factory=list)

    async def __call__(self, seen: Seen, _writer: object) -> bytes:
        assert urlsplit(seen.target).path == "/v0.1/servers"
        query = parse_qs(urlsplit(seen.target).query)
        self.asked.append(query)
        if self.raw is not None:
            return reply(200, self.raw)
        if self.status != 200 and len(self.asked) > self.good:
            return json_reply({"error": "no"}, self.status)
        number = int(query.get("cursor", ["0"])[0])
        metadata: Json = {"count": len(self.pages[number])}
        if number + 1 < len(self.pages):
            metadata["nextCursor"] = self.cursor or str(number + 1)
        return json_reply({"servers": self.pages[number], "metadata": metadata})

    @staticmethod
    def url(server: HttpServer) -> str:
        return f"http://127.0.0.1:{server.port}"


@dataclass
class FakeNpm:
    """A registry with one version, 1.0.0, of one package. `files`: its content; `lies`: the hash is another one's."""

    name: str
    files: dict[str, str]
    lies: bool = False
    port: int = 0

    async def __call__(self, seen: Seen, _writer: object) -> bytes:
        tarball = self._tarball()
        if seen.target.endswith(".tgz"):
            return reply(200, tarball, "application/octet-stream")
        if unquote(seen.target).lstrip("/").partition("?")[0] != self.name:
            return json_reply({"error": "Not found"}, 404)
        digest = hashlib.sha512(b"other" if self.lies else tarball).digest()
        dist = {
            "tarball": f"http://127.0.0.1:{self.port}/tarballs/package-1.0.0.tgz",
            "integrity": f"sha512-{base64.b64encode(digest).decode()}",
        }
        version = {**json.loads(self.files["package.json"]), "dist": dist}
        return json_reply({"name": self.name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})

    def _tarball(self) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, text in self.files.items():
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        return gzip.compress(packed.getvalue(), mtime=0)
