"""A command's way to a running hub: by its address and a key over HTTP, as any script would."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from plughub import __version__
from plughub.cli.exits import ExitCode, Failure, failure_of
from plughub.cli.screen import Screen

DEFAULT_URL = "http://localhost:12005"
URL, KEY, KEY_FILE = "PLUGHUB_URL", "PLUGHUB_KEY", "PLUGHUB_KEY_FILE"
_CONNECT_S = 10.0
# The hub ends every call within 300 s.
_READ_S = 330.0
_LARGEST_FRAME = 64 * 1024 * 1024
LOOPBACK = ("localhost", "127.0.0.1", "::1")

UrlOption = Annotated[str | None, typer.Option("--hub", "--url", help=f"Where the hub is [{URL}; {DEFAULT_URL}].")]
HubOption = Annotated[str | None, typer.Option("--hub", help=f"Where the hub is [{URL}; {DEFAULT_URL}].")]
KeyOption = Annotated[str | None, typer.Option("--key", help=f"The API key [{KEY}]; others on this machine may see it, a file is safer.")]
KeyFileOption = Annotated[Path | None, typer.Option("--key-file", help=f"A file that holds the key [{KEY_FILE}].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says about the hub; None is left to the environment."""

    url: str | None = None
    key: str | None = None
    key_file: Path | None = None
    as_json: bool = False

    def over(self, other: "Given") -> "Given":
        """What is given here, the rest from `other`."""
        key, key_file = (self.key, self.key_file) if self.key or self.key_file else (other.key, other.key_file)
        return Given(self.url or other.url, key, key_file, self.as_json or other.as_json)


@dataclass(frozen=True, slots=True)
class Event:
    """One frame of an event stream; `id` is where the stream goes on after it, None where that is not told."""

    name: str
    data: Any
    id: str | None = None


