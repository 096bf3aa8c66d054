"""Clients that listen: `subscriptions/listen` of 2026-07-28, and `resources/subscribe` with the stream of GET of the older revisions."""

import asyncio

import msgspec

from plughub.bridge.results import error_for
from plughub.gateway.listening import LISTS, MESSAGE, UPDATED, Listener
from plughub.kit.caller import Caller
from plughub.kit.errors import Conflict, InvalidParams, MethodNotFound
from plughub.mcp.conversation import Conversation, notification_frame
from plughub.mcp.sessions import Session, SessionNotFound
from plughub.mcp.views import View
from plughub.protocol import versions
from plughub.protocol.envelope import error_frame, object_of, response_frame, text_of
from plughub.upstream.target import RawJson
from plughub.upstream.watching import ACKNOWLEDGED, Wanted, available

MAX_URIS = 256
MAX_URI_BYTES = 8192
_MAX_BEFORE = 64
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


class _Filter(msgspec.Struct):
    """`params.notifications` of `subscriptions/listen`."""

    toolsListChanged: bool | None = None  # noqa: N815  the wire's names
    promptsListChanged: bool | None = None  # noqa: N815
    resourcesListChanged: bool | None = None  # noqa: N815
    resourceSubscriptions: list[str] | None = None  # noqa: N815


_filter = msgspec.json.Decoder(_Filter)


class _Ear:
    """What one `subscriptions/listen` hears: under its id, and nothing before the acknowledgement."""

    def __init__(self, view: View, talk: Conversation, uris: frozenset[str]) -> None:
        self.over = asyncio.Event()
        self._view = view
        self._talk = talk
        self._uris = uris
        self._before: list[tuple[str, dict[str, RawJson]]] | None = []

    def hear(self, slug: str, method: str, params: dict[str, RawJson]) -> None:
        """See `gateway.listening.Hear`."""
        if method == UPDATED:
            _spell(self._view, slug, params, self._uris)
        if self._before is None:
            self._tell(method, params)
        elif len(self._before) < _MAX_BEFORE:
            self._before.append((method, params))
        else:
            self.over.set()

    def begin(self, honoured: Wanted) -> None:
        """Acknowledge, then tell what came meanwhile."""
        told: dict[str, object] = {f"{name}ListChanged": True for name in sorted(honoured.lists)}
        if honoured.uris:
            told["resourceSubscriptions"] = sorted(honoured.uris)
        before, self._before = self._before or [], None
        self._tell(ACKNOWLEDGED, {"notifications": msgspec.json.encode(told)})
        for method, params in before:
            self._tell(method, params)

    def _tell(self, method: str, params: dict[str, RawJson]) -> None:
        meta = _object(params.get("_meta", b"{}"))
        self._talk.tell(method, {**params, "_meta": object_of({**meta, versions.META_SUBSCRIPTION_ID: self._talk.message.id})})
        if self._talk.behind:  # it reads too slowly to learn of everything, so it is told that it does not
            self.over.set()


async def listen(view: View, talk: Conversation) -> bytes:
    """`subscriptions/listen` of 2026-07-28: a stream until the client leaves, or has nothing to hear any more."""
    asked = _read_filter(talk.message.params)
    honoured = available(await view.facts(talk), asked)
    listening = view.hub.listening
    ear = _Ear(view, talk, honoured.uris)
    listener = Listener(talk.caller, view.one, ear.hear, ear.over.set)
    listener.lists, listener.grows = honoured.lists, view.grows
    kept: set[str] = set()
    for uri in honoured.uris:
        found = await view.resource(talk, uri)
        if found is not None:
            kept.add(uri)
            listener.uris.setdefault(found[0].server_id, set()).add(found[1])
    listening.add(listener)
    try:
        listening.join(listener, {*listener.uris, *(await view.server_ids(talk.caller) if honoured.lists else ())})
        await listening.ready(listener)
        ear.begin(Wanted(honoured.lists, frozenset(kept)))
        await ear.over.wait()
    finally:
        listening.remove(listener)
    return farewell(talk)


def farewell(talk: Conversation) -> bytes:
    """The result that ends a subscription in good order."""
    meta = object_of({versions.META_SUBSCRIPTION_ID: talk.message.id})
    return response_frame(talk.message.id, object_of({"resultType": b'"complete"', "_meta": meta}))


def _object(raw: RawJson) -> dict[str, RawJson]:
    """The members of a server's object; none of what is no object."""
    try:
        return dict(_members.decode(raw))
    except msgspec.DecodeError:
        return {}


def _read_filter(params: dict[str, bytes]) -> Wanted:
    try:
        found = _filter.decode(params["notifications"])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
        raise InvalidParams("params.notifications must be an object of the kinds to hear") from error
    kinds = {"tools": found.toolsListChanged, "prompts": found.promptsListChanged, "resources": found.resourcesListChanged}
    uris = found.resourceSubscriptions or []
    if len(uris) > MAX_URIS:
        raise InvalidParams(f"params.notifications.resourceSubscriptions has more than {MAX_URIS} entries")
    for uri in uris:
        _check(uri, "params.notifications.resourceSubscriptions")
    return Wanted(frozenset(name for name, wanted in kinds.items() if wanted), frozenset(uris))


