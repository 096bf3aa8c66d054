"""What the walks know of a row: a path with real ids in it, and a body that its schema accepts. A new route needs nothing here
unless its path names something new."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from secrets import token_urlsafe
from typing import Any

import httpx2

from plughub.api.models import ApiError, V1Error
from plughub.api.oauth_shapes import OAuthErrorOut
from plughub.api.openapi import build_openapi
from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.door.routes import AUTHENTICATED, PUBLIC, SIGNED_IN, Route
from plughub.door.shapes import RpcError
from plughub.identity.service import Organization, get_organization
from plughub.keys.service import Peppers
from plughub.kit.caller import OPERATOR
from plughub.kit.clock import SystemClock
from plughub.kit.crypto import Sealer
from plughub.kit.ids import RequestIds, new_id, parse_public_id, public_id
from plughub.settings import Settings
from tests.oauth.flow import Flow
from tests.serving import PASSWORD, Browser, Json, RawCall, Served, shown

_NOTHING = bytes(32)
ROWS = tuple(create_app(Settings(), Secrets(Peppers({1: _NOTHING}), Sealer({1: _NOTHING}))).rows)
DOCUMENT = build_openapi(ROWS)
CLOSED = tuple(row for row in ROWS if row.scope != PUBLIC)
OPERATORS = tuple(row for row in CLOSED if row.scope == OPERATOR)
PERSONAL = tuple(row for row in CLOSED if row.scope == SIGNED_IN)
SCOPED = tuple(row for row in CLOSED if row.scope not in (AUTHENTICATED, SIGNED_IN, OPERATOR))
# What everybody with the right key may ask.
OPEN = tuple(row for row in CLOSED if row.scope not in (SIGNED_IN, OPERATOR))
# The members of a path, and the members of a body that name something of the caller's.
PATH_KINDS = {
    "uuid": "server",
    "server_uuid": "server",
    "mcp_id": "mcp",
    "key_id": "key",
    "request_id": "request",
    "project_uuid": "project",
    "profile_uuid": "profile",
    "profile_slug": "slug",
    "collection_uuid": "collection",
    "share_token": "link",
    "session_id": "browser",
    "organization_id": "organization",
    "user_id": "member",
    "invitation_id": "invitation",
    "app_id": "app",
    "grant_id": "grant",
    "alert_id": "alert",
    "notification_id": "notification",
    "webhook_id": "webhook",
    "delivery_id": "delivery",
    "document_id": "document",
    "submission_id": "submission",
}
# The members of a path that name what everybody sees.
OF_EVERYBODY = {"server_name": "io.github.modelcontextprotocol%2Fserver-time", "version": "latest"}
BODY_KINDS = {"mcp_id": "mcp"}
# The members of a query that a row cannot be asked without.
QUERY_KINDS = {"key": "key", "server": "server"}
# Where the least body that the schema accepts is not enough for the rules, which ask for one of several members.
WHOLE: Mapping[str, Json] = {
    "POST /api/servers/import": {"mcpServers": {"new": {"url": "http://127.0.0.1:9/mcp"}}},
    "POST /api/collections/import": {
        "collection": {
            "plughub": "collection",
            "version": 1,
            "name": "new",
            "servers": [{"name": "new", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/mcp"}}],
        }
    },
    "POST /api/import": {
        "document": {
            "plughub": "organization",
            "version": 1,
            "exported_at": "2026-11-25T00:00:00Z",
            "environment": "live",
            "organization": {"name": "new", "description": ""},
            "projects": [{"name": "new", "profiles": [{"slug": "new", "name": "new", "is_default": True}]}],
            "servers": [
                {
                    "slug": "new",
                    "name": "new",
                    "profile": "new",
                    "type": "SSE",
                    "config": {"url": "http://127.0.0.1:9/sse"},
                    "enabled": False,
                }
            ],
            "keys": [],
            "collections": [],
            "placeholders": [],
        }
    },
    "POST /api/mcp-servers": {"name": "new", "url": "http://127.0.0.1:9/mcp"},
    "POST /api/auth/password": {"current_password": PASSWORD, "new_password": "another good one"},
    "POST /api/auth/totp": {"password": PASSWORD},
    "POST /api/registry/install": {"server_name": "weather-server"},
    "POST /api/registry/submit": {"repository": "https://example.com/somebody/server"},
    "PATCH /api/organizations/{organization_id}/members/{user_id}": {"role": "viewer"},
    "PATCH /v1/organization/members/{user_id}": {"role": "viewer"},
    "POST /api/organizations/{organization_id}/invitations": {"email": "new@example.com", "role": "member"},
    "POST /v1/organization/members/invite": {"email": "new@example.com", "role": "member"},
    "POST /api/webhooks": {"url": "https://receiver.invalid/hook", "events": ["server.*"]},
    "POST /api/integrations/{service_name}": {"webhook_url": "https://receiver.invalid/hook", "events": ["server.*"]},
    "POST /api/webhooks/{webhook_id}/recover": {"since": "2026-01-01T00:00:00Z"},
    "PATCH /api/documents/{document_id}": {"title": "Another title"},
    "POST /api/documents/bulk": {"documents": [{"title": "Several", "content": "One of several"}]},
}
SHAPES = {"api": ApiError, "plain": ApiError, "v1": V1Error, "mcp": RpcError, "oauth": OAuthErrorOut}


def name(row: Route) -> str:
    return f"{row.method} {row.path}"


@dataclass
class Things:
    """Ids of one server, one key and one request, of a project, and of a profile in it that has the server by reference, the
    profile's slug, a collection with the server and the token of its link, a session of a browser, an organisation, a member of it,
    an invitation to it and an app of it, what the member allows the app, an alert, a notification, a webhook and a delivery of it, a
    document, and a server that the organisation has submitted to the registry; real or not."""

    server: str
    key: str
    request: str = field(default_factory=RequestIds(SystemClock()).new)
    project: str = field(default_factory=new_id)
    profile: str = field(default_factory=new_id)
    slug: str = "no-such-profile"
    collection: str = field(default_factory=new_id)
    link: str = field(default_factory=lambda: token_urlsafe(24))
    browser: str = field(default_factory=lambda: public_id("ses", new_id()))
    organization: str = field(default_factory=lambda: public_id("org", new_id()))
    member: str = field(default_factory=lambda: public_id("user", new_id()))
    invitation: str = field(default_factory=lambda: public_id("inv", new_id()))
    app: str = field(default_factory=lambda: public_id("client", new_id()))
    grant: str = field(default_factory=lambda: public_id("grant", new_id()))
    alert: str = field(default_factory=lambda: public_id("alert", new_id()))
    notification: str = field(default_factory=lambda: public_id("notif", new_id()))
    webhook: str = field(default_factory=lambda: public_id("webhook", new_id()))
    delivery: str = field(default_factory=lambda: public_id("dlv", new_id()))
    document: str = field(default_factory=new_id)
    submission: str = field(default_factory=lambda: public_id("sub", new_id()))

    def of(self, kind: str) -> str:
        return {**vars(self), "mcp": public_id("mcp", self.server)}[kind]

    def ids(self) -> list[str]:
        return [*vars(self).values(), self.of("mcp")]

    def of_organization(self) -> set[str]:
        """What is not of one environment alone."""
        return {self.organization, self.member, self.invitation, self.browser, self.app, self.submission}

    @classmethod
    def missing(cls) -> "Things":
        return cls(new_id(), public_id("key", new_id()))


async def placed(served: Served, things: Things, name: str = "Place", key: str | None = None) -> Things:
    """`things` with a project, a profile, a notification, an alert, a document, a collection, an organisation and its people, and a
    webhook that are real, as its server and key are
    already; the server is put in."""
    project = (await served.call("POST", "/api/projects", {"name": name}, key=key)).json()["uuid"]
    made = (await served.call("POST", "/api/profiles", {"name": name, "project_uuid": project}, key=key)).json()
    profile, slug = made["uuid"], made["slug"]
    put = await served.call("PUT", f"/api/profiles/{profile}/servers/{things.server}", {}, key=key)
    assert put.status_code == 200, put.text
    alert = await served.call("POST", "/api/alerts", {"metric": "calls", "threshold": 1000, "server": things.server}, key=key)
    assert alert.status_code == 201, alert.text
    sent = (await served.call("POST", "/api/notifications", {"message": name}, key=key)).json()["id"]
    document = (await served.call("POST", "/api/documents", {"title": name, "content": name}, key=key)).json()["id"]
    submitted = {"repository": f"https://example.com/somebody/{new_id()}"}
    submission = (await served.call("POST", "/api/registry/submit", submitted, key=key)).json()["id"]
    own = {"alert": alert.json()["id"], "notification": sent, "document": document, "submission": submission, **await hooked(served, key)}
    given = {"name": name, "profileUuid": profile, "serverUuids": [things.server]}
    collected = (await served.call("POST", "/api/collections", given, key=key)).json()["uuid"]
    shared = await served.call("POST", f"/api/collections/{collected}/share", key=key)
    assert shared.status_code == 201, shared.text
    places = {"project": project, "profile": profile, "slug": slug, "collection": collected, "link": shared.json()["share_token"]}
    return replace(things, **places, **own, **await team(served, key))


async def hooked(served: Served, key: str | None = None) -> dict[str, str]:
    """A webhook of a key's, and a delivery to it that failed."""
    made = (await served.call("POST", "/api/webhooks", WHOLE["POST /api/webhooks"], key=key)).json()
    tried = await served.call("POST", f"/api/webhooks/{made['id']}/test", {}, key=key)
    assert tried.status_code == 200, tried.text
    return {"webhook": made["id"], "delivery": tried.json()["delivery"]["id"]}


