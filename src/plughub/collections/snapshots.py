"""A collection as it leaves the hub: its secrets are placeholders; and as it comes in: they are filled in. Pure functions.

A secret stands in `env`, in `headers`, in `secret_args`, and in userinfo and query of the `url`. There, and nowhere else, `{{NAME}}` is a
placeholder: what is shown of a server anyhow passes as it is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from plughub.collections.schemas import FORM, VERSION, Collection, ServerInSnapshot, Snapshot
from plughub.kit.errors import Invalid
from plughub.servers.schemas import Server, ServerCreate, checked, checked_config

_PLACEHOLDER = re.compile(r"\{\{([A-Za-z0-9_]{1,200})\}\}")
_NAME_LENGTH = 150
_HIDDEN_MAPS = ("env", "headers")

# Says what stands in the place of a secret: (its field, its value) -> the new value.
_Exchange = Callable[[str, str], str]


def write_snapshot(found: Collection, servers: Sequence[Server]) -> dict[str, Any]:
    """`{plughub, version, name, description, servers, placeholders}`, with a placeholder of its own for every secret."""
    written, placeholders = write_servers(servers)
    about = {"plughub": FORM, "version": VERSION, "name": found.name, "description": found.description}
    return {**about, "servers": written, "placeholders": placeholders}


def write_servers(servers: Sequence[Server]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """`{name, description, type, config}` of each, and the placeholders in them, each with the only name of its kind."""
    names = _Names()
    written = [
        {
            "name": server.name,
            "description": server.description,
            "type": server.transport,
            "config": _exchanged(server.config, names.of(server)),
        }
        for server in servers
    ]
    return written, names.given


def read_snapshot(snapshot: Snapshot, values: Mapping[str, str], profile_id: str | None) -> list[ServerCreate]:
    """The servers to make of a snapshot. Raises Invalid as `read_servers` does."""
    return read_servers(snapshot.servers, values, profile_id, "collection.servers")


def read_servers(servers: Sequence[ServerInSnapshot], values: Mapping[str, str], profile_id: str | None, where: str) -> list[ServerCreate]:
    """The servers to make, of those that stand at `where` in what was sent. Raises Invalid naming every placeholder without a value,
    every value for none, and every field that cannot be."""
    wanted: dict[str, None] = {}
    for entry in servers:
        _exchanged_loosely(entry.config, lambda _field, text: _noted(text, wanted))
    missing = [{"field": f"values.{name}", "message": f"The 'values.{name}' field is required"} for name in wanted if name not in values]
    unknown = [{"field": f"values.{name}", "message": f"The 'values.{name}' field is not known"} for name in values if name not in wanted]
    _raise(missing + unknown)
    made: list[ServerCreate] = []
    errors: list[dict[str, Any]] = []
    for at, entry in enumerate(servers):
        place = f"{where}.{at}"
        try:
            config = _exchanged_loosely(entry.config, lambda field, text: _filled(field, text, values))
            fields = {"name": entry.name, "type": entry.type, "config": config, "description": entry.description}
            made.append(checked(ServerCreate, fields | {"profile_uuid": profile_id}, place))
            checked_config(entry.type, config)
        except Invalid as error:
            errors += [
                {"field": _within(place, told["field"]), "message": told["message"].replace("'config", f"'{place}.config")}
                for told in error.errors
            ]
    _raise(errors)
    return made


class _Names:
    """Gives each secret a name that no other has; `given` is what the snapshot says of them."""

    def __init__(self) -> None:
        self.given: list[dict[str, str]] = []
        self._taken: set[str] = set()

    def of(self, server: Server) -> _Exchange:
        """What puts placeholders in the place of the secrets of one server."""

        def exchange(field: str, _value: str) -> str:
            name = self._free(server, field.rpartition(".")[2])
            self._taken.add(name)
            self.given.append({"name": name, "server": server.name, "field": field})
            return "{{" + name + "}}"

        return exchange

    def _free(self, server: Server, last: str) -> str:
        """The field's own name, or with the slug before it when another secret has that already, or numbered."""
        own = _word(f"{server.slug}_{last}")
        for name in (_word(last), own):
            if name not in self._taken:
                return name
        number = 2
        while f"{own}_{number}" in self._taken:
            number += 1
        return f"{own}_{number}"


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").upper()[:_NAME_LENGTH] or "SECRET"


def _exchanged(config: Mapping[str, Any], exchange: _Exchange) -> dict[str, Any]:
    """A valid configuration with every secret exchanged."""
    shown = dict(config)
    for name in _HIDDEN_MAPS:
        if name in shown:
            shown[name] = {key: exchange(f"config.{name}.{key}", value) for key, value in shown[name].items()}
    if shown.get("secret_args"):
        shown["secret_args"] = [exchange(f"config.secret_args.secret_arg_{at}", value) for at, value in enumerate(shown["secret_args"], 1)]
    if "url" in shown:
        shown["url"] = _exchanged_url(shown["url"], exchange)
    return shown


def _exchanged_loosely(config: Mapping[str, Any], exchange: _Exchange) -> dict[str, Any]:
    """The same of what came in from anywhere: whatever is not of the form it should be stays, to be refused by the one who checks it."""
    known = dict(config)
    for name in _HIDDEN_MAPS:
        if isinstance(known.get(name), Mapping):
            known[name] = {key: _if_text(value, f"config.{name}", exchange) for key, value in known[name].items()}
    if isinstance(known.get("secret_args"), list):
        known["secret_args"] = [_if_text(value, "config.secret_args", exchange) for value in known["secret_args"]]
    if isinstance(known.get("url"), str):
        try:
            known["url"] = _exchanged_url(known["url"], exchange)
        except ValueError:
            pass  # no url: the check says so
    return known


def _if_text(value: Any, field: str, exchange: _Exchange) -> Any:
    return exchange(field, value) if isinstance(value, str) else value


def _exchanged_url(url: str, exchange: _Exchange) -> str:
    if "@" not in url and "?" not in url:
        return url
    parts = urlsplit(url)
    userinfo, at, address = parts.netloc.rpartition("@")
    user = exchange("config.url.url_user", userinfo) if userinfo else ""
    query = []
    for part in parts.query.split("&") if parts.query else ():
        name, equals, value = part.partition("=")
        query.append(f"{name}={exchange(f'config.url.{_word(name)}', value)}" if equals else exchange("config.url.query", part))
    found: str = urlunsplit(parts._replace(netloc=user + at + address, query="&".join(query)))
    return found


def _noted(text: str, wanted: dict[str, None]) -> str:
    wanted.update(dict.fromkeys(_PLACEHOLDER.findall(text)))
    return text


def _filled(field: str, text: str, values: Mapping[str, str]) -> str:
    """In a url a value is written so that it stays what it is: no `&` of it begins another part, no `@` another host."""
    if field.startswith("config.url"):
        safe = ":" if field == "config.url.url_user" else ""
        return _PLACEHOLDER.sub(lambda found: quote(values[found[1]], safe=safe), text)
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _within(place: str, field: str) -> str:
    return field if field.startswith(place) else f"{place}.{field}"


def _raise(errors: Sequence[Mapping[str, Any]]) -> None:
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], errors=[dict(error) for error in errors])
