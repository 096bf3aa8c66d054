"""What `server.json` says, judged: a document of a registry comes from a stranger (the official schema of 2025-12-11; CONTRACT section 6).

Unknown members stay; what the hub reads itself has a form, a bound and no tricks in it: names are ASCII, versions are exact, nothing that
ends on a command line can be taken for an option or a path, and an address of a foreign document leads to no private network.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from plughub.kit.dial import refusal
from plughub.kit.errors import Invalid

SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
MAX_BYTES: Final = 64 * 1024
REMOTE: Final = "remote"
BUILTIN: Final = "builtin"
# The packages that the hub can install; the others are shown.
NPM, PYPI = "npm", "pypi"
_KINDS = (NPM, PYPI, "cargo", "oci", "nuget", "mcpb")
_NAME = re.compile(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,254}")
_IDENTIFIERS = {
    NPM: re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*"),
    PYPI: re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
}
_ANY_IDENTIFIER = re.compile(r"[A-Za-z0-9@][!-~]*")
_EXACT = re.compile(r"[0-9][0-9A-Za-z.+!-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# Where the packages of a kind are when the document does not say; packages of another place are not installed.
_HOMES = {NPM: ("registry", "npmjs", "org"), PYPI: ("pypi", "org")}
_INSIDE = (".localhost", ".local", ".internal", ".home.arpa")
_MOST = 20
_MOST_INPUTS = 100
_MAX_TEXT = 4096
_TRANSPORTS = ("stdio", "streamable-http", "sse")


@dataclass(frozen=True, slots=True)
class Listing:
    """A document that was judged, and what lists show of it. `transports`: stdio, streamable-http, sse, in the document's order."""

    name: str
    version: str
    title: str
    description: str
    author: str
    package_type: str
    transports: tuple[str, ...]
    repository: str
    document: Mapping[str, Any]

    @property
    def short_name(self) -> str:
        """The last part of the name, in lower case."""
        return self.name.rpartition("/")[2].lower()


