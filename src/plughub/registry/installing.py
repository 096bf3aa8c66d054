"""Installing a server of the registry: what it asks for, its package, and the server that comes of it, or nothing at all."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, Select, delete, insert, select, update

from plughub.db.audit import Actor, Deed
from plughub.db.engine import Database
from plughub.db.registry_tables import registry_install, registry_package
from plughub.db.unit_of_work import UnitOfWork
from plughub.events.catalogue import SERVER_INSTALLED, ServerInstalled
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.kit.ids import new_id
from plughub.registry.activity import note_install
from plughub.registry.documents import BUILTIN
from plughub.registry.launch import Package, Plan, choose, plan
from plughub.registry.packages import Installed, Packages
from plughub.registry.schemas import Install
from plughub.registry.service import get_listed
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.service import create_server, require_home, require_transport, require_whole_grant

_META = "io.modelcontextprotocol.registry/publisher-provided"
_DEMO = Path(__file__).parents[1] / "demo_server.py"
package = registry_package.c


@dataclass(frozen=True, slots=True)
class _Ready:
    """A package whose files are there. `row_id` is None for one that was just downloaded: its row comes with the server."""

    package: Package
    files: Installed
    row_id: str | None


class Installer:
    """Makes servers of what the registry lists."""

    def __init__(self, database: Database, sealer: Sealer, packages: Packages) -> None:
        self._database = database
        self._sealer = sealer
        self._packages = packages

    async def install(self, caller: Caller, actor: Actor, body: Install) -> Server:
        """Download what is needed, then make the server. The right to it, the values and the place are judged before the download.

        Raises ListingNotFound, Conflict (ambiguous, or nothing that the hub can run), Invalid (naming each value that is missing),
        Forbidden (STDIO not allowed, a key with a server list), InstallFailed, Unavailable; none of them leaves anything behind.
        """
        require_whole_grant(caller)
        async with self._database.read() as connection:
            listed = await get_listed(connection, caller, body.server_name)
            await require_home(connection, caller, body.profile_uuid, body.project_uuid)
        document = json.loads(listed["document"])
        way = choose(document, stdio=caller.operator or caller.stdio_allowed)
        if "registryType" in way:
            require_transport(caller, "STDIO")
        made = plan(way, body.env, _pinned(document))
        if made.package is None or made.package.kind == BUILTIN:
            async with self._database.unit_of_work(actor) as uow:
                return await self._make(uow, caller, body, listed, made, None)
        while True:
            ready = await self._ready(made.package)
            try:
                async with self._database.unit_of_work(actor) as uow:
                    if ready.row_id is None or await _hold(uow, ready.row_id):
                        return await self._make(uow, caller, body, listed, made, ready)
            except BaseException:
                if ready.row_id is None:
                    await self._packages.remove(ready.files.folder)
                raise

    async def _ready(self, wanted: Package) -> _Ready:
        """The package as it was downloaded before, or downloaded now."""
        same = [package.kind == wanted.kind, package.identifier == wanted.identifier, package.version == wanted.version]
        same.append(package.extras == " ".join(wanted.extras))
        if wanted.integrity is not None:
            same.append(package.integrity == wanted.integrity)
        async with self._database.read() as connection:
            row = (await connection.execute(select(registry_package).where(*same).order_by(package.id.desc()).limit(1))).mappings().first()
        if row is not None and (self._packages.home / row["folder"] / row["script"]).is_file():
            return _Ready(wanted, Installed(row["folder"], row["script"], row["integrity"], row["size_bytes"]), row["id"])
        return _Ready(wanted, await self._packages.download(wanted), None)

    async def _make(self, uow: UnitOfWork, caller: Caller, body: Install, listed: RowMapping, made: Plan, ready: _Ready | None) -> Server:
        create = ServerCreate(
            name=listed["title"],
            type=made.transport,
            config=self._config(made, ready),
            description=listed["description"],
            profile_uuid=body.profile_uuid,
            project_uuid=body.project_uuid,
        )
        server = await create_server(uow, caller, create, self._sealer)
        package_id = None if ready is None else ready.row_id or await _keep(uow, ready)
        await note_install(uow, caller, listed, server.id, package_id)
        data: ServerInstalled = {
            "server_uuid": server.id,
            "name": server.name,
            "slug": server.slug,
            "type": server.transport,
            "registry_name": listed["name"],
            "version": listed["version"],
        }
        uow.emit(SERVER_INSTALLED, space_id=caller.space_id, server_id=server.id, data=data)
        after = {"registry_name": listed["name"], "version": listed["version"], "integrity": ready.files.integrity if ready else None}
        uow.audit(Deed(SERVER_INSTALLED, "server", server.id, server.name, server.space_id, before={}, after=after))
        return server

    def _config(self, made: Plan, ready: _Ready | None) -> dict[str, Any]:
        if made.package is None:
            return {"url": made.url, "headers": made.headers}
        command, first = (
            (sys.executable, ["-I", "-S", str(_DEMO)]) if ready is None else self._packages.command(made.package.kind, ready.files)
        )
        return {"command": command, "args": [*first, *made.args], "secret_args": made.secret_args, "env": made.env}


async def sweep(database: Database, packages: Packages) -> None:
    """Remove the packages that no server uses any more, and folders that nobody knows."""
    used = select(registry_install.c.package_id).where(
        registry_install.c.package_id == package.id, registry_install.c.server_id.is_not(None)
    )
    unused = select(package.id, package.folder).where(~used.exists())
    async with database.read() as connection:
        ids = list((await connection.execute(unused)).scalars())
    for folder in await _forget(database, ids, unused) if ids else ():
        await packages.remove(folder)
    async with database.read() as connection:
        known = set((await connection.execute(select(package.folder))).scalars())
    await packages.remove_orphans(known)


async def _forget(database: Database, ids: list[str], unused: Select[Any]) -> list[str]:
    """Remove rows that are still unused once they are held: an installation holds the row that it uses."""
    async with database.unit_of_work() as uow:
        await uow.execute(select(package.id).where(package.id.in_(ids)).order_by(package.id).with_for_update())
        rows = (await uow.execute(unused.where(package.id.in_(ids)))).all()
        gone = [row.id for row in rows]
        await uow.execute(update(registry_install).where(registry_install.c.package_id.in_(gone)).values(package_id=None))
        await uow.execute(delete(registry_package).where(package.id.in_(gone)))
    return [row.folder for row in rows]


async def _hold(uow: UnitOfWork, row_id: str) -> bool:
    """Keep the package until the commit; False when it has just gone."""
    return (await uow.execute(select(package.id).where(package.id == row_id).with_for_update(read=True))).first() is not None


async def _keep(uow: UnitOfWork, ready: _Ready) -> str:
    wanted, files, row_id = ready.package, ready.files, new_id()
    values: dict[str, Any] = {"id": row_id, "kind": wanted.kind, "identifier": wanted.identifier, "version": wanted.version}
    values |= {"extras": " ".join(wanted.extras), "integrity": files.integrity, "folder": files.folder, "script": files.script}
    await uow.execute(insert(registry_package).values(**values, size_bytes=files.size_bytes, created_at=uow.clock.time()))
    return row_id


def _pinned(document: Mapping[str, Any]) -> str | None:
    """The hash that the document gives for its package: `sha512-…` as npm writes it, or `sha256-…` in hexadecimal."""
    with suppress(AttributeError):
        found = (document.get("_meta") or {}).get(_META, {}).get("integrity")
        return found if isinstance(found, str) else None
    return None
