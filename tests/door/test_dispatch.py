"""What every request meets first, whatever its row."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message

from plughub.door.routes import Route, RouteTable
from plughub.kit.caller import SCOPES
from tests.serving import RawCall, Served, serving

pytestmark = pytest.mark.anyio
EXPOSED = {
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "ratelimit",
    "x-request-id",
    "www-authenticate",
}


@pytest.fixture(scope="module")
async def listed(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Served]:
    """A hub that names the origins it allows, and its public address."""
    folder = tmp_path_factory.mktemp("listed")
    shutil.copyfile(sqlite_template, folder / "plughub.db")
    async with serving(
        f"sqlite:///{folder}/plughub.db",
        folder,
        allowed_origins="https://app.example.com, http://other.example",
        public_url="https://hub.example.com",
    ) as found:
        yield found


@pytest.mark.requirement("http.etag")
@pytest.mark.parametrize("path", ["/api/servers", "/v1/mcps", "/health", "/api/openapi.json", "/api/rate-limit"])
async def test_a_get_has_a_weak_etag_and_is_not_sent_twice(lite: Served, path: str) -> None:
    await lite.settled()
    first = await lite.call("GET", path)
    tag = first.headers["etag"]
    assert tag.startswith('W/"') and tag.endswith('"')
    for given in (tag, f'"other", {tag}', "*", f'{tag},W/"x"'):
        again = await lite.call("GET", path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers and "content-length" not in again.headers
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
    other = await lite.call("GET", path, headers={"If-None-Match": 'W/"x"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.requirement("http.etag")
async def test_the_etag_follows_the_content(lite: Served) -> None:
    await lite.settled()
    path = f"/api/servers/{lite.demo_id}"
    before = await lite.call("GET", path)
    await lite.call("PATCH", path, {"description": "changed"})
    after = await lite.call("GET", path, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["description"] == "changed"


@pytest.mark.requirement("http.head-and-idempotency")
@pytest.mark.parametrize("path", ["/api/servers", "/health", "/v1/mcps", "/api/auth/keys"])
async def test_head_is_get_without_the_body(lite: Served, path: str) -> None:
    await lite.settled()
    get, head = await lite.call("GET", path), await lite.call("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == get.headers[name]
    assert (await lite.call("HEAD", "/api/servers", key="")).status_code == 401
    assert (await lite.call("HEAD", "/mcp")).status_code == 405


@pytest.mark.requirement("routes.unknown-path-and-method", "routes.default-deny", "errors.api-shape", "errors.v1-shape", "errors.mcp-shape")
async def test_an_unknown_path_is_a_404_in_the_dialect_of_its_place(lite: Served) -> None:
    for path in (
        "/",
        "/api",
        "/api/",
        "/api/nope",
        "/api/servers/",
        "//api/servers",
        "/API/servers",
        "/api/servers/a/b/c",
        "/docs",
        "/redoc",
    ):
        for key in ("", None):
            answer = await lite.call("GET", path, key=key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND"), path
    for path in ("/v1", "/v1/nope", "/v1/mcps/a/b"):
        answer = await lite.call("GET", path)
        assert (answer.status_code, answer.json()["success"], answer.json()["error"]["code"]) == (404, False, "not_found")
    for path in ("/mcp/", "/mcp/x", "/servers/x/y/mcp"):
        answer = await lite.call("POST", path, {})
        assert (answer.status_code, answer.json()["jsonrpc"], answer.json()["id"]) == (404, "2.0", None)


@pytest.mark.requirement("http.cors")
@pytest.mark.parametrize(
    "path", ["/api/servers", "/v1/mcps", "/mcp", "/api/nope", "/servers/x/mcp", "/.well-known/oauth-protected-resource"]
)
async def test_a_preflight_needs_no_key(lite: Served, path: str) -> None:
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization, x-own"}
    answer = await lite.call("OPTIONS", path, key="", headers={"Origin": "http://localhost:3000", **asked})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, x-own"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.requirement("http.cors")
async def test_answers_may_be_read_by_any_origin_and_never_with_credentials(lite: Served) -> None:
    for method, path, key in (("GET", "/api/servers", None), ("GET", "/v1/mcps", ""), ("GET", "/api/nope", None)):
        answer = await lite.call(method, path, key=key, headers={"Origin": "https://any.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert exposed >= EXPOSED
        assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in (await lite.call("GET", "/api/servers")).headers
    assert "access-control-allow-origin" not in (await lite.call("GET", "/health", headers={"Origin": "https://any.example"})).headers


@pytest.mark.requirement("http.cors", "http.host-and-origin")
async def test_listed_origins_are_answered_by_name(listed: Served) -> None:
    for origin in ("https://app.example.com", "http://other.example"):
        answer = await listed.call("GET", "/api/servers", headers={"Origin": origin})
        assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (origin, "Origin")
        assert (await listed.rpc("ping", headers={"Origin": origin})).status_code == 200
    answer = await listed.call("GET", "/api/servers", headers={"Origin": "https://evil.test"})
    assert "access-control-allow-origin" not in answer.headers and answer.headers["vary"] == "Origin"
    assert (await listed.rpc("ping", headers={"Origin": "https://evil.test"})).status_code == 403
    assert (await listed.rpc("ping", headers={"Host": "hub.example.com"})).status_code == 200
    assert (await listed.rpc("ping", headers={"Origin": "https://hub.example.com"})).status_code == 200
    told = await listed.call("GET", "/.well-known/oauth-protected-resource", key="")
    assert told.json()["resource"] == "https://hub.example.com/mcp"


@pytest.mark.requirement("http.host-and-origin")
async def test_a_foreign_host_gets_nothing_anywhere(lite: Served) -> None:
    for path in ("/api/servers", "/v1/mcps", "/mcp", "/health", "/api/openapi.json", "/nope"):
        answer = await lite.call("GET", path, headers={"Host": "evil.test"})
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")


@pytest.mark.requirement("json.content-type")
async def test_the_content_type_counts_only_with_a_body(lite: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        assert (await lite.call("GET", "/api/servers", headers={"Content-Type": kind})).status_code == 200
        made = (await lite.call("POST", "/api/auth/keys", {"name": "x"})).json()
        gone = await lite.call("DELETE", f"/api/auth/keys/{made['id']}", headers={"Content-Type": kind})
        assert gone.status_code == 200
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON;x=y", "application/json ;x"):
        made = await lite.call("POST", "/api/auth/keys", b'{"name":"x"}', headers={"Content-Type": kind})
        assert made.status_code == 201, kind


@pytest.mark.parametrize("encoded", ["%2F", "%2f"])
async def test_an_encoded_slash_leads_to_no_other_row(lite: Served, encoded: str) -> None:
    """The row that was admitted and the row that answers must be one."""
    for path in (f"/api/servers/{lite.demo_id}{encoded}tools", f"/api/auth/keys/x{encoded}..{encoded}..{encoded}servers"):
        answer = await lite.call("GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


async def test_pieces_of_a_body_are_put_together(lite: Served) -> None:
    body = json.dumps({"name": "in pieces", "description": "é" * 50}).encode()
    call = RawCall(lite, "POST", "/api/auth/keys", {"content-type": "application/json", "transfer-encoding": "chunked"})
    for start in range(0, len(body), 7):
        call.piece(body[start : start + 7], more=True)
    answer = await call.piece(b"").run()
    assert (answer.status, json.loads(answer.body)["description"]) == (201, "é" * 50)


async def test_a_client_that_leaves_before_its_body_is_whole_changes_nothing(lite: Served) -> None:
    before = (await lite.call("GET", "/api/auth/keys")).json()["total"]
    call = RawCall(lite, "POST", "/api/auth/keys", {"content-type": "application/json", "transfer-encoding": "chunked"})
    call.piece(b'{"name":"x"', more=True).leave()
    await call.run()
    assert (await lite.call("GET", "/api/auth/keys")).json()["total"] == before


def row(method: str, path: str, scope: str = "read:servers") -> Route:
    async def handler() -> None: ...

    return Route(method, path, scope, handler, "s", "t")


@pytest.mark.requirement("routes.default-deny")
@pytest.mark.requirement("run.stops-with-an-answer")
@pytest.mark.parametrize("path", ["/api/servers", "/v1/mcp/invoke", "/mcp"])
async def test_a_request_that_the_server_cancels_is_a_503(lite: Served, path: str) -> None:
    call = RawCall(lite, "POST", path, {"content-type": "application/json"})
    reading = asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        reading.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Message) -> None:
        sent.append(message)

    running = asyncio.create_task(lite.app.asgi(call.scope, receive, send))
    await reading.wait()
    running.cancel()
    await running
    body = sent[1]["body"].decode()
    assert (sent[0]["status"], "stopping" in body, "unavailable" in body.lower()) == (503, True, True)


def test_a_row_without_a_known_scope_cannot_be_made() -> None:
    for scope in ("", "read:everything", "none"):
        with pytest.raises(ValueError, match="unknown scope"):
            row("GET", "/x", scope)
    with pytest.raises(TypeError):
        Route("GET", "/x")  # type: ignore[call-arg]
    assert row("GET", "/x", sorted(SCOPES)[0]).cost == 1


def test_two_rows_for_one_method_and_path_do_not_start() -> None:
    with pytest.raises(ValueError, match="two rows"):
        RouteTable([row("GET", "/a/{x}"), row("GET", "/a/{y}")])


def test_paths_are_found_and_forgotten_within_bounds() -> None:
    table = RouteTable([row("GET", "/a/{x}"), row("GET", "/a/b"), row("POST", "/a/{x}/c")])

    def found(path: str) -> tuple[str, ...] | None:
        match = table.find(path.encode())
        return None if match is None else match[1]

    assert (found("/a/1"), found("/a/b"), found("/a/1/c"), found("/a/%41%2F%20")) == (("1",), (), ("1",), ("A/ ",))
    assert (found("/a/"), found("/a"), found("/"), found(""), found("/a/1/d"), found("/a//c")) == (None,) * 6
    for number in range(20_000):
        assert found(f"/a/{number}") == (str(number),)
    assert found("/a/" + "x" * 100_000) == ("x" * 100_000,)
    assert len(table._remembered) <= 8192 and max(map(len, table._remembered)) <= 512


@pytest.mark.requirement("keys.hint-names-the-defect")
@pytest.mark.parametrize("path", ["/api/servers", "/v1/mcps", "/mcp"])
async def test_a_doubled_credential_is_a_401_that_says_so(lite: Served, path: str) -> None:
    for name in ("Authorization", "X-Api-Key"):
        method = "POST" if path == "/mcp" else "GET"
        given = {name.lower(): lite.key if name == "X-Api-Key" else f"Bearer {lite.key}"}
        assert (await RawCall(lite, "GET", "/api/servers", given, key="").piece(b"").run()).status == 200
        for other in (next(iter(given.values())), "Bearer x"):
            call = RawCall(lite, method, path, given, key="")
            call.scope["headers"].append((name.lower().encode(), other.encode()))
            answer = await call.piece(b"").run()
            found = json.loads(answer.body)["error"]
            assert answer.status == 401
            assert f"{name} header appears more than once" in str(found)
            assert lite.key not in str(found)
