"""Writes `contract/cases/refusals/`: what every route answers to those whom it refuses. `python -m tests.contract.refusals`.

The requests come from the route rows, the answers from the texts of the public contract, so a new route has its refusals by itself and a
text that changes in the code fails its cases.
"""

import shutil
from collections.abc import Iterator
from typing import Any

from plughub.door.routes import AUTHENTICATED, PUBLIC, SIGNED_IN, Route
from plughub.kit.caller import OPERATOR
from tests.contract.cases import CASES, Json, render
from tests.walks.rows import (
    BODY_KINDS,
    DOCUMENT,
    PATH_KINDS,
    QUERY_KINDS,
    ROWS,
    Things,
    asked_for,
    body,
    example,
    has_id,
    name,
    path,
    without_session,
)

REFUSALS = CASES / "refusals"
KINDS = sorted({*PATH_KINDS.values(), *BODY_KINDS.values()})
_TEXT = {"$any": "text"}
# Status, code on /api, code and text on /v1, text on /api: as the contract prints them.
_UNAUTHORIZED = ("UNAUTHORIZED", "Invalid API key provided", "unauthorized", "Invalid or missing API key")
_FORBIDDEN = (
    "FORBIDDEN",
    "You don't have permission to perform this action",
    "forbidden",
    "You don't have permission to perform this action",
)
_LIMITED = ("RATE_LIMITED", "Too many requests", "rate_limited", "Too many requests")
_MISSING = {
    "server": ("NOT_FOUND", "Server not found", "not_found", "MCP not found"),
    "mcp": ("NOT_FOUND", "Server not found", "not_found", "MCP not found"),
    "key": ("NOT_FOUND", "API key not found", "not_found", "API key not found"),
    # Told on `/api` and by MCP alone:
    "request": ("NOT_FOUND", "No such request", "", ""),
    "project": ("NOT_FOUND", "Project not found", "", ""),
    "profile": ("NOT_FOUND", "Profile not found", "", ""),
    "slug": ("NOT_FOUND", "Profile not found", "", ""),
    "collection": ("NOT_FOUND", "Collection not found", "", ""),
    "organization": ("NOT_FOUND", "Organization not found", "", ""),
    "member": ("NOT_FOUND", "Member not found", "not_found", "Member not found"),
    "browser": ("NOT_FOUND", "Session not found", "", ""),
    "app": ("NOT_FOUND", "App not found", "", ""),
    "grant": ("NOT_FOUND", "Grant not found", "", ""),
    "alert": ("NOT_FOUND", "Alert not found", "", ""),
    "notification": ("NOT_FOUND", "Notification not found", "", ""),
    "webhook": ("NOT_FOUND", "Webhook not found", "", ""),
    "document": ("NOT_FOUND", "Document not found", "", ""),
    "submission": ("NOT_FOUND", "No such server in the registry", "", ""),
}
# What those without an MCP session, or who read no streams, are told at the rows for those that do.
_WITHOUT_SESSION = {
    400: ("INVALID_PARAMETER", "A stream of messages is asked for with Accept: text/event-stream", "", ""),
    404: ("NOT_FOUND", "Session not found: open the stream again", "", ""),
    405: ("METHOD_NOT_ALLOWED", "GET and DELETE are for clients of the handshake revisions, and name their session", "", ""),
}
_OAUTH = {400: "invalid_request", 429: "slow_down"}
_OWN = ("/servers/{uuid}/mcp", "/mcp/{profile_slug}")  # looked up before the limit is
_COUNTERS = {f"x-ratelimit-{word}": {"$any": "digits"} for word in ("limit", "remaining", "reset")}


def noun(row: Route) -> str:
    """The file of a row: the first noun of its URL."""
    segments = [part for part in row.path.split("/") if part and not part.startswith("{")]
    if row.door == "mcp":
        return "mcp"
    if segments[0] == "oauth":
        return "oauth"
    if segments[0] not in ("api", "v1"):
        return "system"
    words = segments[1:] if segments[1] != "auth" else segments[2:]
    return ("v1-" if segments[0] == "v1" else "") + words[0].removesuffix(".json")


