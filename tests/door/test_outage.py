"""A database that cannot be reached, or has no room, is a 503 at every door: it may be gone in a moment."""

import shutil
import sqlite3
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from plughub.app import create_app
from plughub.data_dir import Secrets
from plughub.db.outage import find_outage
from plughub.keys.secret import generate
from plughub.keys.service import Peppers
from plughub.kit.crypto import Sealer
from plughub.settings import Settings
from tests.serving import BASE, serving

pytestmark = pytest.mark.anyio


def told(answer: httpx2.Response) -> str:
    """The message of a 503 that says when to come again, and nothing of the driver."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert not any(word in answer.text for word in ("sqlite", "psycopg", "INSERT", "SELECT", "127.0.0.1:1", "disk is full"))
    error = answer.json()["error"]
    assert "UNAVAILABLE" in str(error).upper()
    return str(error["message"])


@pytest.mark.requirement("errors.database-down-is-503")
@pytest.mark.parametrize("path", ["/api/servers", "/v1/mcps", "/v1/mcp/invoke", "/mcp"])
async def test_a_database_that_cannot_be_reached_is_a_503_at_every_door(path: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2")
    app = create_app(settings, Secrets(Peppers({1: bytes(32)}), Sealer({1: bytes(32)})))
    headers = {"Authorization": f"Bearer {generate('secret', 'live')}", "Content-Type": "application/json"}
    transport = httpx2.ASGITransport(app=app.asgi)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        answer = await client.request("GET" if path.endswith("s") else "POST", path, headers=headers)
    assert told(answer) == "The database cannot be reached"
    await app.hub.database.aclose()


@pytest.mark.requirement("errors.database-down-is-503")
async def test_a_full_disk_is_a_503_and_over_when_there_is_room(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "full.db")
    async with serving(f"sqlite:///{tmp_path}/full.db", tmp_path) as full:
        large = {"name": "x", "type": "STREAMABLE_HTTP", "config": {"url": "http://127.0.0.1:9/", "headers": {"a": "b" * 60_000}}}
        async with full.database.unit_of_work() as uow:
            pages = (await uow.execute(text("PRAGMA page_count"))).scalar_one()
            await uow.execute(text(f"PRAGMA max_page_count = {pages}"))
        assert told(await full.call("POST", "/api/servers", large)) == "The database has no room"
        assert (await full.call("GET", "/api/servers")).status_code == 200
        async with full.database.unit_of_work() as uow:
            await uow.execute(text(f"PRAGMA max_page_count = {pages * 100}"))
        assert (await full.call("POST", "/api/servers", large)).status_code == 201


def wrapped(cause: Exception) -> OperationalError:
    return OperationalError("SELECT secret", {}, cause)


def test_our_own_faults_are_no_outage() -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(":memory:").execute("SELECT * FROM nothing")
    for error in (wrapped(caught.value), IntegrityError("x", {}, sqlite3.IntegrityError("x")), ValueError(), OSError(2, "x")):
        assert find_outage(error) is None


def test_a_busy_pool_and_a_full_disk_are_outages() -> None:
    for error in (PoolTimeout("QueuePool limit"), OSError(28, "No space left on device")):
        outage = find_outage(error)
        assert outage is not None and outage.headers["retry-after"] == "5"
