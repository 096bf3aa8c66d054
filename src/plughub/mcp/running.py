"""What every message of a client passes, whichever door it came in by."""

import asyncio
from collections.abc import Awaitable

from plughub.door.request import Request
from plughub.door.routes import AUTHENTICATED
from plughub.door.stream import Outlet
from plughub.gateway.hub import Hub
from plughub.kit.errors import Malformed, MethodNotFound, RequestCancelled
from plughub.mcp.conversation import Conversation
from plughub.mcp.methods import FORWARD, METHODS, Method
from plughub.mcp.sessions import Session
from plughub.mcp.views import View
from plughub.protocol.envelope import Notification
from plughub.protocol.envelope import Response as Reply
from plughub.upstream.target import Answer


def require_event_stream(request: Request) -> None:
    """Raise Malformed unless the client can read a stream."""
    if b"text/event-stream" not in request.headers.get(b"accept", b""):
        raise Malformed("A stream of messages is asked for with Accept: text/event-stream")


def method_of(request: Request, view: View, talk: Conversation) -> Method:
    """The method of the message; its scope is the caller's. Raises MethodNotFound, Forbidden."""
    message = talk.message
    request.rpc = message.method
    method = METHODS.get(message.method, FORWARD)
    if (method.era is not None and (method.era == "modern") != message.modern) or (method is FORWARD and not view.forwards(message.method)):
        raise MethodNotFound(f"Method not found: {message.method[:100]}")
    scope = request.needed = method.scope
    if scope != AUTHENTICATED and scope not in talk.caller.scopes:
        talk.caller.require(scope)
    return method


async def admitted(hub: Hub, request: Request, view: View, talk: Conversation) -> Method:
    """`method_of`, and its cost is counted. Raises RateLimited too. A request that is a stream itself has no place on another one."""
    method = method_of(request, view, talk)
    if method.rests:
        raise MethodNotFound(f"Method not found: {talk.message.method[:100]}")
    if method.cost:
        await hub.admission.charge(request, talk.caller, method.cost)
    return method


async def cancellable(session: Session | None, id_: bytes, work: Awaitable[bytes], outlet: Outlet | None = None) -> bytes:
    """Await `work`; the client of a session may cancel it by the id of its request. Raises RequestCancelled, and why the stream of the
    `outlet`, if the request has it for itself, was stopped."""
    task = asyncio.current_task()
    assert task is not None
    if session is not None:
        session.calls[id_] = task
    if outlet is not None:
        outlet.owner = task
    try:
        return await work
    except asyncio.CancelledError:
        if outlet is not None and outlet.stopped is not None:
            raise outlet.stopped from None
        if session is None or session.calls.get(id_) is task:
            raise
        task.uncancel()
        raise RequestCancelled from None
    finally:
        if outlet is not None:
            outlet.owner = None
        if session is not None:
            session.calls.pop(id_, None)


def tell(session: Session, message: Notification | Reply) -> None:
    """What a client says without asking."""
    if isinstance(message, Reply):
        session.answered(message.id, Answer(message.result, message.error))
    elif message.method == "notifications/cancelled":
        session.cancel(message.params.get("requestId", b""))