async def team(served: Served, key: str | None = None) -> dict[str, str]:
    """The organisation of a key, a new member of it, a new invitation to it and a new app of it, which the member allows something."""
    id_ = (await served.call("GET", "/api/organizations", key=key)).json()["organizations"][0]["id"]
    async with served.database.read() as connection:
        found = await get_organization(connection, parse_public_id("org", id_) or "")
    member = await served.browser(found, "member")
    invited = await served.call(
        "POST", f"/api/organizations/{id_}/invitations", {"email": f"{new_id()}@example.com", "role": "viewer"}, key=key
    )
    assert invited.status_code == 201, invited.text
    app = await Flow.app(served, member, key)
    await app.tokens(scope="read:servers")
    grant = (await served.call("GET", "/api/oauth/grants", key=member)).json()["grants"][0]["id"]
    team = {"organization": id_, "member": public_id("user", member.user_id), "invitation": invited.json()["id"]}
    return {**team, "app": app.client_id, "grant": grant}


def has_id(row: Route) -> bool:
    """Whether the row names a thing that may be missing or somebody else's."""
    in_body = any(kind in (example(row) or {}) for kind in BODY_KINDS)
    return in_body or bool(asked_for(row)) or any(part in PATH_KINDS for part in parameters(row))


def parameters(row: Route) -> list[str]:
    return [segment[1:-1] for segment in row.path.split("/") if segment.startswith("{")]


