"""Projects, profiles and servers, each changed in a unit of work of its own."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from plughub.db.engine import Database
from plughub.db.unit_of_work import UnitOfWork
from plughub.kit.caller import Caller
from plughub.kit.crypto import Sealer
from plughub.profiles import members, projects, service
from plughub.profiles.schemas import Member, MemberPatch, Profile, ProfileCreate, ProfileUpdate, Project, ProjectCreate, ProjectUpdate
from plughub.servers.schemas import Server, ServerCreate
from plughub.servers.service import create_server, get_server, update_server

T = TypeVar("T")


class Desk:
    """What the tests do, as `caller`."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer

    async def work(self, change: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        async with self.database.unit_of_work() as uow:
            return await change(uow)

    async def server(self, caller: Caller, name: str = "s", **given: Any) -> Server:
        body = ServerCreate(name=name, type="STREAMABLE_HTTP", config={"url": "http://h"}, **given)
        return await self.work(lambda uow: create_server(uow, caller, body, self.sealer))

    async def move(self, caller: Caller, server: Server, profile: Profile) -> None:
        await self.work(lambda uow: update_server(uow, caller, server.id, {"profile_uuid": profile.id}, self.sealer))

    async def home_of(self, caller: Caller, server: Server) -> str:
        async with self.database.read() as connection:
            return (await get_server(connection, caller, server.id, self.sealer)).profile_id

    async def project(self, caller: Caller, name: str = "Project", **given: Any) -> Project:
        return await self.work(lambda uow: projects.create_project(uow, caller, ProjectCreate(name=name, **given)))

    async def change_project(self, caller: Caller, project_id: str, **given: Any) -> Project:
        return await self.work(lambda uow: projects.update_project(uow, caller, project_id, ProjectUpdate(**given)))

    async def remove_project(self, caller: Caller, project_id: str, servers: service.Homeless | None = None) -> None:
        await self.work(lambda uow: projects.delete_project(uow, caller, project_id, servers))

    async def profile(self, caller: Caller, name: str = "Profile", **given: Any) -> Profile:
        return await self.work(lambda uow: service.create_profile(uow, caller, ProfileCreate(name=name, **given)))

    async def change(self, caller: Caller, profile_id: str, **given: Any) -> Profile:
        return await self.work(lambda uow: service.update_profile(uow, caller, profile_id, ProfileUpdate(**given)))

    async def remove(self, caller: Caller, profile_id: str, servers: service.Homeless | None = None) -> None:
        await self.work(lambda uow: service.delete_profile(uow, caller, profile_id, servers))

    async def put(self, caller: Caller, profile_id: str, server_id: str, names: tuple[str, ...] = (), **given: Any) -> Member:
        patch = MemberPatch(**given).model_dump(exclude_unset=True)
        return await self.work(lambda uow: members.put_member(uow, caller, profile_id, server_id, patch, names))

    async def take_out(self, caller: Caller, profile_id: str, server_id: str) -> None:
        await self.work(lambda uow: members.remove_member(uow, caller, profile_id, server_id))

    async def get(self, caller: Caller, profile_id: str) -> Profile:
        async with self.database.read() as connection:
            return await service.get_profile(connection, caller, profile_id)

    async def get_project(self, caller: Caller, project_id: str) -> Project:
        async with self.database.read() as connection:
            return await projects.get_project(connection, caller, project_id)

    async def names(self, caller: Caller, **given: Any) -> list[str]:
        async with self.database.read() as connection:
            page = await service.list_profiles(connection, caller, **{"limit": 100, "offset": 0, **given})
        assert page.total >= len(page.items)
        return [found.name for found in page.items]

    async def project_names(self, caller: Caller) -> list[str]:
        async with self.database.read() as connection:
            return [found.name for found in (await projects.list_projects(connection, caller, limit=100, offset=0)).items]


@pytest.fixture
def desk(database: Database, sealer: Sealer) -> Desk:
    return Desk(database, sealer)
