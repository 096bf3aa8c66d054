"""The files in which MCP clients list their servers, read and written. Pure functions.

Read are `{"mcpServers": {…}}` (Claude Desktop and Code, Cursor, Windsurf, Cline, Gemini), `{"servers": {…}, "inputs": […]}` and
`{"mcp": {"servers": {…}}}` (VS Code). Clients keep secrets out of their files by placeholders: `${NAME}`, `${NAME:-default}`,
`${env:NAME}`, `${input:id}`. An export writes `${NAME}` wherever the hub keeps a secret; an import takes the values beside the file
(`"values": {"NAME": "…"}`), never from the hub's own environment.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from plughub.kit.errors import Invalid
from plughub.servers.config import masked_url, unmasked
from plughub.servers.schemas import Server, ServerCreate, checked, checked_config
from plughub.upstream.target import Transport

MAX_SERVERS = 200
MAX_WARNINGS = 100
TRANSPORTS = ("stdio", "sse", "http")
_WORDS: dict[str, Transport] = {
    "stdio": "STDIO",
    "sse": "SSE",
    **dict.fromkeys(("http", "streamable-http", "streamable_http", "streamablehttp"), "STREAMABLE_HTTP"),
}
# How clients write the same: Windsurf `serverUrl`, Gemini `httpUrl`, Cline `transportType`.
_ALIASES = {"serverUrl": "url", "httpUrl": "url", "transport": "type", "transportType": "type", "notes": "description"}
_OF_STDIO, _OF_URL = ("command", "args", "env"), ("url", "headers")
_KNOWN = frozenset((*_OF_STDIO, *_OF_URL, "type", "description", "disabled", "enabled"))
_TOP = frozenset(("mcpServers", "servers", "inputs", "mcp", "values"))
_PLACEHOLDER = re.compile(r"\$\{(?:(?:env|input):)?([^{}:]+)(?::-([^{}]*))?\}")
_SHOWN_NAME = 100
_SHOWN_MISSING = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A server of a file under the name it has there."""

    name: str
    create: ServerCreate


@dataclass(slots=True)
class ClientFile:
    """What a file holds. `warnings` are `{field, message}` about what was left out or is not complete."""

    entries: list[Entry] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)


def transport_of(word: str | None, given: Mapping[str, Any]) -> Transport | None:
    """The transport by its word, or without one by what is given; None when neither says it.

    A url that ends in `/sse` is taken for the older transport, as the clients do.
    """
    if word is not None:
        return _WORDS.get(word.lower())
    if ("command" in given) == ("url" in given):
        return None
    if "command" in given:
        return "STDIO"
    return "SSE" if str(given["url"]).partition("?")[0].rstrip("/").endswith("/sse") else "STREAMABLE_HTTP"


def read_client_file(document: Mapping[str, Any]) -> ClientFile:
    """The servers of a file. Raises Invalid naming every wrong field, as `mcpServers.github.command`."""
    reader = _Reader()
    place, servers = reader.servers(document)
    reader.values = reader.inputs(document.get("inputs")) | reader.given(document.get("values"))
    for name, entry in servers.items():
        reader.entry(f"{place}.{name[:_SHOWN_NAME]}", name, entry)
    reader.finish()
    return reader.file