def _check(uri: str, field: str) -> None:
    if not uri or len(uri) > MAX_URI_BYTES:
        raise InvalidParams(f"{field}: a URI has from 1 to {MAX_URI_BYTES} characters")


def _spell(view: View, slug: str, params: dict[str, RawJson], known: frozenset[str] | dict[str, tuple[str, str]]) -> None:
    """Name the resource as the client knows it."""
    uri = _string.decode(params["uri"])
    if uri not in known:
        params["uri"] = msgspec.json.encode(view.outward(slug, uri))


# ---- the older revisions


async def attend(view: View, caller: Caller, session: Session) -> None:
    """The session's client reads its stream: from now on it hears of its servers there."""
    listener = _listener_of(view, caller, session)
    view.hub.listening.join(listener, {*listener.uris, *await view.server_ids(caller)})
    await view.hub.listening.ready(listener)


async def subscribe(view: View, talk: Conversation) -> bytes:
    """`resources/subscribe`: the session's stream tells when the resource has changed."""
    message, hub = talk.message, view.hub
    session, uri = _session_and_uri(talk)
    found = await view.resource(talk, uri)
    if found is None:
        error = {"code": -32002, "message": "Resource not found", "data": {"uri": uri[:2000]}}
        return error_frame(message.id, msgspec.json.encode(error))
    target, own = found
    talk.request.server_id = target.server_id
    timeout_s = hub.call_timeout_s(target)
    facts = (await hub.exchange.connect(target, timeout_s)).facts
    if not available(facts, Wanted(uris=frozenset((own,)))).uris:
        raise MethodNotFound("Method not found: resources/subscribe")
    if uri not in session.subscriptions and len(session.subscriptions) >= MAX_URIS:
        raise InvalidParams(f"The session has {MAX_URIS} subscriptions already")
    listener = _listener_of(view, talk.caller, session)
    answer = await hub.listening.subscribe(listener, target, own, timeout_s)
    if answer.result is None:
        return error_frame(message.id, error_for(answer.error or b"", "resources/read", facts, modern_client=False))
    session.subscriptions[uri] = (target.server_id, own)
    return response_frame(message.id, b"{}")


async def unsubscribe(view: View, talk: Conversation) -> bytes:
    """`resources/unsubscribe`; what was not subscribed to is well unsubscribed."""
    session, uri = _session_and_uri(talk)
    found = session.subscriptions.pop(uri, None)
    if found is not None and session.listener is not None:
        view.hub.listening.unsubscribe(session.listener, *found)
    return response_frame(talk.message.id, b"{}")


def _session_and_uri(talk: Conversation) -> tuple[Session, str]:
    uri = text_of(talk.message.params.get("uri", b"null"), "params.uri")
    _check(uri, "params.uri")
    if talk.session is None:
        raise InvalidParams("A subscription belongs to a session: send the Mcp-Session-Id that initialize gave")
    return talk.session, uri


class _SessionEar:
    """What a session hears, on its stream of GET."""

    def __init__(self, view: View, session: Session) -> None:
        self._view = view
        self._session = session

    def hear(self, slug: str, method: str, params: dict[str, RawJson]) -> None:
        """See `gateway.listening.Hear`."""
        session = self._session
        if method == UPDATED:
            _spell(self._view, slug, params, session.subscriptions)
        if method != MESSAGE or _is_wanted(session.log_level, params):
            session.tell(notification_frame(method, params))

    def leave(self) -> None:
        """The session has ended."""
        if self._session.listener is not None:
            self._view.hub.listening.remove(self._session.listener)

    def over(self) -> None:
        """It must not hear what it heard: its client comes back, and hears what it may."""
        session = self._session
        session.listener = None
        session.on_end.remove(self.leave)
        if session.listening is not None and session.listening.outlet is not None:
            session.listening.outlet.stop(Conflict("What the session may hear has changed"))


def _listener_of(view: View, caller: Caller, session: Session) -> Listener:
    """The session's listener, made when it is first needed; it goes with the session, or before when the caller's rights change."""
    if session.listener is not None:
        return session.listener
    if session.over:
        raise SessionNotFound
    ear = _SessionEar(view, session)
    listener = session.listener = Listener(caller, view.one, ear.hear, ear.over)
    listener.lists, listener.messages, listener.grows = frozenset(LISTS.values()), True, view.grows
    for server_id, own in session.subscriptions.values():
        if caller.granted(server_id):
            listener.uris.setdefault(server_id, set()).add(own)
    session.on_end.append(ear.leave)
    view.hub.listening.add(listener)
    return listener


def _is_wanted(level: RawJson | None, params: dict[str, RawJson]) -> bool:
    """Whether a message is loud enough for a session that has set `level`; without one it hears none."""
    try:
        return level is not None and LOG_LEVELS.index(_string.decode(params["level"])) >= LOG_LEVELS.index(_string.decode(level))
    except (KeyError, ValueError, msgspec.DecodeError):
        return False
