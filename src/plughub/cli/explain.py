"""`plughub explain`: the story of one request."""

from collections.abc import Mapping
from typing import Annotated

import typer

from plughub.cli.session import Session, segment


def explain(
    session: Session, request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="req_…, as answers and errors name it.")]
) -> None:
    """Say what happened to a request: its route, its key, its server, how long it took, what went wrong."""
    found = session.ask("GET", f"/api/logs/{segment(request_id)}")
    if session.screen.as_json:
        session.screen.json(found)
    else:
        session.screen.fields(found if isinstance(found, Mapping) else {"result": found})