def read_document(value: Any, *, foreign: bool, prefix: str = "") -> Listing:
    """The listing of a `server.json`. `foreign`: it is not of this hub, so it leads to no private address. Raises Invalid."""
    document = _object(value, prefix or "server")
    at = f"{prefix}." if prefix else ""
    try:
        size = len(json.dumps(document, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:  # a lone surrogate
        raise Invalid(prefix or "server", "The document cannot be written as JSON") from error
    if size > MAX_BYTES:
        raise Invalid(prefix or "server", f"The document has more than {MAX_BYTES} bytes")
    name = _name(document.get("name"), at + "name")
    version = _matched(document.get("version"), at + "version", _VERSION, "an exact version")
    if version.lower() == "latest":
        raise Invalid(at + "version", f"The '{at}version' field is not an exact version", version)
    packages = _list(document, "packages", at)
    remotes = _list(document, "remotes", at)
    for number, package in enumerate(packages):
        _check_package(_object(package, f"{at}packages.{number}"), f"{at}packages.{number}", foreign=foreign)
    for number, remote in enumerate(remotes):
        _check_remote(_object(remote, f"{at}remotes.{number}"), f"{at}remotes.{number}", foreign=foreign)
    repository = document.get("repository")
    address = (
        "" if repository is None else _text(_object(repository, at + "repository").get("url", ""), at + "repository.url", 2048, least=0)
    )
    if address:
        _web_address(address, at + "repository.url")
    kinds = [package["transport"]["type"] for package in packages] + [remote["type"] for remote in remotes]
    return Listing(
        name=name,
        version=version,
        title=_text(document.get("title") or name.rpartition("/")[2], at + "title", 100),
        description=_text(document.get("description"), at + "description", 100),
        author=author_of(name),
        package_type=packages[0]["registryType"] if packages else REMOTE if remotes else "",
        transports=tuple(dict.fromkeys(kinds)),
        repository=address,
        document=document,
    )


def author_of(name: str) -> str:
    """Whose namespace a name is in: the account of `io.github.account/server`, else the namespace itself."""
    namespace = name.partition("/")[0]
    for code_host in ("io.github.", "com.github.", "io.gitlab.", "com.gitlab."):
        if namespace.startswith(code_host) and len(namespace) > len(code_host):
            return namespace.removeprefix(code_host)
    return namespace


def at_home(package: Mapping[str, Any]) -> bool:
    """Whether the package comes from where packages of its kind come from by default."""
    base = package.get("registryBaseUrl")
    return base is None or tuple((urlsplit(base).hostname or "").split(".")) == _HOMES.get(package["registryType"])


def _name(value: Any, field: str) -> str:
    name = _matched(value, field, _NAME, "a name like io.github.somebody/server")
    if not 3 <= len(name) <= 200 or any(not part.strip(".-_") for part in name.split("/")):
        raise Invalid(field, f"The '{field}' field is not a name like io.github.somebody/server", name[:200])
    return name


def _check_package(package: Mapping[str, Any], at: str, *, foreign: bool) -> None:
    kind = package.get("registryType")
    if kind not in _KINDS:
        raise Invalid(f"{at}.registryType", f"The '{at}.registryType' field is none of {', '.join(_KINDS)}", _shown(kind))
    identifier = _matched(
        package.get("identifier"), f"{at}.identifier", _IDENTIFIERS.get(kind, _ANY_IDENTIFIER), f"the name of a {kind} package"
    )
    if len(identifier) > (214 if kind in _IDENTIFIERS else 500) or ".." in identifier:
        raise Invalid(f"{at}.identifier", f"The '{at}.identifier' field is not the name of a {kind} package", identifier[:200])
    if kind in _IDENTIFIERS or "version" in package:
        pattern = _EXACT if kind in _IDENTIFIERS else _VERSION
        version = _matched(package.get("version"), f"{at}.version", pattern, "an exact version")
        if len(version) > 255 or version.lower() == "latest":
            raise Invalid(f"{at}.version", f"The '{at}.version' field is not an exact version", version[:200])
    if package.get("registryBaseUrl") is not None:
        _web_address(_text(package["registryBaseUrl"], f"{at}.registryBaseUrl", 2048), f"{at}.registryBaseUrl", foreign=foreign)
    transport = _object(package.get("transport"), f"{at}.transport")
    _choice(transport.get("type"), f"{at}.transport.type", _TRANSPORTS)
    for member in ("runtimeArguments", "packageArguments"):
        for number, argument in enumerate(_list(package, member, f"{at}.", _MOST_INPUTS)):
            _check_argument(_object(argument, f"{at}.{member}.{number}"), f"{at}.{member}.{number}")
    _check_named(package, "environmentVariables", at, _VARIABLE, "the name of an environment variable")


def _check_argument(argument: Mapping[str, Any], at: str) -> None:
    _choice(argument.get("type"), f"{at}.type", ("positional", "named"))
    if argument["type"] == "named":
        _text(argument.get("name"), f"{at}.name", 200)
    elif argument.get("value") is None and not argument.get("valueHint"):
        raise Invalid(f"{at}.value", f"The '{at}.value' field is required, or 'valueHint'")
    _check_input(argument, at)


def _check_remote(remote: Mapping[str, Any], at: str, *, foreign: bool) -> None:
    _choice(remote.get("type"), f"{at}.type", _TRANSPORTS[1:])
    _web_address(_text(remote.get("url"), f"{at}.url", 2048), f"{at}.url", foreign=foreign)
    _check_named(remote, "headers", at, re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}"), "the name of a header")
    for name, variable in _object(remote.get("variables") or {}, f"{at}.variables").items():
        _check_input(_object(variable, f"{at}.variables.{name[:50]}"), f"{at}.variables.{name[:50]}")


def _check_named(holder: Mapping[str, Any], member: str, at: str, pattern: re.Pattern[str], what: str) -> None:
    for number, found in enumerate(_list(holder, member, f"{at}.", _MOST_INPUTS)):
        one = _object(found, f"{at}.{member}.{number}")
        _matched(one.get("name"), f"{at}.{member}.{number}.name", pattern, what)
        _check_input(one, f"{at}.{member}.{number}")


def _check_input(found: Mapping[str, Any], at: str, depth: int = 0) -> None:
    """`Input` of the schema: texts are texts, switches are switches, choices are a list of texts."""
    for member in ("value", "default", "valueHint", "description", "placeholder", "format"):
        if found.get(member) is not None:
            _text(found[member], f"{at}.{member}", _MAX_TEXT, least=0)
    for member in ("isRequired", "isSecret", "isRepeated"):
        if not isinstance(found.get(member, False), bool):
            raise Invalid(f"{at}.{member}", f"The '{at}.{member}' field is neither true nor false", _shown(found[member]))
    for number, choice in enumerate(_list(found, "choices", f"{at}.", _MOST_INPUTS)):
        _text(choice, f"{at}.choices.{number}", _MAX_TEXT, least=0)
    variables = _object(found.get("variables") or {}, f"{at}.variables")
    if depth and variables:
        raise Invalid(f"{at}.variables", "A variable has no variables of its own")
    for name, variable in variables.items():
        _check_input(_object(variable, f"{at}.variables.{name[:50]}"), f"{at}.variables.{name[:50]}", depth + 1)


def _web_address(url: str, field: str, *, foreign: bool = True) -> None:
    """`{variables}` may stand in it; where they stand for the host, the dialler judges what comes of it."""
    plain = re.sub(r"\{[A-Za-z0-9_-]{1,64}\}", "x", url)
    try:
        parts = urlsplit(plain)
        _ = parts.port
    except ValueError as error:
        raise Invalid(field, f"The '{field}' field is not a URL", url[:200]) from error
    fine = plain.isascii() and plain.isprintable() and " " not in plain and "\\" not in plain
    if not fine or parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment:
        raise Invalid(field, f"The '{field}' field is not an http or https URL of a host, without user and fragment", url[:200])
    if foreign and (reason := _inside(parts.hostname)):
        raise Invalid(field, f"The '{field}' field leads inside: {reason}", url[:200])


def _inside(host: str) -> str | None:
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(_INSIDE):
        return "names of this machine and of private networks are not for others"
    try:
        ip_address(host)
    except ValueError:
        # A resolver reads 0x7f.1 and 2130706433 as addresses.
        return "it is a number" if re.fullmatch(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+))*", host) else None
    return refusal(host, ())


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Invalid(field, f"The '{field}' field is required" if value is None else f"The '{field}' field is not an object")
    return value


def _list(holder: Mapping[str, Any], member: str, at: str, most: int = _MOST) -> list[Any]:
    found = holder.get(member)
    if found is None:
        return []
    if not isinstance(found, list) or len(found) > most:
        raise Invalid(at + member, f"The '{at}{member}' field is not a list of at most {most}")
    return found


def _choice(value: Any, field: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Invalid(field, f"The '{field}' field is none of {', '.join(known)}", _shown(value))


def _matched(value: Any, field: str, pattern: re.Pattern[str], what: str) -> str:
    if value is None:
        raise Invalid(field, f"The '{field}' field is required")
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise Invalid(field, f"The '{field}' field is not {what}", _shown(value))
    return value


def _text(value: Any, field: str, most: int, *, least: int = 1) -> str:
    """A text that shows what it holds: no control characters, and none that turn the writing round."""
    if value is None:
        raise Invalid(field, f"The '{field}' field is required")
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise Invalid(field, f"The '{field}' field is not a text of {least} to {most} characters", _shown(value))
    if any(unicodedata.category(character) in ("Cc", "Cs", "Cf") and character not in "\n\t" for character in value):
        raise Invalid(field, f"The '{field}' field has characters that do not show")
    return value


def _shown(value: Any) -> Any:
    return value[:200] if isinstance(value, str) else None if value is None else f"<{type(value).__name__}>"
