"""The members of a hot body, read one by one without a model: what goes to a server passes as the bytes it came in."""

import msgspec

from plughub.door.request import Request
from plughub.kit.errors import Invalid
from plughub.kit.strict_json import check_depth, members, utf8
from plughub.upstream.target import RawJson

MAX_TIMEOUT_MS = 300_000
_string = msgspec.json.Decoder(str)
_number = msgspec.json.Decoder(int | float)

Body = dict[str, bytes]


async def read_body(request: Request, known: frozenset[str], limit_bytes: int) -> Body:
    """The members of the body as raw JSON. Raises Invalid for one that is not known, and what reading a body raises."""
    raw = await request.json_body(limit_bytes)
    utf8(raw)
    check_depth(raw)
    body = members(raw)
    if not body.keys() <= known:
        field = next(name for name in body if name not in known)
        raise Invalid(field[:200], f"The '{field[:200]}' field is not known")
    return body


def object_field(body: Body, field: str, *, required: bool = False) -> RawJson:
    """A raw object; `{}` when it is not given. Raises Invalid."""
    raw = body.get(field)
    if raw is None:
        if required:
            raise Invalid(field, f"The '{field}' field is required")
        return b"{}"
    if raw[:1] != b"{":
        raise Invalid(field, f"The '{field}' field must be an object")
    return raw


def text_field(body: Body, field: str) -> str:
    """A string that must be there. Raises Invalid."""
    raw = body.get(field)
    if raw is None:
        raise Invalid(field, f"The '{field}' field is required")
    try:
        return _string.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise Invalid(field, f"The '{field}' field must be a string") from error


def timeout_field(body: Body, field: str, otherwise_s: float) -> float:
    """Milliseconds as seconds; `otherwise_s` when not given. Raises Invalid."""
    raw = body.get(field)
    if raw is None or raw == b"null":
        return otherwise_s
    try:
        timeout_ms: int | float = _number.decode(raw)
    except msgspec.DecodeError:
        timeout_ms = 0
    # 5000.0 is a whole number too, in JSON and in its schemas.
    if not 1 <= timeout_ms <= MAX_TIMEOUT_MS or timeout_ms != int(timeout_ms):
        text = f"The '{field}' field must be a whole number from 1 to {MAX_TIMEOUT_MS} milliseconds"
        raise Invalid(field, text, raw[:50].decode(errors="replace"))
    return timeout_ms / 1000
