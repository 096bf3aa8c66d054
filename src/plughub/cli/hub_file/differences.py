"""Where a hub is not as a file has it: in words, and as the change to send. Pure functions."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from plughub.servers.config import MASK, masked_url

Patch = dict[str, Any]
_SHOWN = 60
# What the API calls otherwise than the file.
_WORDS = {"project_uuid": "project", "profile_uuid": "profile", "profileUuid": "profile", "serverUuids": "servers", "isPublic": "public"}
_OPEN = ("command", "args", "call_timeout_ms", "start_timeout_ms")


def told(name: str, before: Any, after: Any) -> str:
    """One change in words."""
    return f"{name} {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def plain(
    now: Mapping[str, Any], wanted: Mapping[str, Any], name_of: Callable[[Any], Any] = lambda value: value
) -> tuple[list[str], Patch]:
    """Members that differ: in words, and as a patch. `name_of`: what a value is called in the file, where it is an id."""
    differing = {name: value for name, value in wanted.items() if not same(name, now.get(name), value)}
    words = [told(_WORDS.get(name, name), name_of(now.get(name)), name_of(value)) for name, value in differing.items()]
    return words, differing


def same(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a member mean the same."""
    if name == "expires_at" and isinstance(one, str) and isinstance(other, str):
        return bool(_time(one) == _time(other))
    if name in ("scopes", "events", "servers", "serverUuids") and isinstance(one, list) and isinstance(other, list):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if name == "allowed_ips" and one is not None and other is not None:
        return sorted(map(_network, one)) == sorted(map(_network, other))
    return bool(one == other)


def _time(text: str) -> Any:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return text


def config(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[list[str], list[str], dict[str, Any]]:
    """A server's configuration: changes in words, what the hub does not show and has to compare itself, and the patch.

    With any change, everything hidden is sent anew: stored secrets do not follow to another address or command.
    """
    changes, patch = plain(now, {name: wanted[name] for name in _OPEN if name in wanted})
    unseen: list[str] = []
    if "url" in wanted:
        _url(now.get("url", ""), wanted["url"], changes, unseen)
        patch["url"] = wanted["url"]
    for name in ("env", "headers"):
        if name in wanted:
            before = now.get(name) or {}
            changes += [f"{name}.{one} added" for one in wanted[name] if one not in before]
            changes += [f"{name}.{one} removed" for one in before if one not in wanted[name]]
            unseen += [f"{name}.{one}" for one in wanted[name] if one in before]
            patch[name] = {**dict.fromkeys(before), **wanted[name]}
    if "secret_args" in wanted:
        hidden = len(now.get("secret_args") or [])
        if hidden != len(wanted["secret_args"]):
            changes.append(told("secret_args", [MASK] * hidden, [MASK] * len(wanted["secret_args"])))
        elif hidden:
            unseen.append("secret_args")
        patch["secret_args"] = wanted["secret_args"]
    return changes, unseen, patch if changes or unseen else {}


def _url(before: str, after: str, changes: list[str], unseen: list[str]) -> None:
    try:
        shown = masked_url(after)
    except ValueError:
        shown = MASK  # no address: the hub says why
    if shown != before:
        changes.append(told("url", before, shown))
    elif MASK in shown:
        unseen.append("url")


def tools(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What a profile says of a server's tools: all of it is in the file."""
    before = {name: {word: value for word, value in said.items() if value is not None} for name, said in now.items()}
    after = {name: {word: value for word, value in said.items() if (word, value) != ("enabled", True)} for name, said in wanted.items()}
    after = {name: said for name, said in after.items() if said}
    changes = [
        told(f"tool {name}", before.get(name), after.get(name)) for name in {**before, **after} if before.get(name) != after.get(name)
    ]
    patch = {name: None for name in before if name not in after}
    return changes, {**patch, **{name: {**dict.fromkeys(before.get(name, ())), **said} for name, said in after.items()}}
