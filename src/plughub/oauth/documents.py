"""Clients that are known by the URL of a document about them (draft-ietf-oauth-client-id-metadata-document, MCP authorization).

The hub fetches an address that a stranger has chosen, so: https alone, through the one dialler, which judges every address that it
connects to; no redirects, little time, few bytes, few at once; and what came is kept, so that asking again asks nobody.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httptools

from plughub.kit import strict_json
from plughub.kit.clock import Clock
from plughub.kit.dial import Tls, dial
from plughub.kit.errors import HubError
from plughub.oauth.clients import CODE_GRANT, MAX_URL, REFRESH_GRANT, Client, document_host
from plughub.oauth.errors import InvalidRequest, OAuthError
from plughub.oauth.registration import read_name, read_redirects
from plughub.settings import Settings

TIMEOUT_S = 5.0
MAX_BYTES = 64 * 1024
_AT_ONCE = 4
_MOST_KEPT = 1000
_KEPT_S = 3600.0
_LEAST_S, _MOST_S = 60.0, 86_400.0
# So long the same failure is told again without asking.
_FAILED_S = 30.0
_MAX_AGE = re.compile(rb"(?:^|[,\s])max-age=\"?(\d{1,9})")
_NEVER_KEPT = re.compile(rb"(?:^|[,\s])no-(?:store|cache)")


@dataclass
class _Answer:
    """What an HTTP parser found; the callbacks have the parser's names."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


class Documents:
    """Clients by the URL of their document: from memory, or fetched. Bounded in number, and a client is fetched by one at a time."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._allowed = settings.allow_private_addresses
        self._clock = clock
        self._tls = Tls()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._fetches: dict[str, asyncio.Task[Client]] = {}
        self._kept: OrderedDict[str, tuple[float, Client | str]] = OrderedDict()

    async def get(self, url: str) -> Client:
        """The client of a URL. Raises InvalidRequest, in words, when there is no good document there."""
        parts = _checked(url)
        until, found = self._kept.get(url, (0.0, ""))
        if until > self._clock.time():
            if isinstance(found, str):
                raise InvalidRequest(found)
            return found
        task = self._fetches.get(url)
        if task is None:
            task = self._fetches[url] = asyncio.create_task(self._load(url, parts))
            task.add_done_callback(lambda done: self._done(url, done))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Break off what is under way."""
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, url: str, task: asyncio.Task[Client]) -> None:
        self._fetches.pop(url, None)
        if not task.cancelled():
            task.exception()  # looked at here too, for when nobody waits any more

    async def _load(self, url: str, parts: SplitResult) -> Client:
        try:
            async with self._slots, asyncio.timeout(TIMEOUT_S):
                status, answer = await self._fetch(parts)
            client = read_document(url, status, answer.headers, bytes(answer.body))
        except (OSError, TimeoutError, httptools.HttpParserError, OAuthError) as error:
            reason = error.text if isinstance(error, HubError) else "it cannot be fetched"
            text = f"The client's metadata document is not usable: {reason}"
            self._keep(url, _FAILED_S, text)
            raise InvalidRequest(text) from error
        if (kept_s := _freshness(answer.headers)) > 0:
            self._keep(url, kept_s, client)
        return client

    async def _fetch(self, parts: SplitResult) -> tuple[int, _Answer]:
        """One GET. Raises OSError, TimeoutError, HttpParserError, InvalidRequest for more than MAX_BYTES."""
        host, reader = parts.hostname or "", asyncio.StreamReader(limit=MAX_BYTES)
        transport, _ = await dial(
            host,
            parts.port or 443,
            lambda: asyncio.StreamReaderProtocol(reader),
            allowed=self._allowed,
            ssl=await self._tls.context(),
            timeout_s=TIMEOUT_S,
        )
        try:
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            lines = (
                f"GET {path} HTTP/1.1",
                f"Host: {parts.netloc}",
                "Accept: application/json",
                "User-Agent: Plughub",
                "Connection: close",
            )
            transport.write("\r\n".join((*lines, "", "")).encode("ascii"))
            answer, size = _Answer(), 0
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete and (part := await reader.read(8192)):
                size += len(part)
                if size > MAX_BYTES:
                    raise InvalidRequest(f"it has more than {MAX_BYTES} bytes")
                parser.feed_data(part)
            return parser.get_status_code(), answer
        finally:
            transport.abort()

    def _keep(self, url: str, seconds: float, found: Client | str) -> None:
        self._kept[url] = (self._clock.time() + seconds, found)
        self._kept.move_to_end(url)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def read_document(url: str, status: int, headers: Mapping[bytes, bytes], body: bytes) -> Client:
    """The client that a document describes. Raises OAuthError in words."""
    if status != 200:
        raise InvalidRequest(f"its address answers {status}")
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise InvalidRequest("it is not JSON")
    try:
        found: Any = strict_json.loads(body, limit_bytes=MAX_BYTES)
    except HubError as error:
        raise InvalidRequest("it is not JSON") from error
    if not isinstance(found, dict) or found.get("client_id") != url:
        raise InvalidRequest("its client_id is not the address that it was fetched from")
    if found.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in found:
        raise InvalidRequest("it needs a way for clients to authenticate that is not supported: only none is")
    kinds = found.get("grant_types", [CODE_GRANT])
    if not isinstance(kinds, list) or CODE_GRANT not in kinds:
        raise InvalidRequest("it does not ask for authorization codes")
    uris = tuple(read_redirects(found))
    return Client("", url, "document", read_name(found) or document_host(url), uris, (CODE_GRANT, REFRESH_GRANT))


def _checked(url: str) -> SplitResult:
    """The parts of a URL that may name a client. Raises InvalidRequest."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidRequest("The client id is not a URL") from error
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= MAX_URL
    segments = parts.path.split("/")
    if not plain or parts.scheme != "https" or not parts.hostname or parts.username is not None or "#" in url:
        raise InvalidRequest("A client id that is a URL must be https, with a host, and without user and fragment")
    if len(parts.path) < 2 or "." in segments or ".." in segments:
        raise InvalidRequest("A client id that is a URL must have a path, without . and ..")
    return parts


def _freshness(headers: Mapping[bytes, bytes]) -> float:
    """How long a document is good, by its Cache-Control; 0: not at all."""
    control = headers.get(b"cache-control", b"").lower()
    if _NEVER_KEPT.search(control):
        return 0.0
    found = _MAX_AGE.search(control)
    return _KEPT_S if found is None else min(max(float(found[1]), _LEAST_S), _MOST_S)
