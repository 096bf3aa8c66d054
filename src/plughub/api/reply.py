"""The two envelopes of a good answer, and paging."""

from typing import Annotated, Any

import msgspec
from fastapi import Query, Response

from plughub.kit.errors import NotFound, ServerNotFound
from plughub.kit.ids import parse_public_id, parse_uuid

Limit = Annotated[int | None, Query(ge=1, le=100, description="At most so many; without it all, up to 1,000")]
PageLimit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]
PageNumber = Annotated[int, Query(ge=1, le=10_000_000)]
PerPage = Annotated[int, Query(ge=1, le=100)]


def reply(data: Any, status: int = 200) -> Response:
    """`data` as it is: the `/api` form."""
    return Response(msgspec.json.encode(data), status, media_type="application/json")


def success(data: Any, status: int = 200, *, page: int = 0, per_page: int = 0, total: int = 0) -> Response:
    """`{"success":true,"data":…}`: the `/v1` form; with `per_page` a page."""
    body: dict[str, Any] = {"success": True, "data": data}
    if per_page:
        body["pagination"] = {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}
    return reply(body, status)


def uuid_or_404(text: str, missing: type[NotFound] = ServerNotFound) -> str:
    """The uuid in a path, of a server unless said otherwise. Raises `missing`: a malformed id is an id that nothing has."""
    found = parse_uuid(text)
    if found is None:
        raise missing
    return found


def public_or_404(prefix: str, text: str, message: str | None = None) -> str:
    """The uuid behind a prefixed id (or a uuid). Raises NotFound."""
    found = parse_public_id(prefix, text)
    if found is None:
        raise NotFound(message)
    return found
