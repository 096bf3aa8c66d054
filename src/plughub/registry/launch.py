"""From a document and the values that somebody gives to a server that can be started or dialled: what is asked for, what comes of it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plughub.kit.errors import Conflict, Invalid
from plughub.registry.documents import BUILTIN, NPM, PYPI, at_home
from plughub.upstream.target import Transport

_PLACE = re.compile(r"\{([A-Za-z0-9_-]{1,64})\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# What a package runner is told that the hub, which has no runner, need not be told.
_WITHOUT_MEANING = frozenset({"-y", "--yes", "-q", "--quiet", "--from", "run"})
_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?((===|[<>=!~]=|<|>)[0-9][0-9A-Za-z.*+!]*(,|$))*")
_TRANSPORTS: Mapping[str, Transport] = {"streamable-http": "STREAMABLE_HTTP", "sse": "SSE"}
_CHECKS = {"number": re.compile(r"-?[0-9]+(\.[0-9]+)?"), "boolean": re.compile(r"true|false")}


@dataclass(frozen=True, slots=True)
class Input:
    """Something that the document leaves to whoever installs it. `label` is how it is given: `env.<label>` in the request."""

    label: str
    required: bool
    secret: bool
    description: str
    default: str | None
    choices: tuple[str, ...]
    form: str


@dataclass(frozen=True, slots=True)
class Package:
    """What is to be downloaded, pinned. `extras`: further requirements that the document pins (`--with` of its runner)."""

    kind: str
    identifier: str
    version: str
    extras: tuple[str, ...] = ()
    integrity: str | None = None


@dataclass(slots=True)
class Plan:
    """How a server comes of a document: from a package (or the hub itself), else at an address."""

    transport: Transport
    package: Package | None = None
    args: list[str] = field(default_factory=list)
    secret_args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def choose(document: Mapping[str, Any], *, stdio: bool) -> Mapping[str, Any]:
    """What of the document is used: its first package that the hub can install, else its first remote; without `stdio` the remote first.

    Raises Conflict in words when the hub can run none of it.
    """
    packages = [package for package in document.get("packages") or () if reason_against(package) is None]
    remotes = list(document.get("remotes") or ())
    ways = [*packages, *remotes] if stdio else [*remotes, *packages]
    if ways:
        found: Mapping[str, Any] = ways[0]
        return found
    reasons = [reason for package in document.get("packages") or () if (reason := reason_against(package))]
    text = reasons[0] if reasons else "its document names no package and no address"
    raise Conflict(f"The server cannot be installed: {text}", hint="Register it by hand: POST /api/servers")


def reason_against(package: Mapping[str, Any]) -> str | None:
    """Why the hub does not install the package, or None."""
    kind = package["registryType"]
    if kind == BUILTIN:
        return None
    if kind not in (NPM, PYPI):
        return f"packages of the kind {kind} are not supported"
    if package["transport"]["type"] != "stdio":
        return "the package is a server of its own, with an address: start it, and register the address"
    if not at_home(package):
        return "the package comes from a registry of its own"
    for argument in package.get("runtimeArguments") or ():
        if _runner_word(argument) == "--with" and kind == PYPI and _REQUIREMENT.fullmatch(argument.get("value") or ""):
            continue
        if _runner_word(argument) not in _WITHOUT_MEANING:
            return "the package needs arguments of its runner that the hub has not"
    return None


def inputs_of(way: Mapping[str, Any]) -> list[Input]:
    """What may be given, in the order of the document."""
    return list({found.label: found for _, found in _inputs(way)}.values())


def plan(way: Mapping[str, Any], given: Mapping[str, str], integrity: str | None = None) -> Plan:
    """The server of a package or remote with the values given. Raises Invalid, naming each value that is missing or wrong."""
    values = _values(way, given)
    if "registryType" not in way:
        headers = {header["name"]: text for header in way.get("headers") or () if (text := _filled(header, header["name"], values))}
        url = _PLACE.sub(lambda place: values.get(place[1], place[0]), way["url"])
        return Plan(_TRANSPORTS[way["type"]], url=url, headers=headers)
    made = Plan("STDIO", package=_package(way, integrity))
    for number, argument in enumerate(way.get("packageArguments") or ()):
        words = _words(argument, number, values)
        # Secret arguments follow the others on the command line: from the first one on all do, so that the order stays.
        (made.secret_args if made.secret_args or (words and _secret(argument)) else made.args).extend(words)
    for variable in way.get("environmentVariables") or ():
        if text := _filled(variable, variable["name"], values):
            made.env[variable["name"]] = text
    known = {found.label for found in inputs_of(way)}
    made.env |= {name: text for name, text in values.items() if name not in known}
    return made


def _package(way: Mapping[str, Any], integrity: str | None) -> Package:
    extras = [argument["value"] for argument in way.get("runtimeArguments") or () if _runner_word(argument) == "--with"]
    if way["registryType"] == PYPI and isinstance(way.get("fileSha256"), str):
        integrity = f"sha256-{way['fileSha256'].lower()}"  # whoever installs it must compare it, says the schema
    return Package(way["registryType"], way["identifier"], way["version"], tuple(extras), integrity)


def _values(way: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """What is given and what is by default, by label. Raises Invalid."""
    errors, values = [], dict(given)
    inputs = inputs_of(way)
    for found in inputs:
        text = given.get(found.label, found.default)
        if text is not None:
            values[found.label] = text
        if found.required and not text:
            words = f": {found.description}" if found.description else ""
            errors.append({"field": f"env.{found.label}", "message": f"The 'env.{found.label}' field is required{words}"})
        elif text and (wrong := _wrong(found, text)):
            errors.append({"field": f"env.{found.label}", "message": f"The 'env.{found.label}' field is {wrong}"})
    free = "registryType" in way  # a command may read variables that its document does not name
    for name in given.keys() - {found.label for found in inputs}:
        if not free or _VARIABLE.fullmatch(name) is None:
            errors.append({"field": f"env.{name[:100]}", "message": f"The 'env.{name[:100]}' field is not known"})
    if errors:
        raise Invalid(errors[0]["field"], errors[0]["message"], errors=errors)
    return values


def _wrong(found: Input, text: str) -> str | None:
    if found.choices and text not in found.choices:
        return f"none of {', '.join(found.choices)}"
    pattern = _CHECKS.get(found.form)
    return f"not a {found.form}" if pattern is not None and pattern.fullmatch(text) is None else None


def _inputs(way: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Input]]:
    holders = [(argument, _label(argument, number)) for number, argument in enumerate(way.get("packageArguments") or ())]
    holders += [(found, found["name"]) for member in ("environmentVariables", "headers") for found in way.get(member) or ()]
    for name, variable in (way.get("variables") or {}).items():
        yield variable, _input(variable, name)
    for holder, label in holders:
        for name, variable in (holder.get("variables") or {}).items():
            yield variable, _input(variable, name)
        if holder.get("value") is None and not _bare(holder):
            yield holder, _input(holder, label)


def _input(holder: Mapping[str, Any], label: str) -> Input:
    default = holder.get("value") if holder.get("value") is not None else holder.get("default")
    return Input(
        label=label,
        required=bool(holder.get("isRequired")),
        secret=bool(holder.get("isSecret")),
        description=holder.get("description") or "",
        default=default,
        choices=tuple(holder.get("choices") or ()),
        form=holder.get("format") or "string",
    )


def _label(argument: Mapping[str, Any], number: int) -> str:
    """The name that an argument is given by: its hint, or its own name without dashes."""
    if argument["type"] == "named":
        return str(argument["name"]).lstrip("-") or f"argument_{number + 1}"
    return argument.get("valueHint") or f"argument_{number + 1}"


def _bare(holder: Mapping[str, Any]) -> bool:
    """A named argument that stands alone on the command line."""
    asking = ("valueHint", "default", "isRequired", "choices", "format", "placeholder")
    return holder.get("type") == "named" and not any(holder.get(member) for member in asking)


def _words(argument: Mapping[str, Any], number: int, values: Mapping[str, str]) -> list[str]:
    if _bare(argument) and argument.get("value") is None:
        return [argument["name"]]
    text = _filled(argument, _label(argument, number), values)
    if not text:
        return []
    return [argument["name"], text] if argument["type"] == "named" else [text]


def _filled(holder: Mapping[str, Any], label: str, values: Mapping[str, str]) -> str:
    """The text of one: the document's own with its variables replaced, else what is given."""
    own = holder.get("value")
    if own is None:
        return values.get(label, "")
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), own)


def _secret(argument: Mapping[str, Any]) -> bool:
    return bool(argument.get("isSecret")) or any(variable.get("isSecret") for variable in (argument.get("variables") or {}).values())


def _runner_word(argument: Mapping[str, Any]) -> str:
    return str(argument.get("name") if argument["type"] == "named" else argument.get("value") or "")
