"""The event log over REST: read in pages, or followed as an event stream."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import Query, Response
from fastapi import Request as FrameworkRequest
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from plughub.api.event_shapes import EventList, TicketOut
from plughub.api.framework import CallerDep, HubDep, ReadDep, UowDep, door_request
from plughub.api.reply import reply
from plughub.db.audit import Deed
from plughub.door.event_stream import HEARTBEAT_S, EventStream
from plughub.door.request import Request
from plughub.door.routes import Route
from plughub.events.body import event_body
from plughub.events.frames import StreamId
from plughub.events.live import Form
from plughub.events.log import Head, read_head
from plughub.events.names import is_known, meant_by
from plughub.events.selection import Selection, Span, list_selected, select_for
from plughub.gateway.hub import Hub
from plughub.gateway.tickets import OPENS_S, last_event_id
from plughub.kit.caller import Caller
from plughub.kit.clock import parse_rfc3339
from plughub.kit.errors import Invalid, NotFound
from plughub.kit.ids import parse_public_id

_MOST_NAMES = 100
_MAX_NAME = 100
_OF_SERVERS = ("server.*", "tool.*")
_TYPE = "Names, families (`server.*`) or the documents' words for them (`mcp.*`), separated by commas"
_SERVER = "The server's uuid or `mcp_` id"
Types = Annotated[list[str] | None, Field(max_length=_MOST_NAMES, description=_TYPE)]
EventId = Annotated[str | None, Field(max_length=100)]


class Wanted(BaseModel):
    """Filters; times are RFC 3339."""

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=100)
    order: Literal["newest", "oldest"] = Field("newest", description="Which come first")
    type: Types = None
    server: str | None = Field(None, max_length=100, description=_SERVER)
    key: str | None = Field(None, max_length=100, description="The key's id: what was called with it, and what happened to it")
    since: str | None = Field(None, max_length=100, description="RFC 3339; included")
    until: str | None = Field(None, max_length=100, description="RFC 3339; not included")


class StreamWanted(BaseModel):
    """What a stream lets through, and where it begins."""

    token: str | None = Field(None, description="A public key or a ticket, where no header can be sent")
    type: Types = None
    server: str | None = Field(None, description=_SERVER)
    key: str | None = Field(None, description="The key's id")
    mirror: str | None = Field(None, description="`0`: named frames alone, without the unnamed one after each")
    last_event_id: str | None = Field(None, description="Go on after this; the Last-Event-ID header wins")


async def list_event_log(caller: CallerDep, connection: ReadDep, hub: HubDep, wanted: Annotated[Wanted, Query()]) -> Response:
    """What happened, newest first unless asked otherwise: changes of servers, keys, projects and so on, and every tool call.

    A key with a server list reads of those servers alone; keys need `read:keys`, and people `admin`. To follow the log, go on with a
    stream from `last_event_id`, or ask again with it as `cursor` and `order=oldest`.
    """
    head = await _head(connection, caller)
    selection = _selection(caller, _split(wanted.type or ()), wanted.server, wanted.key)
    times = {name: _time(name, getattr(wanted, name)) for name in ("since", "until")}
    span = Span(_after(head, wanted.cursor), newest_first=wanted.order == "newest", **times)
    events, following = await list_selected(connection, caller.space_id, selection, span, wanted.limit)
    kept = {"tool_events_days": hub.settings.event_retention_days, "other_events_days": None}
    return reply(
        {
            "events": [event_body(event, caller.organization_id, head.epoch) for event in events],
            "limit": wanted.limit,
            "next_cursor": None if following is None else f"{head.epoch}-{following}",
            "last_event_id": f"{head.epoch}-{head.seq}.m",
            "retention": {**kept, "complete_from": f"{head.epoch}-{head.pruned_seq}" if head.pruned_seq else None},
        }
    )


async def create_ticket(caller: CallerDep, uow: UowDep, hub: HubDep, request: FrameworkRequest) -> Response:
    """A ticket that opens one event stream in the place of the key that asks for it: for pages that must not hold the key."""
    shown = hub.admission.shown(door_request(request), caller)
    ticket = await hub.tickets.make(uow, caller, shown)
    made = {"scopes": sorted(caller.scopes), "expires_in": OPENS_S}
    uow.audit(Deed("ticket.created", "ticket", name="event stream", space_id=caller.space_id, after=made))
    return reply({"ticket": ticket, "expires_in": OPENS_S}, 201)


async def describe_events(_wanted: Annotated[StreamWanted, Query()]) -> Response:
    """What happens from now on, or after the last id that a client has seen, as an event stream.

    Each event is sent as a frame with its name, then as one without, so that listeners of either kind hear it; `data` is the body of
    webhooks. `stream.gap`: events between are not kept any more. `stream.closed`: why the stream ends; clients come back by themselves.
    """
    return Response(media_type="text/event-stream")


async def describe_server_events(_wanted: Annotated[StreamWanted, Query()]) -> Response:
    """The same of servers and their tools alone: `server.*` and `tool.*`."""
    return Response(media_type="text/event-stream")


class EventStreams:
    """Answers whoever opens a stream."""

    def __init__(self, hub: Hub, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._hub = hub
        self._heartbeat_s = heartbeat_s

    async def open_all(self, request: Request) -> None:
        """GET /api/events"""
        await self._open(request, ())

    async def open_of_servers(self, request: Request) -> None:
        """GET /api/servers/events"""
        await self._open(request, _OF_SERVERS)

    async def _open(self, request: Request, within: Sequence[str]) -> None:
        hub, caller = self._hub, request.known_caller()
        form, last_id = _form(request, caller, within), last_event_id(request)
        feed = hub.streams.open(caller, resting=True)
        try:
            reader = await hub.live.join(caller.space_id)
            try:
                await reader.reach(last_id.seq if last_id is not None and last_id.epoch == reader.epoch else 0)
                stream = EventStream(request, feed, reader, form, last_id, self._heartbeat_s)
                if request.ticket is not None:
                    await hub.tickets.spend(request.ticket, _name(request, form), stream.position)
                request.error = await stream.run()
            finally:
                hub.live.leave(reader)
        finally:
            feed.close()


def _form(request: Request, caller: Caller, within: Sequence[str]) -> Form:
    query = parse_qs(request.scope["query_string"].decode("latin-1"))
    mirror = query.get("mirror", ["1"])[-1].lower()
    if mirror not in ("0", "1", "true", "false"):
        raise Invalid("mirror", "The 'mirror' field must be 0 or 1", mirror[:50])
    one = {name: query[name][-1] if name in query else None for name in ("server", "key")}
    selection = _selection(caller, _split(query.get("type", ())), one["server"], one["key"])
    if within:
        allowed = select_for(caller, within).names
        selection = Selection(selection.names & allowed, selection.granted, selection.server_id, selection.key_id)
    return Form(selection, mirror in ("1", "true"))


def _name(request: Request, form: Form) -> str:
    """What a ticket is bound to: where the stream is, and what it was asked for."""
    path = request.route.path if request.route is not None else ""
    wanted = form.selection
    return " ".join([path, ",".join(sorted(wanted.names)), wanted.server_id or "-", wanted.key_id or "-", str(form.mirror)])


def _split(types: Iterable[str]) -> list[str]:
    found = [word for text in types for word in text.replace(",", " ").split()]
    if len(found) > _MOST_NAMES:
        raise Invalid("type", f"The 'type' field names more than {_MOST_NAMES} events")
    for word in found:
        if len(word) > _MAX_NAME or not is_known(word):
            near = meant_by(word)
            raise Invalid("type", f"The 'type' field names no event: {word[:50]}" + (f". Did you mean {near}?" if near else ""), word)
    return found


def _selection(caller: Caller, types: Sequence[str], server: str | None, key: str | None) -> Selection:
    ids = {}
    for name, prefix, text in (("server", "mcp", server), ("key", "key", key)):
        ids[name] = parse_public_id(prefix, text) if text is not None else None
        if text is not None and ids[name] is None:
            raise Invalid(name, f"The '{name}' field is no id of a {name}", text[:100])
    return select_for(caller, types, ids["server"], ids["key"])


def _time(name: str, text: str | None) -> float | None:
    found = parse_rfc3339(text) if text is not None else None
    if text is not None and found is None:
        raise Invalid(name, f"The '{name}' field must be an RFC 3339 time with its offset", text)
    return found


def _after(head: Head, cursor: str | None) -> int | None:
    if cursor is None:
        return None
    found = StreamId.parse(cursor)
    if found is None or found.epoch != head.epoch:
        raise Invalid("cursor", "The 'cursor' field is no cursor of this list", cursor)
    return found.seq


async def _head(connection: AsyncConnection, caller: Caller) -> Head:
    head = await read_head(connection, caller.space_id)
    if head is None:
        raise NotFound
    return head


def routes(hub: Hub) -> list[Route]:
    """The rows. `/api/servers/events` stands before `/api/servers/{uuid}`."""
    streams, scope = EventStreams(hub), "read:events"
    return [
        _stream("/api/events", describe_events, streams.open_all, "Follow what happens"),
        _stream("/api/servers/events", describe_server_events, streams.open_of_servers, "Follow what happens to servers"),
        Route(
            "POST",
            "/api/events/tickets",
            scope,
            create_ticket,
            "A ticket for an event stream",
            "Events",
            status=201,
            output=TicketOut,
            secret=True,
        ),
        Route("GET", "/api/event-log", scope, list_event_log, "List events", "Events", output=EventList),
    ]


def _stream(path: str, described: Any, stream: Any, summary: str) -> Route:
    kind = "text/event-stream"
    return Route("GET", path, "read:events", described, summary, "Events", stream=stream, event_source=True, output=str, output_kind=kind)
