"""A server's configuration: what is shown of it, how a change is merged in, and its slug. Pure functions.

The stored form is `{command, args, env, secret_args}` for STDIO (`secret_args` follow `args` on the command line) and
`{url, headers}` for the others, and for both, where given, `call_timeout_ms` and `start_timeout_ms`. Shown as `***`: every value
of env and headers, secret_args, userinfo and query of the url.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from plughub.kit.errors import Invalid

MASK = "***"
SLUG_LENGTH = 24
_HIDDEN_MAPS = ("env", "headers")
TIMES = ("call_timeout_ms", "start_timeout_ms")
_PORTS = {"http": 80, "https": 443}


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without its secrets; what has none is unchanged."""
    shown = dict(config)
    for name in _HIDDEN_MAPS:
        if name in shown:
            shown[name] = dict.fromkeys(shown[name], MASK)
    if "secret_args" in shown:
        shown["secret_args"] = [MASK] * len(shown["secret_args"])
    if "url" in shown:
        shown["url"] = masked_url(shown["url"])
    return shown


def masked_url(url: str) -> str:
    """The url with `***` for its userinfo and for every value of its query (a part without `=` is a value)."""
    if "@" not in url and "?" not in url:  # taking it apart costs as much as all else about a server in a list
        return url
    parts = urlsplit(url)
    userinfo, at, address = parts.netloc.rpartition("@")
    query = "&".join(_masked_part(part) for part in parts.query.split("&")) if parts.query else ""
    return urlunsplit(parts._replace(netloc=(MASK if userinfo else "") + at + address, query=query))


def merge(current: Any, patch: Any) -> Any:
    """RFC 7386: objects merge, null removes, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(current) if isinstance(current, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def unmasked(config: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with every `***` replaced by the secret that is stored in its place. Raises Invalid where there is none."""
    clear = dict(config)
    for name in _HIDDEN_MAPS:
        if name in clear:
            kept = stored.get(name, {})
            clear[name] = {key: _kept(f"config.{name}.{key}", value, kept.get(key)) for key, value in clear[name].items()}
    if "secret_args" in clear:
        old: Sequence[str] = stored.get("secret_args", ())
        clear["secret_args"] = [
            _kept(f"config.secret_args[{at}]", value, old[at] if at < len(old) else None) for at, value in enumerate(clear["secret_args"])
        ]
    if MASK in clear.get("url", ""):
        clear["url"] = _unmasked_url(clear["url"], stored.get("url", ""))
    return clear


def require_secrets_anew(stored: Mapping[str, Any], config: Mapping[str, Any], patch: Mapping[str, Any]) -> None:
    """Refuse to take stored secrets along when `config` goes to another address, or runs another command, than `stored`.

    `config` is valid, its masks not yet replaced; `patch` is what the sender wrote of it. Whoever may change a server may not read
    its secrets, so it must not choose where they are sent: each is given again in `patch`, or removed with null. Raises Invalid
    naming every field.
    """
    if _destination(config) == _destination(stored):
        return
    wrong = []
    for name in _HIDDEN_MAPS:
        given = patch.get(name) or {}
        if any(value == MASK or key not in given for key, value in config.get(name, {}).items()):
            wrong.append(f"config.{name}")
    arguments = config.get("secret_args", ())
    if arguments and (MASK in arguments or "secret_args" not in patch):
        wrong.append("config.secret_args")
    if _has_mask(config.get("url", "")):
        wrong.append("config.url")
    if wrong:
        what = "command" if "command" in config else "address"
        errors = [
            {"field": field, "message": f"The {what} changes, so the secrets in '{field}' must be given again, or removed with null"}
            for field in wrong
        ]
        raise Invalid(wrong[0], errors[0]["message"], errors=errors)


def dialled(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the configuration a running connection was made with: all but the times."""
    return {name: value for name, value in config.items() if name not in TIMES}


def slugify(name: str, taken: Collection[str], otherwise: str = "server") -> str:
    """`[a-z0-9]+(-[a-z0-9]+)*` of at most 24 characters made from a name, with -2, -3, … when it is taken.

    `otherwise` stands for a name without a letter or digit of ASCII.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = slug_base(re.sub(r"[^a-z0-9]+", "-", ascii_name), "") or otherwise
    slug, number = base, 1
    while slug in taken:
        number += 1
        slug = slug_base(base, f"-{number}")
    return slug


def slug_base(text: str, ending: str) -> str:
    """`text` cut so that `ending` fits within the length of a slug."""
    return text.strip("-")[: SLUG_LENGTH - len(ending)].rstrip("-") + ending


def _destination(config: Mapping[str, Any]) -> tuple[str | int | None, ...]:
    """The command, or scheme, host and port of the url: who gets to see the secrets."""
    if "url" not in config:
        return (config.get("command"),)
    parts = urlsplit(config["url"])
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _has_mask(url: str) -> bool:
    parts = urlsplit(url)
    query = parts.query.split("&") if parts.query else ()
    return parts.netloc.rpartition("@")[0] == MASK or any(part == _masked_part(part) for part in query)


def _masked_part(part: str) -> str:
    name, equals, _ = part.partition("=")
    return name + "=" + MASK if equals else MASK


def _kept(field: str, value: Any, stored: str | None) -> Any:
    if value != MASK:
        return value
    if stored is None:
        raise Invalid(field, f"The '{field}' field is {MASK}, but there is no stored secret to keep", value)
    return stored


def _unmasked_url(url: str, stored: str) -> str:
    parts, old = urlsplit(url), urlsplit(stored)
    userinfo, at, address = parts.netloc.rpartition("@")
    if userinfo == MASK:
        userinfo = _kept("config.url", MASK, old.netloc.rpartition("@")[0] or None)
    values: dict[str, list[str]] = {}
    for part in old.query.split("&") if old.query else ():
        values.setdefault(_masked_part(part), []).append(part)
    query = []
    for part in parts.query.split("&") if parts.query else ():
        if part == _masked_part(part):
            # The n-th `name=***` stands for the n-th stored value of that name.
            same = values.get(part)
            query.append(_kept("config.url", MASK, same.pop(0) if same else None))
        else:
            query.append(part)
    return urlunsplit(parts._replace(netloc=userinfo + at + address, query="&".join(query)))
