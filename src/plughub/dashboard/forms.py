"""What a browser sends in a form, and where it may be led afterwards."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from plughub.door.request import Request
from plughub.gateway.cookies import Cookies
from plughub.kit.errors import Malformed, UnsupportedMediaType

_LIMIT_BYTES = 64 * 1024
_MAX_FIELDS = 100
_MAX_VALUE = 1000
# The address to come back to after a login may be that of an authorization request.
_NEXT = "next"
_MAX_NEXT = 8000
_FORM = b"application/x-www-form-urlencoded"


async def read_form(request: Request, cookies: Cookies) -> Mapping[str, str]:
    """The fields of a form of ours, which none of another site is. Raises Forbidden, UnsupportedMediaType, Malformed, PayloadTooLarge."""
    cookies.check_origin(request)
    if request.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() != _FORM:
        raise UnsupportedMediaType
    return _fields(await request.body(_LIMIT_BYTES))


def read_query(request: Request) -> Mapping[str, str]:
    """The fields of the address. Raises Malformed."""
    return _fields(request.scope["query_string"])


def local_path(text: str) -> str | None:
    """Where to go after a login, if that is a page of ours: a path, of which no browser makes another host."""
    ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable() and "\\" not in text
    return text if ours else None


def _fields(encoded: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(encoded.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise Malformed("The form cannot be read") from error
    fields = dict(pairs)
    if any(len(value) > (_MAX_NEXT if name == _NEXT else _MAX_VALUE) or "\0" in value for name, value in fields.items()):
        raise Malformed("A field of the form cannot be read")
    return fields