class _Reader:
    """Goes over a document once and keeps every complaint."""

    def __init__(self) -> None:
        self.file = ClientFile()
        self.values: dict[str, str] = {}
        self._errors: list[dict[str, Any]] = []

    def servers(self, document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Where the servers stand, and they themselves."""
        mcp = document.get("mcp")
        places = {"mcpServers": document.get("mcpServers"), "servers": document.get("servers")}
        places["mcp.servers"] = mcp.get("servers") if isinstance(mcp, Mapping) else None
        found = {place: servers for place, servers in places.items() if servers is not None}
        unknown = [name[:_SHOWN_NAME] for name in document if name not in _TOP]
        if not found:
            # Then the unknown is the likely mistake; beside servers it is the rest of a client's settings.
            for name in unknown:
                self._wrong(name, f"The '{name}' field is not known")
            self._wrong("mcpServers", "The 'mcpServers' field is required")
            self.finish()
        for name in unknown:
            self._warn(name, "left out: not about servers")
        place, servers = next(iter(found.items()))
        if len(found) > 1:
            self._wrong(place, f"The servers stand in several places: {', '.join(found)}")
        elif not isinstance(servers, Mapping):
            self._wrong(place, f"The '{place}' field must be an object of servers by name")
        elif len(servers) > MAX_SERVERS:
            self._wrong(place, f"The '{place}' field must hold at most {MAX_SERVERS} servers")
        self.finish()
        return place, servers

    def inputs(self, inputs: Any) -> dict[str, str]:
        """VS Code asks its user for these; their defaults, by id."""
        if inputs is None:
            return {}
        if not isinstance(inputs, list) or not all(isinstance(one, Mapping) and isinstance(one.get("id"), str) for one in inputs):
            self._wrong("inputs", "The 'inputs' field must be a list of objects with an id")
            return {}
        return {one["id"]: one["default"] for one in inputs if isinstance(one.get("default"), str)}

    def given(self, values: Any) -> dict[str, str]:
        """What the sender fills placeholders with."""
        if values is None:
            return {}
        if not isinstance(values, Mapping) or not all(isinstance(value, str) for value in values.values()):
            self._wrong("values", "The 'values' field must be an object of strings")
            return {}
        return dict(values)

    def entry(self, place: str, name: str, entry: Any) -> None:
        """One server."""
        if not isinstance(entry, Mapping):
            self._wrong(place, f"The '{place}' field must be an object")
            return
        before = len(self._errors)
        given = self._spelled(place, entry)
        transport = self._transport(place, given)
        enabled = self._switch(place, given)
        if transport is None or len(self._errors) > before:
            return
        missing: dict[str, None] = {}
        config = self._config(place, transport, given, missing)
        if missing:
            enabled = False
            self._warn(place, f"no value for {', '.join([*missing][:_SHOWN_MISSING])}: the server is switched off until it has them")
        fields = {"name": name, "type": transport, "config": config, "enabled": enabled, "description": given.get("description")}
        try:
            create = checked(ServerCreate, fields)
            unmasked(checked_config(transport, config), {})
        except Invalid as error:
            self._errors += [_in_words_of(place, given, problem) for problem in error.errors]
            return
        self.file.entries.append(Entry(create.name, create))

    def _spelled(self, place: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry in one spelling, without what the hub has no use for."""
        given: dict[str, Any] = {}
        for key, value in entry.items():
            name = _ALIASES.get(key, key)
            if name not in _KNOWN:
                self._warn(f"{place}.{key[:_SHOWN_NAME]}", "left out: the hub has no such setting")
            elif name in given:
                self._wrong(f"{place}.{key}", f"The '{place}.{key}' field says again what another one says")
            elif value is not None:
                given[name] = value
        return given

    def _transport(self, place: str, given: Mapping[str, Any]) -> Transport | None:
        word = given.get("type")
        if word is not None and not isinstance(word, str):
            self._wrong(f"{place}.type", f"The '{place}.type' field must be a string")
            return None
        transport = transport_of(word, given)
        if transport is None and word is not None:
            self._wrong(f"{place}.type", f"The '{place}.type' field must be one of {', '.join(TRANSPORTS)}")
        elif transport is None and "command" in given:
            self._wrong(f"{place}.type", f"The '{place}.type' field is required: there are both a command and a url")
        elif transport is None:
            self._wrong(f"{place}.command", f"The '{place}.command' field is required, or '{place}.url'")
        return transport

    def _switch(self, place: str, given: Mapping[str, Any]) -> bool:
        for name in ("disabled", "enabled"):
            if not isinstance(given.get(name, False), bool):
                self._wrong(f"{place}.{name}", f"The '{place}.{name}' field must be true or false")
        return given.get("enabled", True) is True and given.get("disabled", False) is False

    def _config(self, place: str, transport: Transport, given: Mapping[str, Any], missing: dict[str, None]) -> dict[str, Any]:
        """The hub's form of it. An argument that a value was filled into is a secret one, with all that follow it."""
        wanted, others = (_OF_STDIO, _OF_URL) if transport == "STDIO" else (_OF_URL, _OF_STDIO)
        for name in others:
            if given.get(name):
                self._warn(f"{place}.{name}", f"left out: not for {transport}")
        used: set[str] = set()
        hidden = {name: self._filled(given[name], missing, set()) for name in ("env", "headers") if name in wanted and name in given}
        config = {name: self._filled(given[name], missing, used) for name in ("command", "url") if name in wanted and name in given}
        args = given.get("args") if transport == "STDIO" else None
        if isinstance(args, list):
            plain, secret = self._arguments(args, missing)
            config |= {"args": plain} | ({"secret_args": secret} if secret else {})
        elif args is not None:
            config["args"] = args
        shown = [str(config.get("command", "")), _shown_of(config.get("url", ""))]
        if any(value and any(value in text for text in shown) for value in used):
            self._warn(place, "a value was filled into the command or the path of the url, which the hub shows")
        return config | hidden

    def _arguments(self, args: list[Any], missing: dict[str, None]) -> tuple[list[Any], list[Any]]:
        used: set[str] = set()
        for at, argument in enumerate(args):
            self._filled(argument, {}, used)
            if used:
                return self._filled(args[:at], missing, used), self._filled(args[at:], missing, used)
        return self._filled(args, missing, used), []

    def _filled(self, value: Any, missing: dict[str, None], used: set[str]) -> Any:
        """`value` with its placeholders replaced. Names without a value go into `missing`, values that were used into `used`."""
        if isinstance(value, Mapping):
            return {key: self._filled(one, missing, used) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one, missing, used) for one in value]
        if not isinstance(value, str):
            return value

        def fill(match: re.Match[str]) -> str:
            name, default = match.groups()
            if name in self.values:
                used.add(self.values[name])
                return self.values[name]
            if default is None:
                missing[name[:_SHOWN_NAME]] = None
                return match[0]
            return default

        return _PLACEHOLDER.sub(fill, value)

    def _wrong(self, name: str, message: str) -> None:
        self._errors.append({"field": name, "message": message})

    def _warn(self, name: str, message: str) -> None:
        if len(self.file.warnings) < MAX_WARNINGS:
            self.file.warnings.append({"field": name, "message": message})

    def finish(self) -> None:
        """Raise Invalid when anything was wrong so far."""
        if self._errors:
            raise Invalid(self._errors[0]["field"], self._errors[0]["message"], errors=self._errors)


