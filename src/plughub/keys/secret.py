"""The form of an API key: `{pk|sk}_{live|test}_ph_` + 32 random base62 + 6 base62 CRC32 of all before it. Source: CONTRACT section 3."""

import re
import secrets
import zlib
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from plughub.kit.caller import Environment, KeyKind
from plughub.kit.ids import ALPHABET, base62

LENGTH = 49
PREFIX_LENGTH = 15
_RANDOM = 32
_CHECKSUM = 6
_BODY = LENGTH - _CHECKSUM

_form = re.compile(r"[ps]k_(?:live|test)_ph_[0-9A-Za-z]{38}")
_secret_key = re.compile(rb"(?<![0-9A-Za-z])sk_(?:live|test)_ph_[0-9A-Za-z]{38}")
_begin = re.compile(r"[ps]k_(?:live|test)_")
_value = {character: number for number, character in enumerate(ALPHABET)}
_kinds: dict[str, KeyKind] = {"pk": "public", "sk": "secret"}
_letters: dict[KeyKind, str] = {"public": "pk", "secret": "sk"}
_environments: dict[str, Environment] = {"live": "live", "test": "test"}

NO_HEADER = "Send the header: Authorization: Bearer <API key>"
NO_BEARER = "The Authorization header must begin with 'Bearer ' followed by the API key"
NO_KEY = "There is no API key after 'Bearer '"
SPACES = "Remove the whitespace around or inside the API key"
QUOTES = "Remove the quotes around the API key"
NOT_A_KEY = "This is not an API key of this hub: keys begin with pk_live_, pk_test_, sk_live_ or sk_test_"
INCOMPLETE = "The API key is incomplete or mistyped: its checksum does not match. Copy it again, all 49 characters"


class Parsed(NamedTuple):
    """What a key says about itself."""

    kind: KeyKind
    environment: Environment


def generate(kind: KeyKind, environment: Environment) -> str:
    """A new key, 190 random bits."""
    body = f"{_letters[kind]}_{environment}_ph_" + "".join(secrets.choice(ALPHABET) for _ in range(_RANDOM))
    return body + base62(zlib.crc32(body.encode()), _CHECKSUM)


def parse(secret: str) -> Parsed | None:
    """What the key says when its form and checksum are right, else None. Not a proof of anything: it keeps typos and scans
    away from the database."""
    if len(secret) != LENGTH or _form.fullmatch(secret) is None:
        return None
    checksum = 0
    for character in secret[_BODY:]:
        checksum = checksum * 62 + _value[character]
    if checksum != zlib.crc32(secret[:_BODY].encode()):
        return None
    return Parsed(_kinds[secret[:2]], _environments[secret[3:7]])


def holds_secret_key(query: bytes) -> bool:
    """Whether a query string holds what looks like a whole secret key."""
    return _secret_key.search(unquote_to_bytes(query) if b"%" in query else query) is not None


def defect_of(authorization: bytes | str | None) -> tuple[str | None, str]:
    """What is wrong with an Authorization header that gave no good key: the readable prefix (`pk_live_`) or None, and a sentence.

    The sentence never repeats what was sent.
    """
    if authorization is None:
        return None, NO_HEADER
    text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization
    if not text.strip():
        return None, NO_HEADER
    scheme, _, rest = text.strip().partition(" ")
    if scheme.lower() not in ("bearer", "apikey"):
        return _prefix_of(scheme), NO_BEARER
    bare = rest.strip().strip("\"'").strip()
    prefix = _prefix_of(bare)
    if not bare:
        return None, NO_KEY
    if any(quote in rest for quote in "\"'"):
        return prefix, QUOTES
    if rest != bare or re.search(r"\s", rest):
        return prefix, SPACES
    return prefix, INCOMPLETE if prefix else NOT_A_KEY


def _prefix_of(text: str) -> str | None:
    found = _begin.match(text.strip("\"'"))
    return found.group() if found else None
