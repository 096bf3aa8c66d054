"""Taking a server's secrets out of what it writes."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from plughub.upstream.target import Target

HIDDEN = "***"
# Shorter values ("1", "true", "debug") are no secrets, and replacing them would make every line unreadable.
SHORTEST = 8
# What a URL may hold without an escape; `http_address` sends it so.
_URL_SAFE = "/%:@!$&'()*+,;=~-._?"


class Redactor:
    """Replaces the values of `env`, `headers`, `secret_args`, and of the url's userinfo and query by `***`.

    Each is known as it stands, line by line, and as JSON, URLs, Basic authorization and Latin-1 write it. Whoever cuts a text hands
    over `reach` bytes more than are kept: a secret that goes over the cut is then hidden whole.
    """

    __slots__ = ("_secrets", "reach")

    def __init__(self, target: Target) -> None:
        secrets = {form for secret in _secrets(target) for form in _forms(secret)}
        self._secrets = sorted(secret for secret in secrets if len(secret) >= SHORTEST)
        self.reach = max((len(secret.encode(errors="surrogatepass")) for secret in self._secrets), default=0)

    def __call__(self, text: str, most: int | None = None) -> str:
        """`text`, of which only the first `most` characters are shown, without secrets."""
        spans = [span for secret in self._secrets if secret in text for span in _spans(text, secret)]
        if not spans:
            return text if most is None else text[:most]
        most = len(text) if most is None else most
        shown: list[str] = []
        at = 0
        for start, end in sorted(spans):
            if start >= most:
                break
            if start >= at:
                shown += (text[at:start], HIDDEN)
            at = max(at, end)
        shown.append(text[at:most])
        return "".join(shown)

    def head(self, data: bytes, most: int) -> str:
        """The first `most` bytes as text, without secrets."""
        return self(data[: most + self.reach].decode("utf-8", "replace"), len(data[:most].decode("utf-8", "replace")))


def _spans(text: str, secret: str) -> Iterator[tuple[int, int]]:
    at = text.find(secret)
    while at >= 0:
        yield at, at + len(secret)
        at = text.find(secret, at + 1)


def _secrets(target: Target) -> Iterator[str]:
    """The secrets as they stand, and the parts of them that are secrets by themselves."""
    for value in (*target.env.values(), *target.secret_args):
        yield from _parts(value)
        yield value.partition("=")[2]  # `--token=<token>`
    yield from _of_headers(target.headers)
    if target.url:
        yield from _of_url(target.url)


def _parts(value: str) -> Iterator[str]:
    yield value
    yield from map(str.strip, value.splitlines())
    if "://" in value:  # the address of a database with its password
        yield from _of_url(value)


def _of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        yield from _parts(value)
        scheme, _, rest = value.strip().partition(" ")
        yield rest.strip()  # `Bearer <token>`
        if scheme.lower() == "basic":
            yield from _of_basic(rest)
        if name.lower() == "cookie":
            yield from (part.partition("=")[2].strip() for part in value.split(";"))


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        credentials = base64.b64decode(encoded.strip() + "==").decode()
    except ValueError:
        return
    user, _, password = credentials.partition(":")
    yield from (credentials, user, password)


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        yield url
        return
    userinfo, at, _ = parts.netloc.rpartition("@")
    if at:
        user, _, password = userinfo.partition(":")
        credentials = f"{unquote(user)}:{unquote(password)}"
        basic = base64.b64encode(credentials.encode(errors="replace")).decode()
        yield from (userinfo, user, password, credentials, unquote(user), unquote(password), basic, basic.rstrip("="))
    if parts.query:
        for value in (parts.query, *(name_value.partition("=")[2] or name_value for name_value in parts.query.split("&"))):
            yield from (value, unquote(value), unquote_plus(value))


def _forms(secret: str) -> Iterable[str]:
    """The secret as it may come back."""
    secret = secret.strip()
    if len(secret) < SHORTEST:
        return ()
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms |= {form.replace("/", "\\/") for form in forms}  # so does PHP
    escaped = {quote(secret, safe, errors="replace") for safe in ("", "/", "!*'()", _URL_SAFE)} | {quote_plus(secret, errors="replace")}
    forms |= escaped | {_lower_escapes(form) for form in escaped}
    if not secret.isascii():
        forms.add(secret.encode(errors="replace").decode("latin-1"))
        forms.add(secret.encode("latin-1", "replace").decode("utf-8", "replace"))
    return forms


def _lower_escapes(text: str) -> str:
    first, *rest = text.split("%")
    return "%".join((first, *(part[:2].lower() + part[2:] for part in rest)))
