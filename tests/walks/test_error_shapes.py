"""Walk 2: every row × every error that it can give, each in the shape of its dialect."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from plughub.db.columns import metadata
from plughub.door.routes import PUBLIC, Route
from tests.serving import Served, serving, shown
from tests.walks.rows import (
    CLOSED,
    OPEN,
    PERSONAL,
    ROWS,
    Things,
    ask,
    body,
    check_error,
    code_of,
    credential,
    example,
    has_id,
    name,
    parameters,
    path,
    without_session,
)

pytestmark = pytest.mark.anyio
# What comes in at /oauth may be a form, and what is not known of it is ignored, as its RFCs ask: tests/oauth/test_clients.py.
WITH_BODY = tuple(row for row in ROWS if example(row) is not None and row.door != "oauth")
LIMIT = 20_000
# The profile that everybody has.
DEFAULT = "default"
# The tables without which no row that names a thing can answer.
# A foreign organisation is refused before anything is read.
UNASKED = {"request_id", "organization_id", "app_id", "grant_id", "submission_id"}
HELD = (
    *("organization", "server", "key_server", "api_key", "project", "profile", "profile_server", "membership"),
    *("alert", "notification", "collection", "document", "webhook"),
)


@pytest.fixture(scope="module")
async def small(lite_url: str, hub_dir: Path, anyio_backend: str) -> AsyncIterator[Served]:
    """A hub with a low limit for bodies."""
    async with serving(lite_url, hub_dir, max_body_bytes=LIMIT, support_url="https://example.com/help") as found:
        yield found


def invalid(row: Route) -> tuple[int, str]:
    """Status and code of a body that cannot be read."""
    return 400, "invalid_request" if row.door == "v1" else "INVALID_PARAMETER"


@pytest.mark.requirement("routes.walk-errors", "json.strict-management-bodies", "errors.api-shape", "errors.v1-shape", "errors.mcp-shape")
@pytest.mark.parametrize(
    "sent",
    [
        b"{",
        b"nonsense",
        b'{"a":1,"a":1}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":NaN}',
        b"[" * 70 + b"]" * 70,
        b'{"a":"' + b"x" * 10,
    ],
    ids=["cut", "nonsense", "duplicate", "not-utf8", "bom", "utf16", "nan", "deep", "open-string"],
)
@pytest.mark.parametrize("row", WITH_BODY, ids=name)
async def test_a_body_that_cannot_be_read(small: Served, row: Route, sent: bytes) -> None:
    answer = await small.call(
        row.method, path(row, Things(small.demo_id, Things.missing().key, slug=DEFAULT)), sent, key=await credential(small, row)
    )
    assert (answer.status_code, code_of(row, answer)) == invalid(row)
    check_error(row, answer)


@pytest.mark.requirement("routes.walk-errors", "json.content-type")
@pytest.mark.parametrize("row", WITH_BODY, ids=name)
async def test_a_body_that_is_not_json_by_its_type(small: Served, row: Route) -> None:
    things = Things(small.demo_id, Things.missing().key, slug=DEFAULT)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "multipart/form-data; boundary=x"):
        if row.form is not None and kind.startswith("multipart"):
            continue  # what is wrong with forms: tests/documents
        answer = await ask(small, row, things, headers={"Content-Type": kind})
        wanted = (400, "invalid_request") if row.door == "v1" else (415, "UNSUPPORTED_MEDIA_TYPE")
        assert (answer.status_code, code_of(row, answer)) == wanted, kind
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-errors", "json.body-limit")
@pytest.mark.parametrize("row", WITH_BODY, ids=name)
async def test_a_body_over_the_limit(small: Served, row: Route) -> None:
    things = Things(small.demo_id, Things.missing().key, slug=DEFAULT)
    too_much = b'{"a":"' + b"x" * LIMIT + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(too_much), 5000):
            yield too_much[start : start + 5000]

    async def one_piece() -> AsyncIterator[bytes]:
        yield too_much

    headers = {**shown(await credential(small, row)), "Content-Type": "application/json"}
    for content in (too_much, pieces(), one_piece()):
        answer = await small.client.request(row.method, path(row, things), content=content, headers=headers)
        assert (answer.status_code, code_of(row, answer).upper()) == (413, "PAYLOAD_TOO_LARGE")
        assert answer.json()["error"]["data" if row.door == "mcp" else "details"]["limit_bytes"] == LIMIT
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-errors", "errors.unknown-field-is-400", "errors.invalid-field-is-named")
@pytest.mark.parametrize("row", [row for row in WITH_BODY if row.door != "mcp"], ids=name)
async def test_an_unknown_field_is_named(small: Served, row: Route) -> None:
    made = await small.call("POST", "/api/auth/keys", {"name": "to change"})
    sent = body(row, Things(small.demo_id, made.json()["id"])) | {"surprise": 1}
    answer = await small.call(row.method, path(row, Things(small.demo_id, made.json()["id"])), sent, key=await credential(small, row))
    wanted = (422, "validation_error") if row.door == "v1" else (400, "INVALID_PARAMETER")
    assert (answer.status_code, code_of(row, answer)) == wanted
    details = answer.json()["error"]["details"]
    assert "surprise" in (details if row.door == "v1" else details["field"])
    check_error(row, answer)


@pytest.mark.requirement("routes.walk-errors", "errors.invalid-field-is-named")
@pytest.mark.parametrize("row", [row for row in WITH_BODY if row.door != "mcp" and example(row)], ids=name)
async def test_every_required_field_is_asked_for(small: Served, row: Route) -> None:
    things = Things(small.demo_id, Things.missing().key, slug=DEFAULT)
    for field in body(row, things):
        sent = {name: value for name, value in body(row, things).items() if name != field}
        answer = await small.call(row.method, path(row, things), sent, key=await credential(small, row))
        assert answer.status_code == (422 if row.door == "v1" else 400)
        details = answer.json()["error"]["details"]
        text_of_field = details[field] if row.door == "v1" else answer.json()["message"]
        assert text_of_field == f"The '{field}' field is required"
        check_error(row, answer)


@pytest.mark.requirement("routes.walk-errors", "http.ids", "routes.unknown-path-and-method")
@pytest.mark.parametrize("row", [row for row in CLOSED if has_id(row)], ids=name)
@pytest.mark.parametrize("bad", ["nope", "mcp_", "mcp_zzzzzzzzzzzzzzzzzzzzzz", "key_0", "0" * 36, "%00", "a%2Fb", "{}", "é", "x" * 3000])
async def test_a_malformed_id_is_a_404(small: Served, row: Route, bad: str) -> None:
    things = Things.missing()
    sent = body(row, things)
    if isinstance(sent, dict) and "mcp_id" in sent:
        sent["mcp_id"] = bad
    url = path(row, things)
    for id_ in things.ids():
        url = url.replace(id_, bad)
    answer = await small.call(row.method, url, sent, key=await credential(small, row))
    assert answer.status_code == 404
    check_error(row, answer)
    assert code_of(row, answer) == ("not_found" if row.door == "v1" else "NOT_FOUND")


@pytest.mark.requirement("routes.unknown-path-and-method", "routes.walk-errors")
@pytest.mark.parametrize("row", ROWS, ids=name)
async def test_a_method_that_the_path_does_not_have(small: Served, row: Route) -> None:
    known = {other.method for other in ROWS if other.path == row.path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - known:
        answer = await small.call(method, path(row, Things.missing()), key="")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == known
        check_error(row if row.path.startswith(("/api", "/v1", "/mcp", "/servers", "/sse", "/oauth")) else ROWS[0], answer)


@pytest.mark.requirement("routes.walk-errors", "limits.refusal", "limits.headers")
async def test_over_the_limit_every_counted_row_is_a_429(small: Served) -> None:
    key = await small.key_of(await small.organization("Free", "free"))
    while (answer := await small.call("GET", "/api/servers", key=key)).status_code == 200:
        remaining = answer.headers["x-ratelimit-remaining"]
    assert remaining == "90"
    for row in OPEN:
        answer = await ask(small, row, Things.missing(), key=key)
        if without_session(row):
            continue
        if row.cost == 0 and row.door != "mcp":
            assert answer.status_code == (404 if has_id(row) else 200)
            continue
        if row.door == "mcp" and row.path != "/mcp":
            assert answer.status_code == 404, "the server is looked for before the message is read"
            continue
        assert (answer.status_code, code_of(row, answer).upper()) == (429, "RATE_LIMITED")
        details = answer.json()["error"]["data" if row.door == "mcp" else "details"]
        assert (details["policy"], details["limit"]) == ("burst", 10)
        assert answer.headers["retry-after"] == str(details["retry_after"])
        assert answer.headers["x-ratelimit-remaining"] == remaining, "a refusal spends nothing"
        check_error(row, answer)
    small.clock.advance(details["retry_after"])
    assert (await small.call("GET", "/api/servers", key=key)).status_code == 200


@pytest.mark.requirement("routes.walk-errors", "errors.no-trace")
async def test_a_fault_of_ours_is_a_500_that_says_nothing(sqlite_template: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.db"
    file.write_bytes(sqlite_template.read_bytes())
    async with serving(f"sqlite:///{file}", tmp_path, support_url="https://example.com/help") as broken:
        assert (await broken.call("GET", "/api/servers")).status_code == 200  # the key is known from here on
        async with broken.database.unit_of_work() as uow:
            await uow.execute(text("PRAGMA defer_foreign_keys = ON"))
            for table in reversed(metadata.sorted_tables):
                if table.name in HELD:
                    await uow.execute(text(f"ALTER TABLE {table.name} RENAME TO gone_{table.name}"))
        failed = set()
        for row in ROWS:
            answer = await ask(broken, row, Things.missing(), key=broken.key)
            if answer.status_code == 500:
                failed.add(name(row))
                assert answer.json()["error"]["message"] == "An unexpected error occurred"
                details = answer.json()["error"]["data" if row.door == "mcp" else "details"]
                assert details["support_url"] == "https://example.com/help"
                assert "gone_" not in answer.text and "no such table" not in answer.text
                check_error(row, answer)
        assert failed >= {name(row) for row in CLOSED if has_id(row) and row not in PERSONAL and not UNASKED & {*parameters(row)}}
        async with broken.database.unit_of_work() as uow:
            for table in metadata.sorted_tables:
                if table.name in HELD:
                    await uow.execute(text(f"ALTER TABLE gone_{table.name} RENAME TO {table.name}"))


@pytest.mark.requirement("http.request-id")
@pytest.mark.parametrize("row", ROWS, ids=name)
async def test_every_answer_has_an_id_of_its_own_and_the_version(small: Served, row: Route) -> None:
    key = "" if row.scope == PUBLIC else None
    ids = set()
    for _ in range(2):
        answer = await ask(small, row, Things.missing(), key=key)
        assert answer.headers.get_list("x-api-version") == ["2"]
        (request_id,) = answer.headers.get_list("x-request-id")
        assert request_id.startswith("req_") and len(request_id) == 26
        ids.add(request_id)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(ids) == 2
