"""Other registries are read into this one: page by page, what is hostile left out, and found when they are away."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from plughub.db.engine import Database
from plughub.registry import store
from plughub.registry.entries import load_catalogue
from plughub.registry.federation import Federation
from tests.conftest import FakeClock
from tests.fakes.http_servers import HttpServer, Seen, reply
from tests.fakes.registry_servers import FakeRegistry, entry
from tests.registry.documents import Json, document, package
from tests.serving import Served, serving

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def registry(fake: FakeRegistry) -> AsyncIterator[str]:
    async with HttpServer(fake) as server:
        yield fake.url(server)


async def sync(database: Database, *urls: str) -> None:
    await Federation(database, urls).sync()


async def kept(database: Database) -> list[tuple[str, str, str]]:
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT name, version, status FROM registry_entry WHERE is_latest AND source <> 'catalogue'"))
        return sorted((row[0], row[1], row[2]) for row in rows)


async def state(database: Database, url: str) -> Json:
    async with database.read() as connection:
        found = await store.find_source(connection, url)
    assert found is not None
    return dict(found)


@pytest.mark.requirement("registry.federation")
async def test_all_pages_are_read_and_the_next_time_only_what_is_new(database: Database, clock: FakeClock) -> None:
    changed = {"updatedAt": "2026-06-01T00:00:00Z", "publishedAt": "2026-05-01T00:00:00Z"}
    fake = FakeRegistry([[entry(document(f"com.example/s{page}{n}"), **changed) for n in range(3)] for page in range(3)])
    async with registry(fake) as url:
        await sync(database, url)
        assert [query.get("cursor") for query in fake.asked] == [None, ["1"], ["2"]]
        assert len(await kept(database)) == 9
        fake.pages = [
            [entry(document("com.example/s00", version="2.0.0"), **changed), entry(document("com.example/s01"), status="deleted")]
        ]
        clock.advance(3600)
        await sync(database, url)
        assert fake.asked[-1]["updated_since"] == ["2026-05-31T23:59:00.000Z"]
        found = await kept(database)
        assert ("com.example/s00", "2.0.0", "active") in found and ("com.example/s01", "1.0.0", "deleted") in found and len(found) == 9
    await sync(database)
    assert await kept(database) == []


@pytest.mark.requirement("registry.federation")
async def test_a_pass_that_is_cut_goes_on_where_it_stood(database: Database) -> None:
    fake = FakeRegistry([[entry(document(f"com.example/s{page}"))] for page in range(3)], status=500, good=2)
    async with registry(fake) as url:
        await sync(database, url)
        assert len(await kept(database)) == 2 and (await state(database, url))["last_error"] == "it answers 500"
        fake.status = 200
        await sync(database, url)
        assert [query.get("cursor") for query in fake.asked[2:]] == [["2"], ["2"]]
        assert len(await kept(database)) == 3 and (await state(database, url))["last_error"] is None


@pytest.mark.requirement("registry.federation", "registry.hostile-entries")
async def test_hostile_entries_are_left_out_one_by_one_with_a_note(database: Database) -> None:
    async with database.unit_of_work() as uow:
        await load_catalogue(uow)
    hostile = [
        None,
        "x",
        {"server": None},
        entry(document("no-namespace")),
        entry(document("com.example/../../x")),
        entry(document(description="x" * 2_000_000)),
        entry(document(packages=[package("--index-url=https://evil.example")])),
        entry(document(packages=[package("../../../bin/sh")])),
        entry(document(remotes=[{"type": "sse", "url": "http://169.254.169.254/latest/meta-data"}])),
        entry(document("com.example/a"), status="pwned"),
        entry(document("io.github.modelcontextprotocol/server-memory", version="9.9.9")),
        entry(document("com.example/strange"), publishedAt="9999-99-99", updatedAt=7, isLatest="yes"),
        {"server": document("com.example/plain"), "_meta": 7},
    ]
    async with registry(FakeRegistry([hostile])) as url:
        await sync(database, url)
        assert await kept(database) == [("com.example/plain", "1.0.0", "active"), ("com.example/strange", "1.0.0", "active")]
        found = await state(database, url)
        assert found["refused"] == 10 and len(found["notes"]) == 11, found
        assert {"name": "io.github.modelcontextprotocol/server-memory", "note": "The name belongs to another source"} in found["notes"]
        assert {"name": "com.example/tickets", "note": "The document has more than 65536 bytes"} in found["notes"]


@pytest.mark.requirement("registry.federation", "registry.hostile-entries")
@pytest.mark.parametrize(
    ("fake", "told"),
    [
        (FakeRegistry(raw=b"<html>"), "not a page of servers"),
        (FakeRegistry(raw=b"[" * 100_000), "not a page of servers"),
        (FakeRegistry(raw=b'{"servers": {}}'), "not a page of servers"),
        (FakeRegistry(raw=b'{"servers": [], "metadata": {"nextCursor": {}}}'), "not a page of servers"),
        (FakeRegistry(raw=b'{"servers": [], "x": "' + b"x" * 17_000_000), "more than 16777216 bytes"),
        (FakeRegistry(status=302), "it answers 302"),
        (FakeRegistry([[], [], []], cursor="1"), "round in a circle"),
    ],
)
async def test_a_registry_that_gives_no_pages_is_told_of_and_read_no_further(lite_url: str, fake: FakeRegistry, told: str) -> None:
    database = Database(lite_url, FakeClock())
    async with registry(fake) as url:
        await sync(database, url)
        assert told in (await state(database, url))["last_error"]
        assert len(fake.asked) <= 2
    await database.aclose()


@pytest.mark.requirement("registry.federation")
async def test_what_a_registry_gave_is_found_and_installed_while_it_is_away(sqlite_template: Path, tmp_path: Path) -> None:
    fake = FakeRegistry([[entry(document("com.example/faraway", title="Far away"))]])
    path = tmp_path / "hub.db"
    shutil.copyfile(sqlite_template, path)
    async with HttpServer(fake) as server, serving(f"sqlite:///{path}", tmp_path, registries=(FakeRegistry.url(server),)) as hub:
        with anyio.fail_after(10):
            while not (await hub.call("GET", "/api/registry/search?q=faraway")).json()["results"]:
                pass
        await server.close()
        await sync(hub.database, FakeRegistry.url(server))
        [found] = (await hub.call("GET", "/api/registry/search?q=faraway")).json()["results"]
        assert (found["source"], found["title"]) == (FakeRegistry.url(server), "Far away")
        assert (await hub.call("POST", "/api/registry/install", {"server_name": "faraway"})).status_code == 201
        [source] = (await hub.call("GET", "/api/admin/registry/sources")).json()["registries"]
        assert source["entries"] == 1 and "cannot be reached" in source["last_error"] and source["synced_at"]
        health = (await hub.call("GET", "/api/registry/health")).json()
        assert (health["status"], health["last_indexed"]) == ("degraded", source["synced_at"])


@pytest.mark.requirement("registry.federation", "registry.official-api")
async def test_a_hub_is_another_hubs_registry(served: Served, sqlite_template: Path, tmp_path: Path) -> None:
    """The other hub is asked over HTTP through a fake that passes on what it says."""
    made = await served.call("POST", "/api/registry/submit", {"server": document("com.example/shared")})
    hidden = await served.call("POST", "/api/registry/submit", {"server": document("com.example/hidden")})
    assert hidden.status_code == 201
    await served.call("POST", f"/api/admin/registry/submissions/{made.json()['id']}/approve")

    async def pass_on(seen: Seen, _writer: object) -> bytes:
        answer = await served.call("GET", seen.target, key="")
        return reply(answer.status_code, answer.content)

    path = tmp_path / "other.db"
    shutil.copyfile(sqlite_template, path)
    async with HttpServer(pass_on) as server, serving(f"sqlite:///{path}", tmp_path, registries=(FakeRegistry.url(server),)) as other:
        await sync(other.database, FakeRegistry.url(server))
        found = (await other.call("GET", "/api/registry/search?q=com.example")).json()["results"]
        assert "com.example/shared" in [one["name"] for one in found] and "com.example/hidden" not in [one["name"] for one in found]
        sources = [one["source"] for one in (await other.call("GET", "/api/registry/search?limit=100")).json()["results"]]
        assert sources.count("catalogue") == 15, "both have the catalogue, and each its own"
        await served.call("DELETE", f"/api/admin/registry/submissions/{made.json()['id']}")