def implied(row: Route) -> set[int]:
    """The statuses that a row must have a case for."""
    found = {row.status}
    if row.scope != PUBLIC:
        found |= {401}
    if row.scope not in (PUBLIC, AUTHENTICATED):
        found |= {403}
    if has_id(row) and row.scope != PUBLIC:  # what is public says nothing of what exists
        found |= {404}
    if limited(row):
        found |= {429}
    if wanted := without_session(row):
        found |= {wanted}
    if example(row) is not None or numbers(row):
        found |= {422 if row.door == "v1" else 400}
    return found


def limited(row: Route) -> bool:
    """Whether a limit that is used up refuses the row. Rows of sessions count nothing, or what the session does."""
    # The organisation of an operator or a person is refused before it is counted; of a person's browsers: tests/gateway/test_cookies.py
    if row.scope in (SIGNED_IN, OPERATOR):
        return False
    return bool(row.cost) or (row.door == "mcp" and without_session(row) is None)


def numbers(row: Route) -> list[tuple[str, int]]:
    """The query parameters that have a least value, with that value."""
    described = DOCUMENT["paths"][row.path][row.method.lower()].get("parameters", ())
    schemas = [(p["name"], [p["schema"], *p["schema"].get("anyOf", ())]) for p in described if p["in"] == "query"]
    return [(name, option["minimum"]) for name, options in schemas for option in options if "minimum" in option]


def asked(row: Route, prefix: str) -> Json:
    """The row's request about things called `{prefix_kind}`."""
    things = Things.missing()
    names = {things.of(kind): f"{{{prefix}_{kind}}}" for kind in KINDS}
    request: Json = {"method": row.method, "path": _named(path(row, things), names)}
    sent = body(row, things)
    return request if sent is None else {**request, "body": _named(sent, names)}


def refusal(row: Route, status: int, texts: tuple[str, str, str, str], details: Json, headers: Json | None = None) -> Json:
    """The answer in the shape of the row's door."""
    code, text, v1_code, v1_text = texts
    head = {"headers": headers} if headers else {}
    details = {"hint": _TEXT, **details}
    if row.door == "mcp":
        data = {"code": code, "message": text, "data": {"code": code, "request_id": {"$any": "request_id"}, **details}}
        return {"status": status, **head, "body": {"jsonrpc": "2.0", "error": {**data, "code": {"$any": "integer"}}}}
    if row.door == "oauth":
        error = {"error": _OAUTH[status], "error_description": text, "request_id": {"$any": "request_id"}}
        return {"status": status, **head, "body": {"$only": error}}
    if row.door == "v1":
        error = {"code": v1_code, "message": v1_text, "details": details}
        return {"status": status, **head, "body": {"$only": {"success": False, "error": error}}}
    error = {"code": code, "message": text, "details": details}
    return {"status": status, **head, "body": {"$only": {"error": error, "message": text, "request_id": {"$any": "request_id"}}}}


def cases_of(row: Route) -> Iterator[Json]:
    """The refusals of one row."""
    yield from _callers(row)
    if has_id(row) and row.scope != PUBLIC:
        kinds = [PATH_KINDS[part[1:-1]] for part in row.path.split("/") if part[1:-1] in PATH_KINDS]
        kinds += [QUERY_KINDS[field] for field in asked_for(row)] or list(BODY_KINDS.values())
        yield _case(row, "a missing id", _good(row), asked(row, "missing"), refusal(row, 404, _MISSING[kinds[0]], {}))
    if wanted := without_session(row):
        headers = {"allow": "POST"} if wanted == 405 else None
        yield _case(row, "without a session", "operator", asked(row, "new"), refusal(row, wanted, _WITHOUT_SESSION[wanted], {}, headers))
    yield from _bad_input(row)