class Session:
    """One command's talk with the hub. Every method raises Failure."""

    def __init__(self, given: Given, environ: Mapping[str, str] = os.environ) -> None:
        self._given = given
        self._environ = environ
        self.screen = Screen(given.as_json)
        self._client: Any = None

    @property
    def url(self) -> str:
        """The hub's address, without a path's end such as `/api` or `/mcp`."""
        url = (self._given.url or self._environ.get(URL) or DEFAULT_URL).strip().rstrip("/")
        for ending in ("/api", "/mcp"):
            url = url.removesuffix(ending)
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
        except ValueError:
            good = False
        if not good:
            raise Failure(ExitCode.USAGE, f"{url} is no address of a hub: it looks like {DEFAULT_URL}")
        return url

    @property
    def key_file(self) -> Path | None:
        """The file that holds the key, where one was named and no key itself."""
        if self._given.key:
            return None
        named = self._given.key_file or (self._environ.get(KEY_FILE) if not self._environ.get(KEY) else None)
        return Path(named) if named else None

    @property
    def key(self) -> str:
        """The API key."""
        if (file := self.key_file) is not None:
            try:
                key = file.read_text()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text"
                raise Failure(ExitCode.NOT_ALLOWED, f"The key file {file} cannot be read: {reason}") from error
        else:
            key = self._given.key or self._environ.get(KEY) or ""
        key = key.strip()
        if not key:
            raise Failure(
                ExitCode.NOT_ALLOWED,
                "An API key is needed",
                f"  hint: set {KEY} or {KEY_FILE}, or give --key-file. The first start of the hub shows the operator's key;",
                "        `plughub key create NAME` makes more.",
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise Failure(ExitCode.NOT_ALLOWED, "The API key holds a character that no key has")
        return key

    def ask(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None, *, raw: str | None = None) -> Any:
        """One request; the decoded answer, None when it is empty. `raw`: a body that is JSON already."""
        given: dict[str, Any] = {"json": body} if raw is None else {"content": raw, "headers": {"Content-Type": "application/json"}}
        with self._reaching():
            answer = self.client.request(method, path, params=query, **given)
        return _value(answer.status_code, answer.content)

    def stream(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Iterator[Event]:
        """The frames of an event stream as they come; an answer that is none is one event `answer`."""
        from plughub.protocol.sse import SseParser

        parser = SseParser(_LARGEST_FRAME)
        headers = {"Accept": "text/event-stream, application/json;q=0.5"}
        with self._reaching(), self.client.stream(method, path, json=body, params=query, headers=headers) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield Event("answer", _value(answer.status_code, answer.read()))
                return
            for piece in answer.iter_raw():
                for event in parser.feed(piece):
                    id_ = None if event.id is None else event.id.decode(errors="replace")
                    yield Event(event.event.decode(errors="replace"), json.loads(event.data), id_)

    @property
    def client(self) -> Any:
        """The HTTP client, made on first use; an httpx2.Client."""
        if self._client is None:
            import httpx2

            url = self.url
            self._client = httpx2.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {self.key}", "User-Agent": f"plughub/{__version__}", "Accept-Encoding": "identity"},
                timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
                # Without TLS nothing is verified anyway; to load the certificates takes longer than the call.
                verify=url.startswith("https:"),
                # A proxy for the outside world is not meant for this machine.
                trust_env=urlsplit(url).hostname not in LOOPBACK,
            )
        return self._client

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ReadTimeout as error:
            raise Failure(ExitCode.UNREACHABLE, f"The hub at {self.url} gave no answer in time") from error
        except httpx2.TransportError as error:
            raise Failure(
                ExitCode.UNREACHABLE,
                f"The hub at {self.url} cannot be reached: {error or type(error).__name__}",
                f"  hint: start it with `plughub serve`, or say where it is with --hub or {URL}",
            ) from error
        except (httpx2.InvalidURL, httpx2.DecodingError) as error:
            raise Failure(ExitCode.HUB, f"The hub at {self.url} cannot be spoken to: {error}") from error


def _value(status: int, content: bytes) -> Any:
    try:
        value = json.loads(content) if content else None
    except ValueError:
        raise failure_of(None) from None
    if status >= 400:
        raise failure_of(value)
    return value


def segment(text: str) -> str:
    """`text` as one part of a path."""
    return quote(text, safe="")


def hub_command(function: Callable[..., None]) -> Callable[..., None]:
    """`function(session, …)` as a command that takes `--hub`, `--key`, `--key-file` and `--json` as well, and ends in words.

    `--url` is another name of `--hub`, but where the command has a `url` of its own. A parameter that is a dataclass stands for its
    fields, each an option.
    """
    own: list[inspect.Parameter] = []
    groups: dict[str, tuple[Callable[..., Any], list[str]]] = {}
    for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]:
        kind: Callable[..., Any] = parameter.annotation
        if is_dataclass(kind):
            inner = list(inspect.signature(kind, eval_str=True).parameters.values())
            groups[parameter.name] = (kind, [one.name for one in inner])
            own += inner
        else:
            own.append(parameter)
    url = HubOption if any(parameter.name == "url" for parameter in own) else UrlOption
    kinds = {"hub_url": url, "key": KeyOption, "key_file": KeyFileOption, "as_json": JsonOption}
    keyword = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, keyword, annotation=kind, default=False if name == "as_json" else None) for name, kind in kinds.items()]
    context = inspect.Parameter("context", keyword, annotation=typer.Context)

    @functools.wraps(function)
    def command(context: typer.Context, hub_url: str | None, key: str | None, key_file: Path | None, as_json: bool, **given: Any) -> None:
        here = Given(hub_url, key, key_file, as_json)
        for name, (kind, inner) in groups.items():
            given[name] = kind(**{one: given.pop(one) for one in inner})
        run(functools.partial(function, **given), here.over(context.obj) if context.obj else here)

    parameters = [context, *(parameter.replace(kind=keyword) for parameter in own), *more]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def run(function: Callable[[Session], None], given: Given) -> None:
    """Run a command; failures are told on stderr, and the process ends with their code."""
    session = Session(given)
    try:
        function(session)
        sys.stdout.flush()
    except Failure as failure:
        tell(failure)
        raise typer.Exit(failure.code) from failure
    except BrokenPipeError as error:
        # Whoever read has left. What is still in the buffer would fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.BROKEN_PIPE) from error
    finally:
        session.close()


def tell(failure: Failure) -> None:
    """The words of a failure."""
    Screen(False).note("\n".join([f"plughub: {failure.text}", *failure.lines]))