def path(row: Route, things: Things) -> str:
    """The path with ids; a parameter that the walks do not know must be named in PATH_KINDS."""
    known = {
        **{name: things.of(kind) for name, kind in PATH_KINDS.items()},
        **{"tool": "echo", "name": "greeting", "service_name": "slack", "number": "1", "username": "nobody"},
        **OF_EVERYBODY,
    }
    found = "/".join(known[segment[1:-1]] if segment.startswith("{") else segment for segment in row.path.split("/"))
    query = "&".join(f"{field}={things.of(QUERY_KINDS[field])}" for field in asked_for(row))
    return f"{found}?{query}" if query else found


def asked_for(row: Route) -> list[str]:
    """What the query must name of the caller's; a member that the walks do not know must be named in QUERY_KINDS."""
    if row.scope == PUBLIC:  # there is no caller: what is asked for is a secret
        return []
    described = DOCUMENT["paths"][row.path][row.method.lower()].get("parameters", ())
    return [part["name"] for part in described if part["in"] == "query" and part["required"]]


def example(row: Route) -> Any:
    """The least body that the row's schema accepts, or None when it takes none."""
    if without_session(row):
        return None
    if row.door == "mcp":
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    described = DOCUMENT["paths"][row.path][row.method.lower()].get("requestBody")
    return None if described is None else _instance(described["content"]["application/json"]["schema"])