def _callers(row: Route) -> Iterator[Json]:
    if row.scope != PUBLIC:
        challenge = {"www-authenticate": {"$match": "^Bearer "}}
        yield _case(row, "no key", "none", asked(row, "missing"), refusal(row, 401, _UNAUTHORIZED, {}, challenge))
    if row.scope == SIGNED_IN:
        answer = refusal(row, 403, _FORBIDDEN, {"reason": "session_required"}, _COUNTERS)
        yield _case(row, "a key, and no person", "operator", asked(row, "missing"), answer)
    elif row.scope == OPERATOR:
        answer = refusal(row, 403, _FORBIDDEN, {"reason": "operator_only"}, _COUNTERS)
        yield _case(row, "a key that is not the operator's", "stranger", asked(row, "missing"), answer)
    elif row.scope not in (PUBLIC, AUTHENTICATED):
        challenge = {"www-authenticate": {"$match": f'error="insufficient_scope", (.+, )?scope="{row.scope}"'}}
        answer = refusal(row, 403, _FORBIDDEN, {"required_scope": row.scope}, challenge | _COUNTERS)
        yield _case(row, "a key without the scope", f"without {row.scope}", asked(row, "missing"), answer)
    if limited(row):
        who, policy = ("crowd", "address") if row.scope == PUBLIC else ("spent", "burst")
        details = {"policy": policy, "limit": {"$any": "integer"}, "retry_after": {"$any": "integer"}}
        request = asked(row, "own" if row.path in _OWN else "missing")
        answer = refusal(row, 429, _LIMITED, details, {"retry-after": {"$any": "digits"}, **_COUNTERS})
        yield _case(row, "over the limit", who, request, answer)


def _good(row: Route) -> str:
    """Who may ask for the row."""
    return "person" if row.scope == SIGNED_IN else "operator"


def _bad_input(row: Route) -> Iterator[Json]:
    status = 422 if row.door == "v1" else 400
    if row.door in ("mcp", "oauth"):
        if example(row) is None:
            return
        broken = {key: value for key, value in asked(row, "new").items() if key != "body"} | {"raw": "{"}
        texts = ("INVALID_PARAMETER", {"$match": "not valid JSON"}, "", "")
        yield _case(row, "a body that is not JSON", "operator", broken, refusal(row, 400, texts, {}))  # type: ignore[arg-type]
        return
    if example(row) is not None:
        request = asked(row, "new")
        request["body"] = {**request["body"], "surprise": 1}
        text: Any = {"$match": "^The 'surprise' field is "}
        texts = ("INVALID_PARAMETER", text, "validation_error", "Validation failed")
        details = {"surprise": text} if row.door == "v1" else {"field": "surprise"}
        yield _case(row, "an unknown field", _good(row), request, refusal(row, status, texts, details))
    for field, least in numbers(row)[:1]:
        request = asked(row, "new")
        request["path"] += f"?{field}={least - 1}"
        texts = ("INVALID_PARAMETER", {"$match": field}, "validation_error", "Validation failed")
        details = {field: _TEXT} if row.door == "v1" else {"field": field, "value": str(least - 1)}
        yield _case(row, f"a '{field}' that is too small", _good(row), request, refusal(row, status, texts, details))  # type: ignore[arg-type]


def _case(row: Route, what: str, who: str, request: Json, answer: Json) -> Json:
    return {"name": f"{name(row)}: {what}", "as": who, "request": request, "answer": answer}


def _named(value: Any, names: dict[str, str]) -> Any:
    """The value with ids replaced by their names in braces."""
    if isinstance(value, str):
        for id_, placeholder in names.items():
            value = value.replace(id_, placeholder)
        return value
    if isinstance(value, dict):
        return {key: _named(item, names) for key, item in value.items()}
    return value


def files() -> dict[str, str]:
    """The content of every file by its name."""
    found: dict[str, list[Json]] = {}
    for row in ROWS:
        found.setdefault(noun(row), []).extend(cases_of(row))
    return {f"{file}.json": render(entries) for file, entries in sorted(found.items()) if entries}


def main() -> None:
    """Write the files anew."""
    shutil.rmtree(REFUSALS, ignore_errors=True)
    REFUSALS.mkdir(parents=True)
    for file, text in files().items():
        (REFUSALS / file).write_text(text)


if __name__ == "__main__":
    main()
