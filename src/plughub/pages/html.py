"""A page: rendered from a template, everything in it escaped, and the headers that keep it to itself."""

import secrets
from collections.abc import Awaitable, Callable
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from plughub.cluster.limits import Header
from plughub.door.dispatch import Rendered
from plughub.door.request import NO_STORE, Request
from plughub.door.routes import PUBLIC, Route
from plughub.kit.errors import HubError

HTML: Header = (b"content-type", b"text/html; charset=utf-8")
LOGIN_PATH = "/login"


def render(template: str, *, form_action: str = "'self'", **values: Any) -> tuple[bytes, list[Header]]:
    """A page and its headers. `form_action`: where the answer to a form of it may lead (browsers follow this through redirects)."""
    nonce = secrets.token_urlsafe(16)
    body = _environment().get_template(template).render(nonce=nonce, **values).encode()
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    return body, [
        NO_STORE,
        (b"content-security-policy", policy.encode("latin-1")),
        (b"x-frame-options", b"DENY"),
        # A stricter policy would take the Origin from our own forms along.
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
    ]


async def respond(request: Request, template: str, status: int = 200, *, form_action: str = "'self'", **values: Any) -> None:
    """Answer with a page."""
    body, headers = render(template, form_action=form_action, **values)
    await request.respond(status, body, HTML, headers)


def page(method: str, path: str, handler: Callable[[Request], Awaitable[None]], summary: str) -> Route:
    """The row of a page. Whoever asks is known by the cookie or logs in first, so the row itself is open, and counts nothing."""
    return Route(method, path, PUBLIC, handler, summary, "Pages", "page", cost=0, hot=True, output=str, output_kind="text/html")


async def redirect(request: Request, location: str) -> None:
    """Send the browser elsewhere with a GET: nothing of a form goes along (RFC 9700 section 4.12)."""
    await request.respond(303, b"", extra=[(b"location", location.encode("latin-1")), NO_STORE, (b"referrer-policy", b"no-referrer")])


async def to_login(request: Request) -> None:
    """Have the person log in, and come back here."""
    here = quote(request.scope["path"], safe="/")
    query = request.scope["query_string"].decode("latin-1")
    await redirect(request, f"{LOGIN_PATH}?{urlencode({'next': f'{here}?{query}' if query else here})}")


def render_error(error: HubError, request: Request) -> Rendered:
    """What went wrong, as a page: in words, and with the request id."""
    body, headers = render(
        "error.html",
        title=HTTPStatus(error.status).phrase,
        text=error.text,
        hint=error.details.get("hint", error.hint),
        request_id=request.id,
    )
    kept = [pair for pair in headers if pair != NO_STORE]  # the dispatcher says it of every error
    own = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    return Rendered(error.status, body, [HTML, *kept, *own])


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("plughub.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
