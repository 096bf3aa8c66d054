"""The host of a client's metadata document (draft-ietf-oauth-client-id-metadata-document)."""

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from typing import Any, Self

Json = dict[str, Any]


@dataclass
class Host:
    """An https server with one document; `status`, `headers` and `body` are what it answers, `asked` how often it was asked."""

    context: ssl.SSLContext
    redirect_uri: str
    document: Json = field(default_factory=dict)
    status: str = "200 OK"
    headers: tuple[str, ...] = ("Content-Type: application/json",)
    body: bytes | None = None
    asked: int = 0
    held: asyncio.Event | None = None
    connected: int = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        self.document = {
            "client_id": self.url,
            "client_name": "Known",
            "redirect_uris": [self.redirect_uri],
            "token_endpoint_auth_method": "none",
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/client.json"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            if self.held is not None:
                await self.held.wait()
            body = json.dumps(self.document).encode() if self.body is None else self.body
            lines = [f"HTTP/1.1 {self.status}", *self.headers, f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
