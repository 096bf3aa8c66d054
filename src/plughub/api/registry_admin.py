"""The registry for the hub's operator: what organisations submitted, and how other registries were read."""

from functools import partial
from typing import Any

from fastapi import Response
from sqlalchemy import RowMapping

from plughub.api.framework import CallerDep, ReadDep, UowDep
from plughub.api.registry import shown_submission
from plughub.api.registry_shapes import SourceList, SubmissionList, SubmissionOut
from plughub.api.reply import Offset, PageLimit, reply
from plughub.door.routes import Route
from plughub.kit.caller import OPERATOR
from plughub.kit.clock import rfc3339
from plughub.kit.errors import ListingNotFound
from plughub.kit.ids import parse_public_id
from plughub.registry import service, store


async def list_sources(connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The registries of `PLUGHUB_REGISTRIES`: how far they were read, and what of them was refused."""
    rows = await store.list_sources(connection)
    page = [_source(row) for row in rows[offset : offset + limit]]
    return reply({"registries": page, "total": len(rows), "limit": limit, "offset": offset})


async def list_submissions(connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """What the organisations of the hub have submitted, the newest first."""
    page = await service.list_submissions(connection, limit=limit, offset=offset)
    return reply({"submissions": [shown_submission(row) for row in page.items], "total": page.total, "limit": limit, "offset": offset})


async def approve(caller: CallerDep, uow: UowDep, submission_id: str) -> Response:
    """Show a submitted server to everybody, and at `/v0.1` to other registries."""
    return reply(shown_submission(await service.approve(uow, caller, _id(submission_id))))


async def remove(caller: CallerDep, uow: UowDep, submission_id: str) -> Response:
    """Take a submitted version out of the registry. Servers that were installed from it stay."""
    return reply(shown_submission(await service.remove(uow, caller, _id(submission_id))))


def _source(row: RowMapping) -> dict[str, Any]:
    return {
        "url": row["url"],
        "entries": row["entries"],
        "synced_at": rfc3339(row["synced_at"]) if row["synced_at"] is not None else None,
        "tried_at": rfc3339(row["tried_at"]) if row["tried_at"] is not None else None,
        "last_error": row["last_error"],
        "refused": row["refused"],
        "notes": row["notes"],
    }


def _id(text: str) -> str:
    found = parse_public_id("sub", text)
    if found is None:
        raise ListingNotFound
    return found


_PATH = "/api/admin/registry"
_ONE = _PATH + "/submissions/{submission_id}"
_row = partial(Route, scope=OPERATOR, tag="Operator")
ROUTES = [
    _row("GET", _PATH + "/sources", handler=list_sources, summary="List other registries", output=SourceList),
    _row("GET", _PATH + "/submissions", handler=list_submissions, summary="List submitted servers", output=SubmissionList),
    _row("POST", _ONE + "/approve", handler=approve, summary="Show a submitted server to everybody", output=SubmissionOut),
    _row("DELETE", _ONE, handler=remove, summary="Take a submitted server out", output=SubmissionOut),
]
