"""FastAPI for the management routes: strict bodies, our errors, the caller and the transaction as parameters."""

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Lifespan

from plughub.api.render import render_api, render_v1
from plughub.db.audit import Actor
from plughub.db.unit_of_work import UnitOfWork
from plughub.door.actor import actor_of
from plughub.door.dispatch import SCOPE_KEY, note_outage
from plughub.door.request import ClientGone
from plughub.door.request import Request as DoorRequest
from plughub.door.routes import Route
from plughub.gateway.hub import Hub
from plughub.kit import strict_json
from plughub.kit.caller import Caller
from plughub.kit.errors import HubError, Internal, Invalid, NotFound

_SECRET = re.compile(r"password|secret|token|key|env|headers|auth|config|(?<![a-z])url")
_ECHO = 200
_LOOKED_AT = 100
# Its own would tell a collector of bodies and exceptions; the dispatcher makes the spans there are.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
_BRANCH = re.compile(r"(?:function-|tagged-|(?:literal|list|dict|constrained)\b.*\[)")
_FIELD_PLACES = ("body", "query", "path", "header")


class StrictRequest(Request):
    """A request whose body is decoded by the one strict decoder."""

    async def json(self) -> Any:
        """The body. Raises Malformed and its kin."""
        if not hasattr(self, "_json"):
            self._json = strict_json.loads(await self.body(), limit_bytes=hub_of(self).settings.max_body_bytes)
        return self._json


class StrictRoute(APIRoute):
    """A FastAPI route that reads its body through StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler with the request exchanged."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            try:
                return await handler(StrictRequest(request.scope, request.receive))
            except (RequestValidationError, HTTPException) as error:
                return await _on_hub_error(request, _freed(error))

        return strict


def hub_of(request: Request) -> Hub:
    """The running hub."""
    hub: Hub = request.app.state.hub
    return hub


def door_request(request: Request) -> DoorRequest:
    """The request as the dispatcher made it."""
    found: DoorRequest = request.scope[SCOPE_KEY]
    return found


def _caller(request: Request) -> Caller:
    return door_request(request).known_caller()


def _actor(request: Request) -> Actor:
    return actor_of(door_request(request))


async def _unit_of_work(request: Request) -> AsyncIterator[UnitOfWork]:
    shared = door_request(request).work
    if shared is not None:  # whoever opened it commits it
        yield shared
        return
    async with hub_of(request).database.unit_of_work(_actor(request)) as uow:
        yield uow


async def _read(request: Request) -> AsyncIterator[AsyncConnection]:
    shared = door_request(request).work
    if shared is not None:  # it sees what is not committed yet
        yield shared.connection
        return
    async with hub_of(request).database.read() as connection:
        yield connection


def _base_url(request: Request) -> str:
    """The hub's address as its clients know it, without a slash at the end."""
    return (hub_of(request).settings.public_url or str(request.base_url)).rstrip("/")


HubDep = Annotated[Hub, Depends(hub_of)]
BaseUrlDep = Annotated[str, Depends(_base_url)]
CallerDep = Annotated[Caller, Depends(_caller)]
# For what opens its unit of work itself, because it has waited for something else before.
ActorDep = Annotated[Actor, Depends(_actor)]
# scope="function": the commit happens before the first byte of the answer, not after it.
UowDep = Annotated[UnitOfWork, Depends(_unit_of_work, scope="function")]
ReadDep = Annotated[AsyncConnection, Depends(_read, scope="function")]


def writes_in_work(row: Route) -> bool:
    """Whether all that the row changes is changed in the unit of work of its parameter, so that others may share the transaction."""
    return not row.hot and _takes(row, UowDep)


def is_of_database(row: Route) -> bool:
    """Whether the row asks the database and nothing else, through a parameter: such a row may be part of a transaction."""
    return not row.hot and not row.reaching and (_takes(row, UowDep) or _takes(row, ReadDep))


def _takes(row: Route, dependency: Any) -> bool:
    return any(parameter.annotation == dependency for parameter in inspect.signature(row.handler).parameters.values())


