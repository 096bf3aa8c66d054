"""Whatever a server says, and wherever: what we make of it for people to read holds no secret of its configuration."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from urllib.parse import quote, quote_plus

import anyio
import pytest

from plughub.kit.errors import HubError
from plughub.settings import Settings
from plughub.upstream.pool import Pool
from tests.conftest import FakeClock
from tests.fakes.http_servers import SSE_HEAD, HttpServer, Mcp, Seen, chunk, error_reply, json_reply, reply
from tests.upstream.support import Recorder, http, stdio, tool

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """One of the two loops: what is told does not depend on it."""
    return "asyncio", {"use_uvloop": True}


# Every canary, and every part of one that is a secret by itself, begins with letters that nothing else here holds: QZ and a digit.
ENV = {
    "API_TOKEN": "QZ1-token/with+signs==",
    "QUOTED": 'QZ2 "quoted" \\ back',
    "PEM": "QZ3-first-line-of-a-key\nQZ4-second-line-of-a-key\n",
    "DATABASE_URL": "postgres://QZ5-database-user:QZ6-database-pass@db.test/x",
    "ACCENT": "QZ7-é-accented-ü",
}
ARGS = ("QZ8-secret-argument", "--password=QZ9-argument-password")


def caused(error: BaseException) -> Iterator[str]:
    """The texts of an error and of what a traceback would show beside it."""
    yield str(error)
    if isinstance(error, HubError):
        yield from (error.text, repr(error.details), str(getattr(error, "reason", "")))
    if error.__cause__ is not None:
        yield from caused(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from caused(error.__context__)


def check(hooks: Recorder, errors: list[HubError], mark: str = "QZ") -> None:
    texts = [*hooks.lines, *(error or "" for _, _, error in hooks.statuses), *(text for error in errors for text in caused(error))]
    assert [text for text in texts if mark.lower() in text.lower()] == []
    assert any("***" in text for text in texts), texts


# ---- STDIO


@pytest.mark.requirement("http.logs-without-secrets")
@pytest.mark.parametrize("mode", ["init-error", "long-init-error", "version", "exit"])
async def test_a_stdio_server_that_fails_with_all_it_knows_tells_nothing(pool: Pool, hooks: Recorder, mode: str) -> None:
    with anyio.fail_after(10), pytest.raises(HubError) as failed:
        await pool.get(replace(stdio(mode, script="leaky_stdio.py", env=ENV), secret_args=ARGS))
    assert "***" in failed.value.text
    assert hooks.last()[0] == "error"
    check(hooks, [failed.value])


@pytest.mark.requirement("http.logs-without-secrets")
@pytest.mark.parametrize("mode", ["garbage", "stderr", "stranger", "doubled-key"])
async def test_a_stdio_server_that_prints_all_it_knows_tells_nothing(pool: Pool, hooks: Recorder, settings: Settings, mode: str) -> None:
    pool._settings = settings.model_copy(update={"start_timeout_s": 3})
    errors: list[HubError] = []
    with anyio.fail_after(10):
        try:
            await pool.get(replace(stdio(mode, script="leaky_stdio.py", env=ENV), secret_args=ARGS))
        except HubError as error:
            errors.append(error)
        if mode == "stderr":
            await hooks.until(lambda: sum("x" * 4000 in line for line in hooks.lines) >= 4 * 14)
    assert bool(errors) == (mode in ("garbage", "doubled-key"))
    if mode == "doubled-key":
        assert not hooks.logged("QZ")
    else:
        check(hooks, errors)


# ---- HTTP

USER, PASSWORD, QUERY, TOKEN = "QZa user/name", "QZb+pass:word", "QZc value&more", "QZd-bearer-token"
HEADERS = {"X-Key": "QZe-header-value", "X-Two": "Custom QZf-after-the-scheme", "Cookie": "a=1; session=QZg-cookie-value"}
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def told(seen: Seen) -> list[str]:
    """All that a server learns of the configuration, in every form in which it may come back."""
    plain = [USER, PASSWORD, f"{USER}:{PASSWORD}", QUERY, TOKEN, seen.target.partition("?")[2], *HEADERS.values()]
    plain += [value for name, value in seen.headers if name in ("authorization", "x-key", "x-two", "cookie")]
    escaped = [form(text) for text in plain for form in (lambda text: quote(text, safe=""), quote, quote_plus)]
    return list(dict.fromkeys([*plain, *escaped, *(text.replace("%2F", "%2f") for text in escaped)]))


def target_url(server: HttpServer) -> str:
    userinfo = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"
    return server.url.replace("//", f"//{userinfo}", 1) + f"?key={quote(QUERY, safe='')}&QZh-bare-part"


Leak = Callable[[Seen, str], bytes]
LEAKS: dict[str, Leak] = {
    "error": lambda seen, text: error_reply(seen, -32000, text),
    "long error": lambda seen, text: error_reply(seen, -32000, "x" * 490 + text),
    "modern error": lambda seen, text: error_reply(seen, -32020, text, 400),
    "supported": lambda seen, text: json_reply(
        {"id": seen.json["id"], "error": {"code": -32022, "message": "no", "data": {"supported": ["x" * 90 + text]}}}, 400
    ),
    "garbage": lambda seen, text: reply(200, text.encode()),
    "cut garbage": lambda seen, text: reply(200, b"x" * 295 + text.encode()),
    "shrunk garbage": lambda seen, text: reply(200, (text * 3 + "x" * 500)[:295].encode() + text.encode()),
    "stream": lambda seen, text: SSE_HEAD + chunk(b"data: " + text.encode() + b"\n\n") + chunk(b""),
    "cut stream": lambda seen, text: SSE_HEAD + chunk(b"data: " + b"x" * 295 + text.encode() + b"\n\n") + chunk(b""),
    "stranger": lambda seen, text: SSE_HEAD + chunk(b"data: " + json.dumps({"id": text, "result": {}}).encode() + b"\n\n") + chunk(b""),
    "status 400": lambda seen, text: reply(400, text.encode(), "text/plain"),
    "status 401": lambda seen, text: reply(401, text.encode(), "text/html"),
    "status 422": lambda seen, text: reply(422, b'{"detail":"' + text.encode() + b'"}'),
    "status 500": lambda seen, text: reply(500, text.encode(), "text/plain"),
    "status 503": lambda seen, text: reply(503, b"x" * 295 + text.encode()),
    "redirect": lambda seen, text: reply(307, headers={"Location": f"https://b.test/{text}"}),
    "long redirect": lambda seen, text: reply(307, headers={"Location": f"https://b.test/{'x' * 240}{text}"}),
    "redirect to a host": lambda seen, text: reply(302, headers={"Location": f"https://{text}.b.test/"}),
    "content type": lambda seen, text: reply(200, b"x", kind=f"text/{text}"),
    "long content type": lambda seen, text: reply(200, b"x", kind=f"text/{'x' * 70}{text}"),
    "version": lambda seen, text: json_reply({"id": seen.json["id"], "result": {"protocolVersion": text}}),
    "doubled key": lambda seen, text: reply(200, b'{"id":%d,%b:1,%b:2}' % (seen.json["id"], *[json.dumps(text).encode()] * 2)),
}  # fmt: skip


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer(Mcp()) as opened:
        yield opened


@pytest.fixture
async def pool(server: HttpServer, settings: Settings, hooks: Recorder, clock: FakeClock) -> AsyncIterator[Pool]:
    opened = Pool(settings, hooks, clock=clock)
    await opened.start()
    yield opened
    await opened.aclose()


def leaking(leak: Leak, number: int) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[bytes | None]]:
    async def answer(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return leak(seen, told(seen)[number]) if seen.body else reply(200)

    return answer


@pytest.mark.requirement("http.logs-without-secrets")
@pytest.mark.parametrize("authorization", [None, f"Bearer {TOKEN}", f"Basic {BASIC}"], ids=["userinfo", "bearer", "basic"])
@pytest.mark.parametrize("place", LEAKS)
async def test_an_http_server_tells_nothing_it_was_sent(
    pool: Pool, server: HttpServer, hooks: Recorder, place: str, authorization: str | None
) -> None:
    headers = HEADERS | ({"Authorization": authorization} if authorization else {})
    errors: list[HubError] = []
    seen = Seen(
        "POST", "/mcp?x", [("authorization", authorization or f"Basic {BASIC}"), *((k.lower(), v) for k, v in HEADERS.items())], b"", 0
    )
    for number in range(len(told(seen))):
        server.answer = leaking(LEAKS[place], number)
        target = http(target_url(server) if authorization != f"Bearer {TOKEN}" else server.url, headers=headers)
        with pytest.raises(HubError) as failed:
            await pool.get(target)
        errors.append(failed.value)
        await pool.forget("fake")
    hidden = [text for error in errors for text in caused(error)] + hooks.lines
    secrets = [USER, PASSWORD, QUERY, BASIC] if authorization != f"Bearer {TOKEN}" else [TOKEN]
    marks = ["QZe", "QZf", "QZg"] + [secret[:3] for secret in secrets] + (["QZh"] if BASIC in secrets else [])
    for mark in marks:
        assert [text for text in hidden if mark.lower() in text.lower()] == []
    assert place.startswith(("status", "doubled")) or any("***" in text for text in hidden)


@pytest.mark.requirement("http.logs-without-secrets")
@pytest.mark.parametrize(
    "place", [place for place in LEAKS if place not in ("error", "long error", "modern error", "supported", "version")]
)
async def test_an_http_server_tells_nothing_in_the_answer_to_a_call(pool: Pool, server: HttpServer, hooks: Recorder, place: str) -> None:
    upstream = await pool.get(http(server.url, headers=HEADERS))
    server.answer = leaking(LEAKS[place], 6)
    with pytest.raises(HubError) as failed:
        await upstream.request(tool("x", timeout_s=2))
    texts = [*caused(failed.value), *hooks.lines]
    assert [text for text in texts if "qze" in text.lower()] == []
    assert place.startswith(("status", "doubled")) or any("***" in text for text in texts)


async def test_the_error_of_a_call_is_payload_and_passes_as_it_came(pool: Pool, server: HttpServer) -> None:
    upstream = await pool.get(http(server.url, headers=HEADERS))
    server.answer = leaking(LEAKS["error"], 6)
    answer = await upstream.request(tool("x"))
    assert answer.error is not None and b"QZe-header-value" in answer.error


SSE_LEAKS: dict[str, Callable[[str], bytes]] = {
    "endpoint elsewhere": lambda text: SSE_HEAD + chunk(b"event: endpoint\ndata: http://" + text.encode() + b".b.test/\n\n"),
    "content type": lambda text: reply(200, b"x", kind=f"text/{text}"),
    "redirect": lambda text: reply(307, headers={"Location": f"https://b.test/{text}"}),
    "status 401": lambda text: reply(401, text.encode(), "text/html"),
    "garbage": lambda text: text.encode() + b"\r\n\r\n",
}


@pytest.mark.requirement("http.logs-without-secrets")
@pytest.mark.parametrize("place", SSE_LEAKS)
async def test_an_old_server_tells_nothing_it_was_sent(pool: Pool, server: HttpServer, hooks: Recorder, place: str) -> None:
    secret = HEADERS[next(iter(HEADERS))]

    async def leak(seen: Seen, writer: asyncio.StreamWriter) -> bytes | None:
        return SSE_LEAKS[place](secret) if seen.method == "GET" else reply(405)

    server.answer = leak
    with pytest.raises(HubError) as failed:
        await pool.get(http(server.url, transport="SSE", headers=HEADERS))
    texts = [*caused(failed.value), *hooks.lines, str(hooks.statuses)]
    assert [text for text in texts if secret.lower() in text.lower()] == []
    assert place in ("status 401", "garbage") or any("***" in text for text in texts)
