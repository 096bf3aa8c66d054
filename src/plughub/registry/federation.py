"""Other registries that speak the official API (v0.1): read page by page, kept here, and found here also when they cannot be reached.

What they list comes from strangers: a page is bounded in time, bytes and number, every entry is judged by itself, and one that is refused
leaves a note and nothing else. A pass that is cut short goes on where it stood.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httptools
import structlog

from plughub.db.engine import Database
from plughub.kit import strict_json
from plughub.kit.clock import rfc3339
from plughub.kit.dial import Tls, dial
from plughub.kit.errors import HubError, Invalid
from plughub.registry import store
from plughub.registry.documents import read_document
from plughub.registry.entries import Version, entry, keep_versions

OFFICIAL: Final = "io.modelcontextprotocol.registry/official"
MAX_PAGE_BYTES: Final = 16 * 1024 * 1024
MAX_ENTRIES: Final = 50_000
_PAGE = 100
_MOST_PAGES = 600  # of one run
_TIMEOUT_S = 30.0
_MOST_NOTES = 20
_MAX_CURSOR = 2000
# A change may have been written while the page before it was read.
_AGAIN_S = 60.0
_STATUSES = ("active", "deprecated", "deleted")
_log = structlog.get_logger("plughub.registry")


class PageRefused(Exception):
    """A registry gave no page; in words."""


@dataclass
class _Answer:
    """What an HTTP parser found; the callbacks have the parser's names."""

    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(slots=True)
class Page:
    """A page that was judged. `newest`: the newest change in it (epoch seconds)."""

    versions: list[Version]
    notes: list[dict[str, str]]
    cursor: str | None
    newest: float | None


