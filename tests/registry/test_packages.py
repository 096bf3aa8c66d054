"""Packages are downloaded whole or not at all, checked, shared, run from where they are, and removed with their last server."""

import asyncio
import hashlib
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from plughub.kit.errors import InstallFailed
from plughub.registry.launch import Package
from plughub.registry.packages import Packages
from plughub.settings import Settings
from tests.fakes.http_servers import HttpServer, Seen
from tests.fakes.registry_servers import FakeNpm
from tests.registry.documents import Json, document, package
from tests.registry.wheels import make_wheel
from tests.serving import Served

pytestmark = pytest.mark.anyio
META = "io.modelcontextprotocol.registry/publisher-provided"
TICKETS = package(
    packageArguments=[{"type": "named", "name": "--queue", "valueHint": "queue", "isRequired": True}],
    environmentVariables=[{"name": "TOKEN", "isSecret": True}],
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all that pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
async def packages(tmp_path: Path) -> AsyncIterator[Packages]:
    found = Packages(Settings(data_dir=tmp_path / "data", install_timeout_s=30, max_install_bytes=2**21))
    yield found
    await found.aclose()


async def listed(served: Served, name: str, **given: Any) -> None:
    answer = await served.call("POST", "/api/registry/submit", {"server": document(name, **given)})
    assert answer.status_code == 201, answer.text


async def install(served: Served, name: str, **env: str) -> httpx2.Response:
    return await served.call("POST", "/api/registry/install", {"server_name": name, "env": env})


def folders(packages: Packages) -> list[str]:
    return sorted(folder.name for folder in packages.home.iterdir()) if packages.home.exists() else []


async def gone(packages: Packages) -> None:
    with anyio.fail_after(10):
        while folders(packages):
            await asyncio.sleep(0)


@pytest.mark.requirement("registry.install", "registry.install-hash", "registry.uninstall", "registry.install-runs-nothing")
async def test_a_wheel_is_installed_run_shared_and_removed_with_its_last_server(served: Served, wheels: Path) -> None:
    wheel = make_wheel(wheels)
    await listed(served, "com.wheel/tickets", packages=[TICKETS])
    assert (await install(served, "tickets")).json()["error"]["details"]["field"] == "env.queue"
    found, servers = served.app.hub.registry.packages, []
    for queue in ("one", "two"):
        made = await install(served, "tickets", queue=queue, TOKEN="t0ken")
        assert made.status_code == 201, made.text
        assert "t0ken" not in made.text and made.json()["config"]["env"] == {"TOKEN": "***"}
        servers.append(made.json())
        # The second is there without a registry: the files are shared.
        wheel.rename(wheels / "away") if wheel.exists() else None
    assert len(folders(found)) == 1
    for server, queue in zip(servers, ("one", "two"), strict=True):
        called = await served.call("POST", f"/api/servers/{server['uuid']}/tools/args/execute", {"parameters": {}})
        assert called.json()["result"] == {"args": ["--queue", queue], "token": "t0ken"}
        assert server["config"]["command"].startswith(str(found.home))
    own = (await served.call("GET", "/api/registry/installed")).json()["installations"]
    digest = hashlib.sha256((wheels / "away").read_bytes()).hexdigest()
    assert [one["integrity"] for one in own] == [f"sha256-{digest}"] * 2
    await served.call("DELETE", f"/api/servers/{servers[0]['uuid']}")
    called = await served.call("POST", f"/api/servers/{servers[1]['uuid']}/tools/args/execute", {"parameters": {}})
    assert called.status_code == 200 and len(folders(found)) == 1
    await served.call("DELETE", f"/api/servers/{servers[1]['uuid']}")
    await gone(found)


@pytest.mark.requirement("registry.install-whole-or-nothing", "registry.install-hash")
async def test_an_installation_that_fails_leaves_no_server_and_no_files(lite: Served, wheels: Path) -> None:
    make_wheel(wheels, "no-command", command="")
    make_wheel(wheels, "other-hash")
    cases: list[tuple[str, Json, str]] = [
        ("absent", {}, "No matching distribution found for absent==1.0.0"),
        ("no-command", {}, "it has no command of its name"),
        ("other-hash", {"_meta": {META: {"integrity": "sha256-00"}}}, "its hash is not the one that the registry gives"),
    ]
    before = (await lite.call("GET", "/api/servers")).json()["total"]
    for name, more, reason in cases:
        await listed(lite, f"com.fails/{name}", packages=[package(name)], **more)
        answer = await install(lite, name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "UPSTREAM_ERROR"), answer.text
        assert reason in answer.json()["error"]["message"]
        [found] = (await lite.call("GET", f"/api/registry/search?q={name}")).json()["results"]
        assert found["installs"] == 0
    assert folders(lite.app.hub.registry.packages) == []
    assert (await lite.call("GET", "/api/servers")).json()["total"] == before


@pytest.mark.requirement("registry.install-whole-or-nothing")
async def test_a_server_that_cannot_be_kept_takes_its_files_along(lite: Served, wheels: Path) -> None:
    make_wheel(wheels)
    await listed(lite, "com.wheel/tickets", packages=[package()])
    async with lite.database.unit_of_work() as uow:
        trap = "CREATE TRIGGER trap BEFORE INSERT ON registry_install BEGIN SELECT RAISE(ABORT, 'trapped'); END"
        await uow.connection.exec_driver_sql(trap)
    assert (await install(lite, "tickets")).status_code == 500
    assert folders(lite.app.hub.registry.packages) == []
    async with lite.database.unit_of_work() as uow:
        await uow.connection.exec_driver_sql("DROP TRIGGER trap")


@pytest.mark.requirement("registry.install-whole-or-nothing")
@pytest.mark.parametrize(
    ("given", "reason"),
    [({"install_timeout_s": 0.2}, "it took more than 0 s"), ({"max_install_bytes": 2**20}, "it has more than 1048576 bytes")],
)
async def test_what_takes_too_long_or_too_much_is_ended(tmp_path: Path, wheels: Path, given: Json, reason: str) -> None:
    found = Packages(Settings(data_dir=tmp_path / "data", **given))
    with zipfile.ZipFile(make_wheel(wheels, "big-mcp"), "a") as archive:
        archive.writestr("big.bin", bytes(3 * 2**20))
    with pytest.raises(InstallFailed, match=reason):
        await found.download(Package("pypi", "big-mcp", "1.0.0"))
    assert folders(found) == []


@pytest.mark.requirement("registry.install-whole-or-nothing")
async def test_a_stop_breaks_an_installation_off(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels)
    found = Packages(Settings(data_dir=tmp_path / "data"))
    running = asyncio.create_task(found.download(Package("pypi", "tickets-mcp", "1.0.0")))
    with anyio.fail_after(10):
        while not folders(found):
            await asyncio.sleep(0)
    await found.aclose()
    with pytest.raises(Exception, match="The hub is stopping"):
        await running
    assert folders(found) == []


FILES = {
    "package.json": json.dumps(
        {"name": "@somebody/js", "version": "1.0.0", "bin": {"js": "run.js"}, "scripts": {"install": "touch ../../../ran"}}
    ),
    "run.js": "console.log(1)",
}


@pytest.mark.requirement("registry.install", "registry.install-hash", "registry.install-runs-nothing")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"lies": True}, "integrity"),
        ({"files": {**FILES, "package.json": json.dumps({"name": "@somebody/js", "version": "1.0.0"})}}, "no command of its name"),
        (
            {"files": {**FILES, "package.json": json.dumps({"name": "@somebody/js", "version": "1.0.0", "bin": "../../../../etc/passwd"})}},
            "not in the package",
        ),
        ({"name": "@somebody/other"}, "404"),
    ],
)
async def test_a_package_of_npm(
    packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Json, reason: str | None
) -> None:
    fake = FakeNpm(**{"name": "@somebody/js", "files": FILES, **change})

    async def answer(seen: Seen, writer: object) -> bytes:
        return await fake(seen, writer)

    async with HttpServer(answer) as server:
        fake.port = server.port
        for name, value in (("registry", f"http://127.0.0.1:{server.port}/"), ("cache", str(tmp_path / "cache")), ("fetch_retries", "0")):
            monkeypatch.setenv(f"npm_config_{name}", value)
        asked = packages.download(Package("npm", "@somebody/js", "1.0.0"))
        if reason is None:
            found = await asked
            assert found.integrity.startswith("sha512-")
            assert Path(packages.command("npm", found)[1][0]).read_text() == FILES["run.js"]
            assert not list(tmp_path.rglob("ran"))
        else:
            with pytest.raises(InstallFailed, match=reason):
                await asked
            assert folders(packages) == []