def build_framework(rows: Sequence[Route], lifespan: Lifespan[FastAPI]) -> FastAPI:
    """The FastAPI application of all rows that are not hot."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False, telemetry=_NO_TELEMETRY)
    app.router.route_class = StrictRoute
    for row in rows:
        if not row.hot:
            app.add_api_route(
                row.path, row.handler, methods=[row.method], status_code=row.status, include_in_schema=False, response_model=None
            )
    app.add_exception_handler(HubError, _on_hub_error)
    app.add_exception_handler(HTTPException, _on_framework_error)
    app.add_exception_handler(SQLAlchemyError, _on_outage)
    app.add_exception_handler(OSError, _on_outage)
    app.add_exception_handler(Exception, _on_fault)
    return app


async def _on_hub_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HubError):
        raise error
    door = door_request(request)
    door.error = error
    rendered = (render_v1 if door.door == "v1" else render_api)(error, door)
    response = Response(rendered.body, rendered.status)
    response.raw_headers = [*rendered.headers, (b"cache-control", b"no-store"), (b"content-length", b"%d" % len(rendered.body))]
    return response


def _freed(error: RequestValidationError | HTTPException) -> HubError:
    """What the framework's error stands for. The framework keeps its error in the frame that the error's traceback leads to: a ring that
    holds the whole body until the garbage collector comes by, which here may be hundreds of bodies later."""
    refused = invalid_from(error.errors()) if isinstance(error, RequestValidationError) else _cause(error)
    error.__traceback__ = refused.__traceback__ = None
    return refused


def _cause(error: Exception) -> HubError:
    """FastAPI wraps what reading the body raises; what else it raises of its own is an unknown path."""
    if isinstance(error.__cause__, ClientDisconnect):
        raise ClientGone
    return error.__cause__ if isinstance(error.__cause__, HubError) else NotFound()


async def _on_framework_error(request: Request, error: Exception) -> Response:
    return await _on_hub_error(request, _cause(error))


async def _on_outage(request: Request, error: Exception) -> Response:
    outage = note_outage(error, door_request(request))
    if outage is None:
        raise error
    return await _on_hub_error(request, outage)


async def _on_fault(request: Request, error: Exception) -> Response:
    # Rendered here, re-raised by Starlette, logged by the dispatcher.
    support_url = hub_of(request).settings.support_url
    return await _on_hub_error(request, Internal(support_url=support_url) if support_url else Internal())


def invalid_from(problems: Sequence[Any]) -> Invalid:
    """Pydantic's problems as one error that names each field as the caller wrote it."""
    # The branches of a union complain one by one about the same field.
    errors = list({problem["field"]: problem for problem in map(_problem, reversed(problems[:_LOOKED_AT]))}.values())[::-1]
    first = errors[0]
    named = [{"field": e["field"], "message": e["message"]} for e in errors]
    return Invalid(first["field"], first["message"], first["value"], errors=named, v1_text=first.get("v1_text"))


def _problem(problem: Any) -> dict[str, Any]:
    place = [str(part) for part in problem["loc"]]
    if len(place) > 1 and place[0] in _FIELD_PLACES:
        place = place[1:]
    # Pydantic names the branch of a union in the path (`literal['*']`, `list[…]`); the caller wrote no such field.
    field = ".".join(part for part in place if not _BRANCH.match(part)) or "body"
    if problem["type"] == "missing":
        return {"field": field, "message": f"The '{field}' field is required", "value": None}
    if problem["type"] == "extra_forbidden":
        return {"field": field, "message": f"The '{field}' field is not known", "value": echo(field, problem.get("input"))}
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        # The documents write the same as "Must be one of: viewer, member, admin".
        choices = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        told = {"field": field, "message": f"The '{field}' field is invalid: {text}", "value": echo(field, problem.get("input"))}
        return {**told, "v1_text": f"Must be one of: {choices}"}
    return {"field": field, "message": f"The '{field}' field is invalid: {text}", "value": echo(field, problem.get("input"))}


def echo(field: str, value: Any) -> Any:
    """The caller's value for the error: cut, and hidden where the field's name says that it is a secret."""
    if _SECRET.search(field.lower()):
        return "***"
    if isinstance(value, str):
        return value[:_ECHO]
    if value is None or isinstance(value, bool | int | float):
        return value
    # Objects and lists may hold anything, a secret too: only their kind is told.
    return f"<{type(value).__name__}>"