def without_session(row: Route) -> int | None:
    """What other clients are answered where a row is for those with an MCP session, or for those that read streams."""
    if "/sse" in row.path and row.door == "mcp":
        return 404 if row.method == "POST" else 400
    return 405 if row.door == "mcp" and row.method != "POST" else None


def body(row: Route, things: Things) -> Any:
    found = example(row)
    if isinstance(found, dict):
        found |= {field: things.of(kind) for field, kind in BODY_KINDS.items() if field in found}
        found |= {"tool": "echo"} if "tool" in found else {}
    return found


def whole_body(row: Route, things: Things) -> Any:
    """A body that the row does something with."""
    return WHOLE.get(name(row)) or body(row, things)


def _instance(schema: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _instance(DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return _instance(schema[word][0])
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if schema.get("type") == "object" or "properties" in schema:
        return {field: _instance(schema["properties"][field]) for field in schema.get("required", ())}
    if schema.get("pattern") == "^/":
        return "/api/servers"
    if schema.get("minItems"):
        return [_instance(schema["items"])]
    plain = {"string": "https://example.com/mcp", "integer": 1, "number": 1, "boolean": True, "array": []}
    return plain.get(schema.get("type", "object"), {})


async def credential(served: Served, row: Route, organization: Organization | None = None) -> str | Browser:
    """Who may ask for the row: the operator's key, or somebody who has just logged in where no key will do."""
    if row.scope != SIGNED_IN:
        return served.key
    return await served.browser(organization or await served.operator())


async def ask(served: Served, row: Route, things: Things, key: str | Browser | None = None, **given: Any) -> httpx2.Response:
    """One request to the row, by whoever may ask it unless said otherwise."""
    key = await credential(served, row) if key is None else key
    if row.event_source:
        return await beginning(served, path(row, things), key, **given)
    return await served.call(row.method, path(row, things), whole_body(row, things), key=key, **given)


async def beginning(served: Served, path: str, key: str | Browser, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    """An answer that may have no end, as far as its first event; then the client leaves."""
    call = RawCall(served, "GET", path, {**shown(key), **(headers or {})}, key="").piece(b"")
    running, answer = call.start(), call.answer
    await answer.until(lambda: answer.complete or b"\n\n" in answer.body)
    call.leave()
    await running
    return httpx2.Response(answer.status, headers=answer.headers, content=answer.body)


def code_of(row: Route, answer: httpx2.Response) -> str:
    found: Json = answer.json()["error"]
    if row.door == "oauth":
        return str(found)
    return str(found["data"]["code"] if row.door == "mcp" else found["code"])


def check_error(row: Route, answer: httpx2.Response, *, hint: bool = True) -> None:
    """The error has its dialect's shape, says who it is, and is stored by nobody."""
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("x-request-id")[0].startswith("req_")
    assert answer.headers.get_list("x-api-version") == ["2"]
    assert len(answer.headers.get_list("content-length")) == 1
    if not answer.content:  # HEAD
        return
    read = SHAPES[row.door].model_validate(answer.json())
    text = answer.text
    assert "Traceback" not in text and "plughub." not in text and "SELECT" not in text
    request_id = answer.headers["x-request-id"]
    if isinstance(read, ApiError):
        assert read.request_id == request_id
        assert read.message == read.error.message
        assert read.error.code == read.error.code.upper()
        assert not hint or read.error.details["hint"]
    elif isinstance(read, V1Error):
        assert read.error.code == read.error.code.lower()
        assert read.error.details["request_id"] == request_id
        assert not hint or read.error.details["hint"]
    elif isinstance(read, OAuthErrorOut):
        assert read.request_id == request_id and read.error == read.error.lower()
    elif isinstance(read, RpcError):
        assert read.error.data["request_id"] == request_id
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Basic " if row.door == "oauth" else "Bearer ")


def comparable(answer: httpx2.Response) -> tuple[int, dict[str, str], str]:
    """All of an answer but the request id and the counters."""
    request_id = answer.headers["x-request-id"]
    kept = {n: v for n, v in answer.headers.items() if n != "x-request-id" and not n.startswith(("x-ratelimit", "ratelimit"))}
    return answer.status_code, kept, answer.text.replace(request_id, "ID")


def dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
