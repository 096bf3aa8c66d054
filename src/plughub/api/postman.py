"""The API as a Postman collection (v2.1.0): a folder a tag, a request a route, made from the rows and from what OpenAPI says of them.

It runs as a whole with two variables set, `base_url` and `api_key`: listing finds a server to call, and whatever is changed or removed
is something that the run itself has made.
"""

import json
from collections.abc import Sequence
from typing import Any

from plughub import __version__
from plughub.api.examples import BODIES, MCP_ACCEPT
from plughub.api.openapi import DESCRIPTION, build_openapi
from plughub.door.routes import PUBLIC, SIGNED_IN, Route

Json = dict[str, Any]
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
BASE_URL = "http://localhost:12005"
VARIABLES = (
    "server_uuid",
    "mcp_id",
    "new_server_uuid",
    "more_server_uuids",
    "new_mcp_id",
    "project_uuid",
    "profile_uuid",
    "profile_slug",
    "collection_uuid",
    "share_token",
    "key_id",
    "request_id",
    "organization_id",
    "app_id",
    "alert_id",
    "notification_id",
    "webhook_id",
    "delivery_id",
    "document_id",
    "more_document_id",
    "submission_id",
)
# What stands in a path; other parameters are variables of their own name.
_VALUES = {
    "uuid": "{{server_uuid}}",
    "tool": "get_weather",
    "name": "plan_a_day",
    "service_name": "slack",
    "number": "1",
    "server_name": "io.github.modelcontextprotocol%2Fserver-time",
    "version": "latest",
}
# What a query cannot do without.
_ASKED = {"key": "{{key_id}}", "server": "{{server_uuid}}", "username": "ada"}
_NEW = {"uuid": "{{new_server_uuid}}", "mcp_id": "{{new_mcp_id}}"}
_CHANGING = ("write:servers", "delete:servers")
# Servers that a run makes beside the one it works with.
_MORE = 'pm.collectionVariables.set("more_server_uuids", [pm.collectionVariables.get("more_server_uuids"), {}].join(" ").trim());'
# More than any path has segments.
_LATER = 100
# The older transport: what those are told who read no stream.
_UNHEARD = {"/sse": 400, "/servers/{uuid}/sse": 400, "/sse/messages": 404}
# It would change what the run has not made.
_OF_ALL = ("/api/notifications/read-all",)
# What later requests need of an answer, as lines of a test script.
_KEPT = {
    "POST /api/servers/import": (_MORE.format("...pm.response.json().imported.map(server => server.uuid)"),),
    "POST /api/mcp-servers": (_MORE.format("pm.response.json().uuid"),),
    "POST /api/registry/install": (_MORE.format("pm.response.json().uuid"),),
    "POST /api/registry/submit": ('pm.collectionVariables.set("submission_id", pm.response.json().id);',),
    # A run sends this one again until all of them are gone; by hand it is sent once.
    "DELETE /api/servers/{uuid}": (
        'const [next, ...more] = pm.collectionVariables.get("more_server_uuids").split(" ");',
        'pm.collectionVariables.set("more_server_uuids", more.join(" "));',
        'if (next) { pm.collectionVariables.set("new_server_uuid", next); pm.execution.setNextRequest(pm.info.requestName); }',
    ),
    "POST /api/notifications": ('pm.collectionVariables.set("notification_id", pm.response.json().id);',),
    "POST /api/oauth/apps": ('pm.collectionVariables.set("app_id", pm.response.json().id);',),
    "POST /api/alerts": ('pm.collectionVariables.set("alert_id", pm.response.json().id);',),
    "POST /api/webhooks": ('pm.collectionVariables.set("webhook_id", pm.response.json().id);',),
    "POST /api/webhooks/{webhook_id}/test": ('pm.collectionVariables.set("delivery_id", pm.response.json().delivery.id);',),
    "POST /api/documents": ('pm.collectionVariables.set("document_id", pm.response.json().id);',),
    "POST /api/documents/upload": ('pm.collectionVariables.set("more_document_id", pm.response.json().id);',),
    "DELETE /api/documents/{document_id}": (
        'const other = pm.collectionVariables.get("more_document_id");',
        'pm.collectionVariables.set("more_document_id", "");',
        'if (other) { pm.collectionVariables.set("document_id", other); pm.execution.setNextRequest(pm.info.requestName); }',
    ),
    "GET /api/logs": ('pm.collectionVariables.set("request_id", pm.response.json().logs[0].request_id);',),
    "GET /api/servers": (
        'pm.collectionVariables.set("server_uuid", pm.response.json().servers[0].uuid);',
        'pm.collectionVariables.set("mcp_id", pm.response.json().servers[0].uuid);',
    ),
    "POST /api/servers": ('pm.collectionVariables.set("new_server_uuid", pm.response.json().uuid);',),
    "GET /v1/mcps": ('pm.collectionVariables.set("mcp_id", pm.response.json().data[0].id);',),
    "POST /v1/mcps": ('pm.collectionVariables.set("new_mcp_id", pm.response.json().data.id);',),
    "GET /api/organizations": ('pm.collectionVariables.set("organization_id", pm.response.json().organizations[0].id);',),
    "POST /api/projects": ('pm.collectionVariables.set("project_uuid", pm.response.json().uuid);',),
    "GET /api/profiles": ('pm.collectionVariables.set("profile_slug", pm.response.json().profiles[0].slug);',),
    "POST /api/profiles": ('pm.collectionVariables.set("profile_uuid", pm.response.json().uuid);',),
    "POST /api/collections": ('pm.collectionVariables.set("collection_uuid", pm.response.json().uuid);',),
    "POST /api/collections/{collection_uuid}/share": ('pm.collectionVariables.set("share_token", pm.response.json().share_token);',),
    "POST /api/collections/import": (_MORE.format("...pm.response.json().imported.map(server => server.uuid)"),),
    "POST /api/auth/keys": ('pm.collectionVariables.set("key_id", pm.response.json().id);',),
    "POST /api/admin/organizations": ('pm.collectionVariables.set("organization_id", pm.response.json().id);',),
    "POST /v1/api-keys": ('pm.collectionVariables.set("key_id", pm.response.json().data.id);',),
}


