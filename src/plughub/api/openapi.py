"""The API's description, OpenAPI 3.1, in one pass over the route rows.

FastAPI describes parameters and bodies; this adds what only the rows know: scopes, answers, error shapes.
"""

import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Body, Header
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from plughub import __version__
from plughub.api.models import ApiError, V1Error
from plughub.api.oauth_shapes import OAuthErrorOut
from plughub.door.routes import AUTHENTICATED, PUBLIC, SIGNED_IN, Route
from plughub.door.shapes import RpcError

_REF = "#/components/schemas/{model}"
_ERRORS = {"api": ApiError, "plain": ApiError, "v1": V1Error, "mcp": RpcError, "oauth": OAuthErrorOut}
_STREAM = "text/event-stream"
DESCRIPTION = """One place for all your MCP servers, reached by one key.

Every call carries `Authorization: Bearer <API key>`. Answers carry `X-Request-Id` and the rate-limit headers.
`/api` speaks the Plugged.in dialect, `/v1` the PlexMCP dialect, `/mcp` the Model Context Protocol.
A POST to `/api` or `/v1` with an `Idempotency-Key` is done once in 24 hours, however often it is sent."""


def build_openapi(rows: Sequence[Route]) -> dict[str, Any]:
    """The document of all rows."""
    routes = [_described(row) for row in rows]
    document = get_openapi(title="Plughub", version=__version__, openapi_version="3.1.0", description=DESCRIPTION, routes=routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ApiError, V1Error, RpcError, OAuthErrorOut):
        _add_schema(schemas, model)
    # FastAPI announces its own validation answer, which the hub never sends.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for row in rows:
        _finish(document["paths"][row.path][row.method.lower()], row, schemas)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key: `{pk|sk}_{live|test}_ph_…`"},
        "session": {"type": "apiKey", "in": "cookie", "name": "plughub", "description": "A login; over TLS `__Host-plughub`"},
    }
    components["schemas"] = dict(sorted(schemas.items()))
    return document


def render_openapi(rows: Sequence[Route]) -> str:
    """The document as the file in `contract/` holds it."""
    return json.dumps(build_openapi(rows), indent=1, ensure_ascii=False) + "\n"


def _described(row: Route) -> APIRoute:
    endpoint = _documented(row) if row.hot else row.handler
    return APIRoute(
        row.path,
        endpoint,
        methods=[row.method],
        status_code=row.status,
        tags=[row.tag],
        summary=row.summary,
        description=inspect.getdoc(row.handler) or row.summary,
        operation_id=operation_id(row),
        response_model=None,
    )


def operation_id(row: Route) -> str:
    """`get_api_servers_uuid`: stable as long as the route is."""
    words = row.path.replace("{", "").replace("}", "").replace(".", "_").replace("-", "_").strip("/").split("/")
    return "_".join([row.method.lower(), *words])


def _documented(row: Route) -> Callable[..., Awaitable[Any]]:
    """A signature for a hot row, whose handler reads the raw request."""

    async def endpoint() -> None:
        """Never called: the dispatcher answers hot rows."""

    parameters = [
        inspect.Parameter(segment[1:-1], inspect.Parameter.KEYWORD_ONLY, annotation=str)
        for segment in row.path.split("/")
        if segment.startswith("{")
    ]
    for name in row.headers:
        kind = Annotated[str, Header(alias=name)]
        parameters.append(inspect.Parameter(name.lower().replace("-", "_"), inspect.Parameter.KEYWORD_ONLY, annotation=kind))
    if row.input is not None:
        parameters.append(inspect.Parameter("body", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[row.input, Body()]))
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__doc__ = row.handler.__doc__
    return endpoint


def _finish(operation: dict[str, Any], row: Route, schemas: dict[str, Any]) -> None:
    if row.form is not None:
        operation["requestBody"]["content"]["multipart/form-data"] = {"schema": _add_schema(schemas, row.form)}
    responses = {str(row.status): _good(row, schemas)}
    if row.status == 200 and (row.tag == "Tools" or row.stream is not None):
        responses["200"]["content"][_STREAM] = {}
    if row.door == "mcp":
        responses["202"] = {"description": "A notification was taken"}
    error = {"application/json": {"schema": {"$ref": _REF.format(model=_ERRORS[row.door].__name__)}}}
    codes = ["default"] if row.scope == PUBLIC else ["401", "403", "429", "default"]
    responses |= {code: {"description": _MEANING[code], "content": error} for code in codes}
    operation["responses"] = responses
    if row.scope == PUBLIC:
        operation["security"] = []
    else:
        # A login is as good as a key wherever its role has the scope, but at the doors of MCP.
        session: list[dict[str, list[str]]] = [{"session": []}] if row.door != "mcp" else []
        operation["security"] = session if row.scope == SIGNED_IN else [{"key": []}, *session]
        operation["x-required-scope"] = "any key" if row.scope == AUTHENTICATED else row.scope


_MEANING = {
    "401": "No valid key",
    "403": "The key may not do this",
    "429": "Over a limit; see Retry-After",
    "default": "An error",
}


def _good(row: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done"}
    if row.output is not None:
        # OpenAPI 3.1 has no schema of an event stream: one of the whole text would be taken for that of an event.
        content = {} if row.output_kind == _STREAM else {"schema": _add_schema(schemas, row.output)}
        answer["content"] = {row.output_kind: content} | {kind: {} for kind in row.other_kinds}
    return answer


def _add_schema(schemas: dict[str, Any], model: Any) -> dict[str, Any]:
    """Put the model and what it refers to under components; give the reference or the inline schema."""
    schema = TypeAdapter(model).json_schema(ref_template=_REF, mode="serialization")
    for name, inner in schema.pop("$defs", {}).items():
        _put(schemas, name, inner)
    name = schema.get("title", "")
    if schema.get("type") != "object" or not name or not hasattr(model, "model_fields"):
        return schema
    name = name.replace("[", "_").replace("]", "").replace(", ", "_")
    _put(schemas, name, schema)
    return {"$ref": _REF.format(model=name)}


def _put(schemas: dict[str, Any], name: str, schema: Any) -> None:
    """Raises ValueError when another model has the name: one of them would be described as the other."""
    if schemas.setdefault(name, schema) != schema:
        raise ValueError(f"two models are called {name}")
