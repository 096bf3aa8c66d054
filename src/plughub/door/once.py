"""`Idempotency-Key`: what a POST has done once is not done again; whoever asks again gets the first answer.

draft-ietf-httpapi-idempotency-key-header. A key is the caller's own, good for one request (method, path, query and body), and known for a
day. Where all that a row changes is in the unit of work of its parameter, the answer is kept in that very transaction. Everything else is
recorded before it begins: when nothing is known of how it ended, it may have run, and it is not run again. What is kept: answers of
success, sealed and without the secrets in them. An error that did nothing frees its key.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Message

from plughub.cluster.limits import Header
from plughub.db.kept_answers import Claim, Kept, claim_key, find_kept, keep_answer, release_key
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.actor import actor_of
from plughub.door.request import JSON, NO_STORE, Request
from plughub.door.routes import Route
from plughub.gateway.hub import Hub
from plughub.kit.caller import Caller
from plughub.kit.crypto import SealBroken
from plughub.kit.errors import AskedBefore, HubError, IdempotencyMismatch, Invalid, RequestCancelled

log = structlog.get_logger("plughub.door")

HEADER: Final = b"idempotency-key"
# The doors whose requests have nothing of the kind of their own.
DOORS = ("api", "v1")
REPLAYED: Header = (b"idempotent-replayed", b"true")
MAX_KEPT_BYTES = 256 * 1024
_NAME = "Idempotency-Key"
# A string of RFC 8941 as the draft has it, or without its quotes as most clients send it.
_KEY = re.compile(rb'"([ !#-\[\]-~]{1,255})"|([!#-~]{1,255})')
_SECRET_MEMBERS = frozenset(
    {
        "access_token",
        "backup_codes",
        "client_secret",
        "device_code",
        "invite_url",
        "key",
        "password",
        "refresh_token",
        "secret",
        "share_token",
        "share_url",
        "ticket",
        "token",
        "user_code",
    }
)
_SECRET_VALUE = re.compile(r"(?:(?:pk|sk)_(?:live|test)_ph_|whsec_|at_|rt_|otpauth:)\S{16,}")
_RETRY_AFTER_S = "1"

Run = Callable[[Request], Awaitable[None]]


class _NothingDone(Exception):
    """The row refused: its transaction is rolled back, and what it answered is sent."""


class Once:
    """Runs requests with a key. `in_work` says of which rows the changes are all in the unit of work of a parameter."""

    def __init__(self, hub: Hub, in_work: Callable[[Route], bool]) -> None:
        self._database = hub.database
        self._clock = hub.clock
        self._sealer = hub.sealer
        self._follower = hub.follower
        self._limit_bytes = hub.settings.max_body_bytes
        self._in_work = in_work
        # Those that run in this process, and were recorded before.
        self._running: set[tuple[str, bytes]] = set()

    async def run(self, request: Request, route: Route, run: Run) -> None:
        """Run the admitted request, unless it has been answered already.

        Raises Invalid for a key that is none, IdempotencyMismatch, AskedBefore, what reading a body and what `run` raise.
        """
        claim = await _claimed(request, self._limit_bytes)
        if request.work is not None:
            await self._within(request.work, request, claim, run, _Tap(request))
            return
        async with self._database.read() as connection:
            kept = await find_kept(connection, claim, self._clock.time())
        if kept is not None:
            await self._again(request, claim, kept)
        elif self._in_work(route):
            await self._in_one_commit(request, claim, run)
        else:
            await self._recorded(request, claim, run)

    async def _in_one_commit(self, request: Request, claim: Claim, run: Run) -> None:
        """Effect and answer are there together or not at all, and the client hears of neither before."""
        tap = _Tap(request, held=True)
        try:
            async with self._database.unit_of_work(actor_of(request)) as work:
                request.work = work
                await self._within(work, request, claim, run, tap)
                if request.status >= 400:
                    raise _NothingDone
        except _NothingDone:
            pass
        except BaseException:
            await tap.abandon()
            raise
        finally:
            request.work = None
        await tap.release()

    async def _within(self, work: UnitOfWork, request: Request, claim: Claim, run: Run, tap: "_Tap") -> None:
        if not await claim_key(work, claim, request.id, self._follower.node_id):
            await self._again(request, claim, await find_kept(work.connection, claim, self._clock.time()))
            return
        await run(request)
        if request.status < 400:
            await keep_answer(work, claim, request.status, self._sealed(request, claim, tap))

    async def _recorded(self, request: Request, claim: Claim, run: Run) -> None:
        async with self._database.unit_of_work() as work:
            mine = await claim_key(work, claim, request.id, self._follower.node_id)
        if not mine:
            async with self._database.read() as connection:
                kept = await find_kept(connection, claim, self._clock.time())
            await self._again(request, claim, kept)
            return
        running = (claim.owner, claim.digest)
        self._running.add(running)
        # Whoever has heard a whole answer is given it again; a stream is heard while it runs.
        tap = _Tap(request, held=b"text/event-stream" not in request.headers.get(b"accept", b""))
        try:
            try:
                await run(request)
            except HubError as error:
                await self._settle(request, claim, tap, error)
                raise
            await self._settle(request, claim, tap, request.error)
        except BaseException:
            await tap.abandon()
            raise
        finally:
            self._running.discard(running)
        await tap.release()

    async def _settle(self, request: Request, claim: Claim, tap: "_Tap", error: HubError | None) -> None:
        """Keep what was answered, or free the key. Of an error that may have done something nothing is kept: the claim stays as it is."""
        if error is None and request.status >= 400:
            return
        if error is not None and not _nothing_done(error):
            return
        try:
            async with self._database.unit_of_work() as work:
                if error is not None:
                    await release_key(work, claim)
                else:
                    await keep_answer(work, claim, request.status, self._sealed(request, claim, tap))
        except (SQLAlchemyError, OSError) as failure:
            # The answer goes out all the same: it is worth more than its copy, without which the key says `may_have_run`.
            log.warning("answer_not_kept", request_id=request.id, error=str(getattr(failure, "orig", failure)))

    async def _again(self, request: Request, claim: Claim, kept: Kept | None) -> None:
        """Answer as the first time. Raises IdempotencyMismatch, and AskedBefore when there is no answer."""
        if kept is not None and kept.fingerprint != claim.fingerprint:
            raise IdempotencyMismatch(first_request=kept.request_id)
        if kept is None or (kept.status is None and await self._under_way(claim, kept)):
            raise AskedBefore(
                "A request with this Idempotency-Key is being answered",
                reason="in_progress",
                retry_after=int(_RETRY_AFTER_S),
                headers={"retry-after": _RETRY_AFTER_S},
            )
        if kept.status is None:
            text = "A request with this Idempotency-Key was cut off: it may have run"
            raise AskedBefore(text, reason="may_have_run", executed="unknown", first_request=kept.request_id)
        opened = self._opened(claim, kept)
        if opened is None:
            text = "A request with this Idempotency-Key was done; its answer was not kept"
            raise AskedBefore(text, reason="answer_not_kept", status=kept.status, first_request=kept.request_id)
        kind, _, body = opened.partition(b"\n")
        never_stored = [NO_STORE] if request.route is not None and request.route.secret else []
        await request.respond(kept.status, body, (b"content-type", kind), [REPLAYED, *never_stored])

    async def _under_way(self, claim: Claim, kept: Kept) -> bool:
        if kept.node_id == self._follower.node_id:
            return (claim.owner, claim.digest) in self._running
        return await self._follower.lives(kept.node_id)

    def _sealed(self, request: Request, claim: Claim, tap: "_Tap") -> bytes | None:
        if tap.overflown:
            return None
        hot = request.route is not None and request.route.hot and not request.route.secret
        # What a tool says is the caller's own; what the hub says may hold a secret that is shown once.
        body = bytes(tap.body) if hot or tap.kind != JSON[1] else without_secrets(bytes(tap.body))
        return self._sealer.seal(tap.kind + b"\n" + body, _aad(claim))

    def _opened(self, claim: Claim, kept: Kept) -> bytes | None:
        try:
            return None if kept.answer is None else self._sealer.open(kept.answer, _aad(claim))
        except SealBroken:
            return None


class _Tap:
    """Between a request and its client: has a copy of what is answered, as far as it is kept; `held`, nothing is passed on before
    `release`."""

    __slots__ = ("_messages", "_request", "body", "kind", "overflown", "send_on")

    def __init__(self, request: Request, *, held: bool = False) -> None:
        self._request = request
        self._messages: list[Message] | None = [] if held else None
        self.send_on = request.send
        self.kind = b""
        self.body = bytearray()
        self.overflown = False
        request.send = self._send
        request.direct = None  # all of it passes here

    async def release(self) -> None:
        """Send what was held."""
        self._request.send = self.send_on
        for message in self._messages or ():
            await self.send_on(message)

    async def abandon(self) -> None:
        """The request ended otherwise than it had begun to say: what was held is not sent, but for the framework's answer to a fault."""
        if self._messages is None or self._request.status >= 400:
            await self.release()
        else:
            self._request.started, self._request.status, self._request.send = False, 0, self.send_on

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.kind = next((value for name, value in message["headers"] if name == b"content-type"), b"")
        part = message.get("body", b"")
        if len(self.body) + len(part) > MAX_KEPT_BYTES:
            self.overflown = True
        else:
            self.body += part
        if self._messages is None:
            await self.send_on(message)
        else:
            self._messages.append(message)


