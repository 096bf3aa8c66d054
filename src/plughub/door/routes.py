"""A route is one row. Dispatch, default deny, OpenAPI and the test walks all read these rows."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from plughub.kit.caller import OPERATOR, SCOPES

PUBLIC = "public"
AUTHENTICATED = "authenticated"
SIGNED_IN = "session"
Door = Literal["api", "v1", "mcp", "plain", "oauth", "page"]
_REMEMBERED = 8192
_MAX_REMEMBERED_BYTES = 512


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `scope` is a scope of `kit.caller`, OPERATOR, AUTHENTICATED (any key or session), SIGNED_IN (the session of a
    person: no key) or PUBLIC: there is no default, so forgetting it is an error.
    `cost` is what the limits count; 0 for what they do not. A `hot` handler takes a `door.request.Request` and writes the answer
    itself; the others are FastAPI endpoints. A `reaching` one of these asks a server, beside the database. `stream`, of the same form
    as a hot handler, answers in the place of a GET's handler whoever asks for an event stream. An `event_source` is nothing else: its
    `stream` answers every GET, and as browsers' EventSource sends no header of the caller's, the credential may stand in the query
    (`door.query_token`). `headers` (that it cannot be asked without), `input` and `output` describe a hot row, whose endpoint has no
    typed signature.
    """

    method: str
    path: str
    scope: str
    handler: Callable[..., Awaitable[Any]]
    summary: str
    tag: str
    door: Door = "api"
    status: int = 200
    cost: int = 1
    hot: bool = False
    reaching: bool = False
    stream: Callable[..., Awaitable[None]] | None = None
    event_source: bool = False
    headers: tuple[str, ...] = ()
    input: Any = None
    form: Any = None  # the model of a body that is sent as multipart/form-data instead
    output: Any = None
    output_kind: str = "application/json"
    other_kinds: tuple[str, ...] = ()  # that the answer may have as well
    secret: bool = field(default=False)  # the answer tells of keys: it is never stored by anybody
    slashes: bool = False  # a value of its path may hold a slash, written %2F; an endpoint of FastAPI gets it as that

    def __post_init__(self) -> None:
        if self.scope not in SCOPES and self.scope not in (PUBLIC, AUTHENTICATED, SIGNED_IN, OPERATOR):
            raise ValueError(f"{self.method} {self.path}: unknown scope {self.scope!r}")

    def filled(self, values: Sequence[str]) -> str:
        """The path with these values for its parameters, a slash in one of them as `%2F`."""
        left = iter(values)
        return "/".join(next(left).replace("/", "%2F") if part.startswith("{") else part for part in self.path.split("/"))


class _Node:
    __slots__ = ("children", "parameter", "rows")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rows: dict[str, tuple[Route, tuple[str, ...]]] = {}


Match = tuple[dict[str, tuple[Route, tuple[str, ...]]], tuple[str, ...]]


class RouteTable:
    """Finds the rows of a path. A path without a row does not exist: default deny."""

    def __init__(self, rows: Iterable[Route]) -> None:
        self.rows = tuple(rows)
        self._root = _Node()
        self._remembered: dict[bytes, Match] = {}
        for row in self.rows:
            self._add(row)

    def _add(self, row: Route) -> None:
        node, names = self._root, []
        for segment in row.path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        if row.method in node.rows:
            raise ValueError(f"two rows for {row.method} {row.path}")
        node.rows[row.method] = (row, tuple(names))

    def find(self, raw_path: bytes) -> Match | None:
        """The rows of a path by method, and the values of its parameters in order; None when there is no such path."""
        match = self._remembered.get(raw_path)
        if match is None:
            match = self._walk(raw_path)
            if match is not None and len(raw_path) <= _MAX_REMEMBERED_BYTES:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[raw_path] = match
        return match

    def _walk(self, raw_path: bytes) -> Match | None:
        node, values = self._root, []
        for raw in raw_path.decode("latin-1").split("?", 1)[0].removeprefix("/").split("/"):
            # A segment is unquoted alone, so that an encoded slash stays inside it.
            segment = unquote(raw, errors="replace")
            child = node.children.get(segment)
            if child is None:
                if node.parameter is None or not segment:
                    return None
                child = node.parameter
                values.append(segment)
            node = child
        return (node.rows, tuple(values)) if node.rows else None
