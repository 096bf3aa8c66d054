"""From a template to an answer: escaped, under a strict policy, kept by nobody."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plughub.cluster.limits import Header
from plughub.door.dispatch import Rendered
from plughub.door.request import Request
from plughub.kit.errors import HubError

if TYPE_CHECKING:
    from jinja2 import Environment

HTML: Header = (b"content-type", b"text/html; charset=utf-8")
OWN = "'self'"
# Scripts and styles come from the hub alone, forms lead to it alone, and nobody puts a page of it into theirs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action {form_action}; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: list[Header] = [
    (b"content-security-policy", _POLICY.format(form_action=OWN).encode()),
    # Of another site nobody learns the address, which may hold a token; with `no-referrer` a form would not say where it is from.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]
_FOLDER = Path(__file__).parent


@cache
def _environment() -> "Environment":
    # Loaded by the first page: a hub that only keys use never needs it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> bytes:
    """A page. Every value is escaped."""
    return _environment().get_template(template).render(**values).encode()


async def respond_page(
    request: Request, template: str, *, status: int = 200, cookie: str | None = None, form_action: str = OWN, **values: Any
) -> None:
    """Answer with a page. `form_action`: where the answer to its form may lead, which browsers hold against redirects too."""
    policy = (b"content-security-policy", _POLICY.format(form_action=form_action).encode("latin-1"))
    await request.respond(status, render(template, **values), HTML, [policy, *PAGE_HEADERS[1:], *_cookie(cookie)])


async def redirect(request: Request, path: str, *, cookie: str | None = None) -> None:
    """Answer a form: go on with GET there (303, so that nothing is sent twice)."""
    await request.respond(303, b"", HTML, [(b"location", path.encode("latin-1", "replace")), *PAGE_HEADERS, *_cookie(cookie)])


def render_error(error: HubError, _request: Request) -> Rendered:
    """An error of a page, as a page."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    kept = [pair for pair in PAGE_HEADERS if pair[0] != b"cache-control"]  # the door says that of every error itself
    body = render("message.html", title="That did not work", message=error.text, hint=error.hint, link=None)
    return Rendered(error.status, body, [HTML, *headers, *kept])


def read_static(name: str) -> bytes:
    """A file of ours that pages refer to."""
    return (_FOLDER / "static" / name).read_bytes()


def _cookie(cookie: str | None) -> list[Header]:
    return [] if cookie is None else [(b"set-cookie", cookie.encode("latin-1"))]
