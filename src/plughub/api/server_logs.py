"""The log of one server: its last lines, or live as an event stream."""

from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from fastapi import Query, Response

from plughub.api.framework import CallerDep, HubDep, ReadDep
from plughub.api.models import LogsOut
from plughub.api.render import render_api
from plughub.api.reply import reply, uuid_or_404
from plughub.door.request import Request
from plughub.door.routes import Route
from plughub.door.stream import followed
from plughub.gateway.hub import Hub
from plughub.kit.errors import HubError, Invalid
from plughub.servers import service

_DEFAULT, _MOST = 100, 1000
LogLines = Annotated[int, Query(ge=1, le=_MOST)]
Follow = Annotated[bool, Query(description="As an event stream; the same as `Accept: text/event-stream`")]


async def read_logs(
    caller: CallerDep, connection: ReadDep, hub: HubDep, uuid: str, limit: LogLines = _DEFAULT, follow: Follow = False
) -> Response:
    """The last lines of the server's stderr and of the hub's notes about it, oldest first.

    As an event stream: the last lines, then each new one, as frames `log`; `dropped` tells how many a slow reader has missed. It ends
    with `end` when the server is deleted, with `error` when the key is revoked or the hub stops. A comment every 15 s keeps it alive.
    """
    server = await service.get_server(connection, caller, uuid_or_404(uuid), hub.sealer)
    return reply({"logs": [_entry(line) for line in hub.logs.tail(server.id, limit)]})


class LiveLogs:
    """Answers whoever asks for the log as an event stream."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def stream(self, request: Request) -> None:
        """GET /api/servers/{uuid}/logs as an event stream."""
        hub, caller = self._hub, request.known_caller()
        server_id = uuid_or_404(request.values[0])
        await hub.exchange.target(caller, server_id)
        request.server_id = server_id
        lines = _lines(request)
        feed = hub.streams.open(caller, resting=True)

        def hear(line: str | None) -> None:
            if line is None:
                feed.push(_frame("end", {"reason": "server_deleted"}))
                feed.end()
            else:
                feed.push(_frame("log", _entry(line)))

        # Between the last line of the file and the first new one nothing else runs.
        leave = hub.logs.follow(server_id, hear)
        last = b"".join(_frame("log", _entry(line)) for line in hub.logs.tail(server_id, lines))
        try:
            await request.start_stream()
            if last:
                await request.write(last)
            await followed(request, feed, lambda count: _frame("dropped", {"lines": count}))
        except HubError as error:
            request.error = error
            await request.write(_frame("error", msgspec.Raw(render_api(error, request).body)))
        finally:
            leave()
            feed.close()
        await request.end_stream()


def _lines(request: Request) -> int:
    query: bytes = request.scope["query_string"]
    text = parse_qs(query.decode("latin-1")).get("limit", [str(_DEFAULT)])[-1]
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
        raise Invalid("limit", f"The 'limit' field must be a whole number from 1 to {_MOST}", text[:50])
    return int(text)


def _entry(line: str) -> dict[str, str]:
    at, _, text = line.partition(" ")
    return {"at": at, "line": text}


def _frame(event: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), msgspec.json.encode(data))


def routes(hub: Hub) -> list[Route]:
    """The row."""
    live = LiveLogs(hub)
    path, summary = "/api/servers/{uuid}/logs", "Read a server's log"
    return [Route("GET", path, "read:servers", read_logs, summary, "Servers", stream=live.stream, output=LogsOut)]