def _in_words_of(place: str, given: Mapping[str, Any], problem: Mapping[str, Any]) -> dict[str, Any]:
    """A complaint about the hub's form as one about the file's."""
    ours: str = problem["field"]
    inner = ours.removeprefix("config.").replace("secret_args", "args")
    theirs = place if ours == "name" else f"{place}.{inner}"
    return {"field": theirs, "message": problem["message"].replace(f"'{ours}'", f"'{theirs}'")}


def _shown_of(url: Any) -> str:
    try:
        return masked_url(url)
    except (ValueError, TypeError, AttributeError):
        return ""  # not a url: the check says so


def write_client_file(servers: Iterable[Server]) -> dict[str, Any]:
    """`{"mcpServers": {slug: …}}` with a placeholder of its own for every secret."""
    names = _Names()
    return {"mcpServers": {server.slug: _written(server, names) for server in servers}}


class _Names:
    """Gives each secret a name that no other has: two secrets of one name would become one."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def plain(self, server: Server, name: str) -> str:
        """`${NAME}`, or with the slug before it when another server has that already."""
        word = _word(name)
        return self.own(server, name) if word in self._taken else self._take(word)

    def own(self, server: Server, name: str) -> str:
        """`${SLUG_NAME}`, numbered when that is taken."""
        word = _word(f"{server.slug}_{name}")
        number = 1
        while word in self._taken:
            number += 1
            word = _word(f"{server.slug}_{name}_{number}")
        return self._take(word)

    def _take(self, word: str) -> str:
        self._taken.add(word)
        return "${" + word + "}"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").upper() or "SECRET"


def _written(server: Server, names: _Names) -> dict[str, Any]:
    config = server.config
    if server.transport == "STDIO":
        written: dict[str, Any] = {"command": config["command"]}
        secret = [names.own(server, f"arg_{at}") for at in range(1, len(config.get("secret_args", ())) + 1)]
        written["args"] = [*config.get("args", ()), *secret]
        written["env"] = {name: names.plain(server, name) for name in config.get("env", {})}
    else:
        written = {"type": "sse" if server.transport == "SSE" else "http", "url": _written_url(server, names)}
        written["headers"] = {name: names.own(server, name) for name in config.get("headers", {})}
    if server.description:
        written["description"] = server.description
    if not server.enabled:
        written["disabled"] = True
    return written


def _written_url(server: Server, names: _Names) -> str:
    parts = urlsplit(server.config["url"])
    userinfo, at, address = parts.netloc.rpartition("@")
    user = names.own(server, "url_user") if userinfo else ""
    query = []
    for part in parts.query.split("&") if parts.query else ():
        name, equals, _ = part.partition("=")
        query.append(f"{name}={names.own(server, name)}" if equals else names.own(server, "query"))
    written: str = urlunsplit(parts._replace(netloc=user + at + address, query="&".join(query)))
    return written
