"""What a hub's file may hold, checked: every name known, every value of its kind, every variable there. Mistakes are told with their line.

A text may hold `${NAME}`, a variable of the environment; `$${` stands for `${`. What is a secret by its name is written so and no other
way.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from plughub.cli.exits import ExitCode, Failure
from plughub.cli.hub_file.reading import Document, Node

VERSION = 1
SECTIONS = ("projects", "profiles", "servers", "collections", "keys", "webhooks")
TYPES = ("STDIO", "SSE", "STREAMABLE_HTTP")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"key|token|secret|passw|auth|cookie|credential", re.IGNORECASE)
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_SLUG = 24
_SHOWN_MISSING = 20
Entries = dict[str, dict[str, Any]]


@dataclass(slots=True)
class HubFile:
    """The sections by name; one that the file lacks is None. `lines`: where each entry stands, by (section, name)."""

    sections: dict[str, Entries | None]
    lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def entries(self, section: str) -> Entries:
        """The entries of a section; none where the file lacks it."""
        return self.sections[section] or {}


class Form:
    """Checks one file."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._missing: dict[str, int] = {}

    def check(self, root: Node) -> HubFile:
        """The file's sections with every variable in its place. Raises Failure."""
        top = self._object(root, "the file", ("version", *SECTIONS))
        version = top.get("version")
        if version is None:
            raise self._wrong(root, f"the file must say 'version: {VERSION}'")
        if version.value != VERSION or isinstance(version.value, bool):
            raise self._wrong(version, f"version {version.value!r} is not known: this program reads version {VERSION}")
        found = HubFile(dict.fromkeys(SECTIONS))
        for section in SECTIONS:
            if (node := top.get(section)) is not None:
                entries = self._map(node, section)
                found.sections[section] = {name: self._entry(section, name, inner) for name, inner in entries.items()}
                found.lines |= {(section, name): inner.line for name, inner in entries.items()}
        if self._missing:
            lines = [f"  {name} (line {line})" for name, line in list(self._missing.items())[:_SHOWN_MISSING]]
            raise Failure(ExitCode.USAGE, "Variables of the environment are missing:", *lines)
        return found

    def _entry(self, section: str, name: str, node: Node) -> dict[str, Any]:
        if section in ("profiles", "servers") and (_SLUG.fullmatch(name) is None or len(name) > _MAX_SLUG):
            raise self._wrong(node, f"'{name[:50]}' is no slug: a-z, 0-9 and single hyphens, at most {_MAX_SLUG} characters")
        if section == "webhooks":
            return self._webhook(name, node)
        entry = self._fields(node, f"{section}.{name}", FIELDS[section])
        if section == "servers":
            self._server(entry, f"servers.{name}", node)
        return entry

    def _webhook(self, url: str, node: Node) -> dict[str, Any]:
        entry = self._fields(node, f"webhooks.{url}", FIELDS["webhooks"])
        if not entry.get("events"):
            raise self._wrong(node, f"webhooks.{url}: 'events' is missing")
        self._no_secret_in_url(url, node)
        return {"url": self._expanded(url, node), **entry}

    def _server(self, entry: Mapping[str, Any], place: str, node: Node) -> None:
        kind = entry.get("type")
        if kind is None:
            raise self._wrong(node, f"{place}: 'type' is missing: {', '.join(TYPES)}")
        needed, other = ("command", ("url", "headers")) if kind == "STDIO" else ("url", ("command", "args", "env", "secret_args"))
        if entry.get(needed) is None:
            raise self._wrong(node, f"{place}: a server of type {kind} has a '{needed}'")
        if foreign := [name for name in other if name in entry]:
            raise self._wrong(node, f"{place}: a server of type {kind} has no '{foreign[0]}'")

    def _fields(self, node: Node, place: str, fields: Mapping[str, "Kind"]) -> dict[str, Any]:
        given = self._object(Node({}, node.line) if node.value is None else node, place, fields)
        return {name: fields[name](self, inner, f"{place}.{name}") for name, inner in given.items()}

    def _object(self, node: Node, place: str, known: Collection[str]) -> dict[str, Node]:
        given = self._map(node, place)
        for name, inner in given.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise self._wrong(inner, f"{place}: '{name[:100]}' is not known" + (f". Did you mean '{near[0]}'?" if near else ""))
        return given

    def _map(self, node: Node, place: str) -> dict[str, Node]:
        if not isinstance(node.value, dict):
            raise self._wrong(node, f"{place} must hold names with what belongs to them")
        found: dict[str, Node] = node.value
        return found

    def _wrong(self, node: Node, text: str) -> Failure:
        return self._document.wrong(node.line, text)

    def text(self, node: Node, place: str) -> str:
        """A text, its variables in place; a number is one, too."""
        value = node.value
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self._wrong(node, f"{place} must be a text" + (" (in quotes)" if isinstance(value, bool) else ""))
        return self._expanded(str(value), node)

    def secret(self, node: Node, place: str) -> str:
        """A text that is written as a variable and no other way."""
        if not isinstance(node.value, str) or not _refers(node.value):
            raise self._wrong(node, f"{place} is a secret: write ${{NAME}}, a variable of the environment")
        return self.text(node, place)

    def flag(self, node: Node, place: str) -> bool:
        """true or false."""
        if not isinstance(node.value, bool):
            raise self._wrong(node, f"{place} must be true or false")
        return node.value

    def number(self, node: Node, place: str) -> int | None:
        """A whole number, or null."""
        if isinstance(node.value, bool) or not isinstance(node.value, int | None):
            raise self._wrong(node, f"{place} must be a whole number")
        return node.value

    def one_of(self, node: Node, place: str, words: Collection[str]) -> str:
        """One of some words."""
        if node.value not in words:
            raise self._wrong(node, f"{place} must be one of {', '.join(words)}")
        found: str = node.value
        return found

    def texts(self, node: Node, place: str, item: "Kind | None" = None) -> list[str]:
        """A list of texts."""
        if not isinstance(node.value, list):
            raise self._wrong(node, f"{place} must be a list")
        kind = item or Form.text
        return [kind(self, inner, f"{place}[{at}]") for at, inner in enumerate(node.value)]

    def text_map(self, node: Node, place: str) -> dict[str, str]:
        """Texts by name; those of a secret's name are variables."""
        found = self._map(node, place)
        return {name: (self.secret if _SECRET.search(name) else self.text)(inner, f"{place}.{name}") for name, inner in found.items()}

    def labels(self, node: Node, place: str) -> dict[str, str]:
        """Texts by name, none of them secret."""
        return {name: self.text(inner, f"{place}.{name}") for name, inner in self._map(node, place).items()}

    def url(self, node: Node, place: str) -> str:
        """An address, in which nothing secret is written out."""
        self._no_secret_in_url(str(node.value), node)
        return self.text(node, place)

    def members(self, node: Node, place: str) -> dict[str, dict[str, Any]]:
        """The servers of a profile by slug, with what it says of them."""
        fields: dict[str, Kind] = {"enabled": Form.flag, "tools": Form.tools}
        return {slug: self._fields(inner, f"{place}.{slug}", fields) for slug, inner in self._map(node, place).items()}

    def tools(self, node: Node, place: str) -> dict[str, dict[str, Any]]:
        """What a profile says of a server's tools."""
        fields: dict[str, Kind] = {"enabled": Form.flag, "name": Form.text, "description": Form.text}
        return {name: self._fields(inner, f"{place}.{name}", fields) for name, inner in self._map(node, place).items()}

    def grant(self, node: Node, place: str) -> str | list[str]:
        """`all`, or a list of slugs."""
        return "*" if node.value == "all" else self.texts(node, place)

    def optional(self, node: Node, place: str) -> str | None:
        """A text, or null."""
        return None if node.value is None else self.text(node, place)

    def rates(self, node: Node, place: str) -> dict[str, Any] | None:
        """A key's own limits, or null."""
        return None if node.value is None else self._fields(node, place, dict.fromkeys(("hourly", "burst", "concurrency"), Form.number))

    def addresses(self, node: Node, place: str) -> list[str] | None:
        """A list of networks, or null."""
        return None if node.value is None else self.texts(node, place)

    def _no_secret_in_url(self, url: str, node: Node) -> None:
        try:
            parts = urlsplit(url)
            secret = [value for name, value in parse_qsl(parts.query) if _SECRET.search(name)]
            secret += [parts.netloc.rpartition("@")[0]] if "@" in parts.netloc else []
        except ValueError:
            return  # no address: the hub says why
        if any(not _refers(value) for value in secret):
            raise self._wrong(node, "a secret in an address is written as ${NAME}, a variable of the environment")

    def _expanded(self, text: str, node: Node) -> str:
        def value(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            if found[1] is None or _VARIABLE.fullmatch(found[1]) is None:
                raise self._wrong(node, "'${' begins a variable, ${NAME}; write $${ for the characters themselves")
            if found[1] not in self._environ:
                self._missing.setdefault(found[1], node.line)
            return self._environ.get(found[1], "")

        return _REFERENCE.sub(value, text)


Kind = Callable[[Form, Node, str], Any]


def _refers(text: str) -> bool:
    return any(found[1] is not None for found in _REFERENCE.finditer(text))


def escaped(text: str) -> str:
    """A text as it is written into a file, so that it is read as it is."""
    return text.replace("${", "$${")


def _words(*words: str) -> Kind:
    return lambda form, node, place: form.one_of(node, place, words)


def _secrets(form: Form, node: Node, place: str) -> list[str]:
    return form.texts(node, place, Form.secret)


FIELDS: dict[str, dict[str, Kind]] = {
    "projects": {"description": Form.text, "profile": Form.text},
    "profiles": {"name": Form.text, "description": Form.text, "project": Form.text, "servers": Form.members},
    "servers": {
        "name": Form.text,
        "type": _words(*TYPES),
        "description": Form.text,
        "enabled": Form.flag,
        "profile": Form.text,
        "command": Form.text,
        "args": Form.texts,
        "env": Form.text_map,
        "secret_args": _secrets,
        "url": Form.url,
        "headers": Form.text_map,
        "call_timeout_ms": Form.number,
        "start_timeout_ms": Form.number,
    },
    "collections": {"description": Form.text, "profile": Form.text, "servers": Form.texts, "public": Form.flag},
    "keys": {
        "description": Form.text,
        "kind": _words("public", "secret"),
        "scopes": Form.texts,
        "servers": Form.grant,
        "expires_at": Form.optional,
        "allowed_ips": Form.addresses,
        "labels": Form.labels,
        "rate_limit": Form.rates,
        "status": _words("active", "suspended"),
    },
    "webhooks": {
        "events": Form.texts,
        "active": Form.flag,
        "ordered": Form.flag,
        "description": Form.text,
        "rate_per_minute": Form.number,
        "secret": Form.secret,
    },
}