def for_keys(row: Route) -> bool:
    """Whether a run with a key asks for the row: what people do is for browsers, an organisation is not made by the run, and a stream of
    events it would read for ever."""
    if row.event_source or row.path in _OF_ALL:
        return False
    of_people = row.scope == SIGNED_IN or (row.scope == PUBLIC and row.method == "POST") or row.tag == "Command line"
    of_people = of_people or row.scope == "write:profile" or "{username}" in row.path
    return not of_people and (row.method == "GET" or not row.tag.startswith("Organization"))


def build_postman(rows: Sequence[Route]) -> Json:
    """The collection of all rows that a key can ask for."""
    rows = [row for row in rows if for_keys(row)]
    described = build_openapi(rows)["paths"]
    folders: dict[str, list[Json]] = {}
    # Removed last within a folder, and what is in another thing before that: the other requests need it.
    for row in sorted(rows, key=lambda row: row.path.count("/") if row.method == "DELETE" else _LATER, reverse=True):
        folders.setdefault(row.tag, []).append(_item(row, described[row.path][row.method.lower()]))
    variables = [{"key": "base_url", "value": BASE_URL}, *({"key": name, "value": ""} for name in ("api_key", *VARIABLES))]
    return {
        "info": {"name": "Plughub", "description": DESCRIPTION, "version": __version__, "schema": SCHEMA},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{api_key}}", "type": "string"}]},
        "variable": [{**variable, "type": "string"} for variable in variables],
        "item": [{"name": tag, "item": items} for tag, items in folders.items()],
    }


def render_postman(rows: Sequence[Route]) -> str:
    """The collection as the file in `contract/` holds it."""
    return json.dumps(build_postman(rows), indent=1, ensure_ascii=False) + "\n"


def _item(row: Route, operation: Json) -> Json:
    name = f"{row.method} {row.path}"
    request: Json = {"method": row.method, "header": [], "url": _url(row, operation), "description": operation["description"]}
    if row.scope == PUBLIC:
        request["auth"] = {"type": "noauth"}
    if name in BODIES:
        request["header"].append({"key": "Content-Type", "value": "application/json"})
        body = json.dumps(BODIES[name], indent=2, ensure_ascii=False)
        request["body"] = {"mode": "raw", "raw": body, "options": {"raw": {"language": "json"}}}
    status = _answered(row)
    if row.door == "mcp" and status == row.status:
        request["header"].append({"key": "Accept", "value": MCP_ACCEPT})
    check = f'pm.test("answers {status}", () => pm.response.to.have.status({status}));'
    script = {"type": "text/javascript", "exec": [check, *_KEPT.get(name, ())]}
    return {"name": row.summary, "request": request, "event": [{"listen": "test", "script": script}], "response": []}


def _answered(row: Route) -> int:
    """The status of the answer to a run, which has no MCP session and opens no stream: it would read it forever. There it is a refusal."""
    if row.path in _UNHEARD:
        return _UNHEARD[row.path]
    return 405 if row.door == "mcp" and row.method != "POST" else row.status


def _url(row: Route, operation: Json) -> Json:
    segments = [f":{part[1:-1]}" if part.startswith("{") else part for part in row.path.strip("/").split("/")]
    values = _VALUES | (_NEW if row.scope in _CHANGING else {})
    names = [part[1:] for part in segments if part.startswith(":")]
    url: Json = {"raw": "/".join(["{{base_url}}", *segments]), "host": ["{{base_url}}"], "path": segments}
    if names:
        url["variable"] = [{"key": name, "value": values.get(name, f"{{{{{name}}}}}")} for name in names]
    asked = [parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    if asked:
        url["query"] = [
            {
                "key": parameter["name"],
                "value": _ASKED[parameter["name"]] if parameter["required"] else str(parameter["schema"].get("default", "")),
                "description": parameter.get("description", ""),
                "disabled": not parameter["required"],
            }
            for parameter in asked
        ]
        needed = "&".join(f"{part['key']}={part['value']}" for part in url["query"] if not part["disabled"])
        url["raw"] += f"?{needed}" if needed else ""
    return url
