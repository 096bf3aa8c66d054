"""What comes in at `/oauth`: parameters as a form or as JSON, and how a client says who it is."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from plughub.door.request import Request
from plughub.kit import strict_json
from plughub.oauth.clients import Presented
from plughub.oauth.errors import InvalidClient, InvalidRequest

FORM = "application/x-www-form-urlencoded"
MAX_BYTES = 64 * 1024
_MAX_FIELDS = 300
_KNOWN = frozenset(
    {"grant_type", "client_id", "client_secret", "code", "redirect_uri", "code_verifier", "refresh_token", "device_code"}
    | {"scope", "resource", "token", "token_type_hint"}
)
_MANY = ("resource", "server")  # the only parameters that may come more than once (RFC 8707; the list of our own page)


@dataclass(frozen=True, slots=True)
class Fields:
    """Parameters; an empty one is one that is not there (RFC 6749 section 3.1)."""

    values: Mapping[str, str]
    lists: Mapping[str, list[str]]

    def find(self, name: str) -> str | None:
        """The value of a parameter."""
        return self.values.get(name)

    def get(self, name: str) -> str:
        """The value of a parameter that must be there. Raises InvalidRequest."""
        value = self.values.get(name)
        if value is None:
            raise InvalidRequest(f"The parameter {name} is missing")
        return value

    def all(self, name: str) -> list[str]:
        """Every value of one that may come more than once."""
        return self.lists.get(name, [])


async def read_fields(request: Request) -> Fields:
    """The parameters of a body, which is a form or JSON. Raises InvalidRequest, Malformed, PayloadTooLarge."""
    body = await request.body(MAX_BYTES)
    kind = request.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower().decode("latin-1")
    if kind == "application/json":
        return _gathered(_json_pairs(strict_json.loads(body, limit_bytes=MAX_BYTES)))
    if kind == FORM:
        return read_query(body)
    raise InvalidRequest(f"Send {FORM} or application/json")


async def read_form(request: Request) -> Fields:
    """The parameters of a form of our own pages. Raises InvalidRequest, PayloadTooLarge."""
    if request.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() != FORM.encode():
        raise InvalidRequest(f"Send {FORM}")
    return read_query(await request.body(MAX_BYTES))


async def read_object(request: Request) -> Mapping[str, Any]:
    """The members of a body that must be a JSON object. Raises InvalidRequest, Malformed, UnsupportedMediaType, PayloadTooLarge."""
    found = strict_json.loads(await request.json_body(MAX_BYTES), limit_bytes=MAX_BYTES)
    if not isinstance(found, dict):
        raise InvalidRequest("The body must be an object")
    return found


def read_query(query: bytes) -> Fields:
    """The parameters of a query string or a form. Raises InvalidRequest."""
    try:
        return _gathered(parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS))
    except ValueError as error:
        raise InvalidRequest("The parameters cannot be read") from error


def read_client(request: Request, fields: Fields) -> Presented:
    """How the client says who it is: by the Authorization header, in the body, or by its id alone. Raises InvalidRequest, InvalidClient."""
    header = request.headers.get(b"authorization")
    client_id, secret = fields.find("client_id"), fields.find("client_secret")
    if header is None:
        if client_id is None:
            raise InvalidClient("The client says nothing of who it is")
        return Presented(client_id, secret)
    name, password = _basic(header)
    if secret is not None or client_id not in (None, name):
        raise InvalidRequest("The client says who it is in two ways")
    return Presented(name, password)


def _basic(header: bytes) -> tuple[str, str]:
    try:
        if header[:6].lower() != b"basic ":
            raise ValueError("another scheme")
        name, colon, password = base64.b64decode(header[6:].strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
    except (ValueError, binascii.Error) as error:
        raise InvalidClient("The Authorization header must be: Basic <client id:secret>") from error
    return unquote_plus(name), unquote_plus(password)


def _json_pairs(found: Any) -> Iterable[tuple[str, str]]:
    if not isinstance(found, dict):
        raise InvalidRequest("The body must be an object")
    for name, value in found.items():
        if name not in _KNOWN:  # whatever it is (RFC 6749 section 3.2)
            continue
        for item in value if isinstance(value, list) and name in _MANY else [value]:
            if item is None:
                continue
            if not isinstance(item, str):
                raise InvalidRequest(f"The parameter {name[:50]} must be a text")
            yield name, item


def _gathered(pairs: Iterable[tuple[str, str]]) -> Fields:
    values: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        if "\0" in value:
            raise InvalidRequest(f"The parameter {name[:50]} holds a NUL")
        if not value:
            continue
        if name in _MANY:
            lists.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidRequest(f"The parameter {name[:50]} came more than once")
        else:
            values[name] = value
    return Fields(values, lists)
