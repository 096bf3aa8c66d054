"""Bodies of events held against the schemas of `contract/events.json`, strictly: no member that is not promised."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy import select

from plughub.db.engine import Database
from plughub.db.tables import event, organization, space
from plughub.db.unit_of_work import Event
from plughub.events.body import event_body
from plughub.events.log import event_of
from plughub.events.published import INTERNAL

NOBODY = "00000000-0000-0000-0000-000000000000"
DOCUMENT = Path(__file__).resolve().parents[2] / "contract" / "events.json"


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(_strict(_document()["events"][name]["data"]))


@cache
def _envelope() -> Draft202012Validator:
    return Draft202012Validator(_strict(_document()["envelope"]) | {"additionalProperties": False})


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in schema:
        return schema
    return schema | {"additionalProperties": False, "properties": {name: _strict(part) for name, part in schema["properties"].items()}}


def check_body(body: dict[str, Any]) -> None:
    """Raise AssertionError where the body is not as promised."""
    problems = [*_envelope().iter_errors(body), *_validator(body["event"]).iter_errors(body["data"])]
    assert not problems, f"{body['event']}: {'; '.join(problem.message for problem in problems)}: {body}"
    assert body["event"] == body["type"]


async def check_events(events: Sequence[Event]) -> None:
    """A listener of the database: whatever a test makes a hub raise is as promised."""
    for found in events:
        if found.name not in INTERNAL:
            check_body(event_body(found, NOBODY, "0"))


async def check_log(database: Database, most: int = 20) -> set[str]:
    """Hold the newest events of each name in the database against their schemas; the names that there are."""
    names = set()
    async with database.read() as connection:
        found = await connection.execute(select(event.c.name).distinct().where(event.c.name.not_in(INTERNAL)))
        for name in found.scalars().all():
            query = select(event).where(event.c.name == name).order_by(event.c.at.desc()).limit(most)
            for row in (await connection.execute(query)).mappings().all():
                about = select(space.c.epoch, organization.c.id).join(organization).where(space.c.id == row["space_id"])
                epoch, organization_id = (await connection.execute(about)).one()
                check_body(event_body(event_of(row), organization_id, epoch))
            names.add(name)
    return names
