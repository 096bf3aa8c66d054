"""What servers offer, as lists: tools, resources, resource templates, prompts; of one server, and of all that a key may use.

Items are shown as their servers sent them. A server that is down is an error, never an empty list; among several, those that failed
are named in `failures`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import Response

from plughub.api.framework import CallerDep, HubDep
from plughub.api.models import AllPrompts, AllResources, AllTemplates, AllTools, PromptsOut, ResourcesOut, TemplatesOut, ToolsOut
from plughub.api.reply import Limit, Offset, uuid_or_404
from plughub.door.routes import Route
from plughub.gateway.lists import PROMPTS, RESOURCES, TEMPLATES, TOOLS, Item, Kind
from plughub.protocol.envelope import object_of
from plughub.upstream.target import RawJson, Target

_ALL = 1000
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

Handler = Callable[..., Awaitable[Response]]


def of_server(kind: Kind, what: str) -> Handler:
    """The handler that lists what one server offers."""

    async def handler(caller: CallerDep, hub: HubDep, uuid: str) -> Response:
        target = await hub.exchange.target(caller, uuid_or_404(uuid))
        items = (await hub.catalog.listing(kind, caller, target)).items
        return _reply(b'{"%b":[%b],"total":%d}' % (kind.member.encode(), b",".join(item.raw for item in items), len(items)))

    handler.__doc__ = f"The server's {what} as it sent them. A server that is down is an error, never an empty list."
    return handler


def of_all(kind: Kind, what: str) -> Handler:
    """The handler that lists what all servers offer."""

    async def handler(caller: CallerDep, hub: HubDep, limit: Limit = None, offset: Offset = 0) -> Response:
        listed, failures = await hub.catalog.across(kind, caller, await hub.servers.list_visible(caller))
        found = [(target, item) for target, listing in listed for item in listing.items]
        page = found[offset : offset + (limit or _ALL)]
        parts: dict[str, RawJson] = {
            kind.member: b"[" + b",".join(_placed(target, item) for target, item in page) + b"]",
            "total": b"%d" % len(found),
            "limit": b"%d" % (limit or _ALL),
            "offset": b"%d" % offset,
            "failures": msgspec.json.encode([failure.shown() for failure in failures]),
        }
        return _reply(object_of(parts))

    handler.__doc__ = (
        f"The {what} of every server that the key may use, by slug, each with `_serverUuid` and `_serverSlug`; "
        "servers that could not be asked are named in `failures`, and when none could that is the error."
    )
    return handler


def _placed(target: Target, item: Item) -> bytes:
    """The item, and whose it is in the words of the Plugged.in app (`GET /api/tools`)."""
    own: dict[str, RawJson] = {"_serverUuid": msgspec.json.encode(target.server_id), "_serverSlug": msgspec.json.encode(target.slug)}
    return object_of({**_members.decode(item.raw), **own})


def _reply(body: bytes) -> Response:
    return Response(body, media_type="application/json")


_OFFERED: tuple[tuple[Kind, str, str, str, Any, Any], ...] = (
    (TOOLS, "tools", "tools", "Tools", ToolsOut, AllTools),
    (RESOURCES, "resources", "resources", "Resources", ResourcesOut, AllResources),
    (TEMPLATES, "resource-templates", "resource templates", "Resources", TemplatesOut, AllTemplates),
    (PROMPTS, "prompts", "prompts", "Prompts", PromptsOut, AllPrompts),
)
ROUTES = [
    route
    for kind, noun, what, tag, one, every in _OFFERED
    for route in (
        Route("GET", f"/api/servers/{{uuid}}/{noun}", "read:servers", of_server(kind, what), f"List a server's {what}", tag, output=one),
        Route("GET", f"/api/{noun}", "read:servers", of_all(kind, what), f"List the {what} of all servers", tag, output=every),
    )
]