class Federation:
    """Reads the registries of the settings."""

    def __init__(self, database: Database, urls: Sequence[str]) -> None:
        self._database = database
        self._urls = urls
        self._tls = Tls()

    async def sync(self) -> None:
        """Ask every registry for what is new, one after the other; forget those that are no longer asked."""
        async with self._database.unit_of_work() as uow:
            await store.forget_sources(uow, self._urls)
        for url in self._urls:
            try:
                await self._sync(url)
            except PageRefused as error:
                _log.warning("registry_not_read", url=url, error=str(error))
                async with self._database.unit_of_work() as uow:
                    await store.keep_source(uow, url, {"tried_at": uow.clock.time(), "last_error": str(error)[:500]})

    async def _sync(self, url: str) -> None:
        async with self._database.read() as connection:
            row = await store.find_source(connection, url)
            room = MAX_ENTRIES - await store.count_of(connection, entry.source == url)
        state: dict[str, Any] = dict(row) if row is not None else {"cursor": None, "since": None, "newest": None, "refused": 0, "notes": []}
        for _ in range(_MOST_PAGES):
            if room <= 0:
                raise PageRefused(f"it has more than {MAX_ENTRIES} entries: the others are left out")
            page = await self._page(url, state)
            if page.cursor is not None and page.cursor == state["cursor"]:
                raise PageRefused("its pages go round in a circle")
            await self._keep(url, state, page)
            room -= len(page.versions)
            if page.cursor is None:
                return

    async def _keep(self, url: str, state: dict[str, Any], page: Page) -> None:
        """One page and the place behind it, in one transaction."""
        async with self._database.unit_of_work() as uow:
            now = uow.clock.time()
            taken = await keep_versions(uow, url, page.versions)
            notes = [*page.notes, *({"name": name, "note": "The name belongs to another source"} for name in taken)]
            newest = max((at for at in (state["newest"], page.newest) if at is not None), default=None)
            state |= {"cursor": page.cursor, "newest": newest, "tried_at": now, "last_error": None}
            state |= {"refused": state["refused"] + len(page.notes), "notes": [*notes, *state["notes"]][:_MOST_NOTES]}
            if page.cursor is None:
                # By the registry's clock, but never ahead of ours: nothing would ever be new again.
                state |= {"since": state["since"] if newest is None else min(newest, now) - _AGAIN_S, "newest": None, "synced_at": now}
            await store.keep_source(uow, url, {name: value for name, value in state.items() if name != "url"})

    async def _page(self, url: str, state: Mapping[str, Any]) -> Page:
        query = f"limit={_PAGE}&version=latest"
        if state["since"] is not None:
            query += f"&updated_since={quote(rfc3339(state['since']))}"
        if state["cursor"] is not None:
            query += f"&cursor={quote(state['cursor'], safe='')}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, body = await self._get(f"{url}/v0.1/servers?{query}")
            if status == 400 and state["cursor"] is not None:
                async with self._database.unit_of_work() as uow:
                    await store.keep_source(uow, url, {"cursor": None})
                raise PageRefused("it does not know the place where the last pass stood: the next one begins anew")
            if status != 200:
                raise PageRefused(f"it answers {status}")
            return read_page(strict_json.loads(body, limit_bytes=MAX_PAGE_BYTES))
        except (OSError, TimeoutError, httptools.HttpParserError) as error:
            raise PageRefused(f"it cannot be reached: {error or type(error).__name__}") from error
        except HubError as error:
            raise PageRefused(f"its answer is not a page of servers: {error.text}") from error

    async def _get(self, url: str) -> tuple[int, bytes]:
        """Raises OSError, HttpParserError, PageRefused for more than MAX_PAGE_BYTES."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        reader = asyncio.StreamReader(limit=65_536)
        transport, _ = await dial(
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            lambda: asyncio.StreamReaderProtocol(reader),
            allowed=None,  # the operator's own choice; link-local and metadata addresses are refused all the same
            ssl=await self._tls.context() if secure else None,
            timeout_s=_TIMEOUT_S,
        )
        try:
            lines = (f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}", "Accept: application/json", "User-Agent: Plughub")
            transport.write("\r\n".join((*lines, "Connection: close", "", "")).encode("ascii"))
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete and (part := await reader.read(65_536)):
                parser.feed_data(part)
                if len(answer.body) > MAX_PAGE_BYTES:
                    raise PageRefused(f"a page has more than {MAX_PAGE_BYTES} bytes")
            return parser.get_status_code(), bytes(answer.body)
        finally:
            transport.abort()


def read_page(found: Any) -> Page:
    """The good entries of a page, and a note for each of the others. Raises Invalid when it is no page at all."""
    if not isinstance(found, dict) or not isinstance(found.get("servers"), list):
        raise Invalid("servers", "The 'servers' field is not a list")
    metadata = found.get("metadata") or {}
    cursor = metadata.get("nextCursor") if isinstance(metadata, dict) else None
    if cursor is not None and (not isinstance(cursor, str) or len(cursor) > _MAX_CURSOR):
        raise Invalid("metadata.nextCursor", "The 'metadata.nextCursor' field is not a text")
    page = Page([], [], cursor or None, None)
    for one in found["servers"][: 10 * _PAGE]:
        try:
            version, changed_at = _version(one)
        except Invalid as error:
            page.notes.append({"name": _name_of(one), "note": error.text[:300]})
            continue
        page.versions.append(version)
        page.newest = max(page.newest or 0.0, changed_at) if changed_at is not None else page.newest
    return page


def _version(one: Any) -> tuple[Version, float | None]:
    if not isinstance(one, dict):
        raise Invalid("servers", "An entry is not an object")
    listing = read_document(one.get("server"), foreign=True)
    meta = one.get("_meta")
    official = meta.get(OFFICIAL) if isinstance(meta, dict) else None
    official = official if isinstance(official, dict) else {}
    status = official.get("status", "active")
    if status not in _STATUSES:
        raise Invalid("status", f"The 'status' field is none of {', '.join(_STATUSES)}")
    latest = official.get("isLatest", True)
    published, changed = _time(official.get("publishedAt")), _time(official.get("updatedAt"))
    return Version(listing, latest is not False, status, published), changed


def _time(value: Any) -> float | None:
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _name_of(one: Any) -> str:
    server = one.get("server") if isinstance(one, dict) else None
    name = server.get("name") if isinstance(server, dict) else None
    return "".join(character for character in name[:200] if character.isprintable()) if isinstance(name, str) else ""