async def _claimed(request: Request, limit_bytes: int) -> Claim:
    """What the request claims. Its body is read, and given anew to whoever reads it."""
    if request.repeated((HEADER,)) is not None:
        raise Invalid(_NAME, f"The '{_NAME}' header appears more than once")
    found = _KEY.fullmatch(request.headers[HEADER])
    if found is None:
        raise Invalid(_NAME, f"The '{_NAME}' header must be 1 to 255 visible ASCII characters, in quotes or without")
    body, rest, given = await request.body(limit_bytes), request.receive, False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await rest()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    request.receive = receive
    scope = request.scope
    asked = b"%b %b?%b\n%b" % (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    owner, key = _owner(request.known_caller()), found[1] or found[2]
    return Claim(owner, hashlib.sha256(key).digest(), hashlib.sha256(asked).digest())


def _owner(caller: Caller) -> str:
    """Who a key belongs to: an API key or an app's grant, and of browsers their person."""
    own = caller.user_id if caller.credential == "session" else caller.key_id
    return f"{caller.credential}:{own}:{caller.space_id}"


def _nothing_done(error: HubError) -> bool:
    """Whether the error says that there was no effect: whatever was refused, and what no server was asked."""
    if isinstance(error, RequestCancelled):
        return False
    return error.status < 500 or error.details.get("executed") == "no"


def without_secrets(body: bytes) -> bytes:
    """JSON of the hub's own without what is shown once: members by their names, and texts by how our secrets look."""
    return msgspec.json.encode(_without(msgspec.json.decode(body))) if body else body


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items() if not _is_secret(name, item)}
    if isinstance(value, list):
        return [_without(item) for item in value if not _is_secret("", item)]
    return value


def _is_secret(name: str, value: Any) -> bool:
    if name in _SECRET_MEMBERS and isinstance(value, str | list):
        return True
    return isinstance(value, str) and _SECRET_VALUE.fullmatch(value) is not None


def _aad(claim: Claim) -> str:
    return f"kept_answer|{claim.owner}|{claim.digest.hex()}|answer"
