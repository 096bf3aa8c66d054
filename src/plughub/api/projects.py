"""Projects in the Plugged.in dialect (CONTRACT section 6)."""

from typing import Annotated, Any

from fastapi import Query, Response

from plughub.api.framework import CallerDep, ReadDep, UowDep
from plughub.api.profile_shapes import ProjectList, ProjectOut
from plughub.api.reply import Offset, PageLimit, reply, uuid_or_404
from plughub.door.routes import Route
from plughub.kit.clock import rfc3339
from plughub.kit.errors import ProjectNotFound
from plughub.profiles import projects
from plughub.profiles.schemas import Project, ProjectCreate, ProjectUpdate
from plughub.profiles.service import Homeless

WithServers = Annotated[
    Homeless | None,
    Query(description="What becomes of servers at home there: `move` to the default profile, or `delete`; without it a 409 names them"),
]


async def list_projects(caller: CallerDep, connection: ReadDep, limit: PageLimit = 20, offset: Offset = 0) -> Response:
    """The projects of the caller's organisation and environment, oldest first; for a key with a server list those that hold one."""
    page = await projects.list_projects(connection, caller, limit=limit, offset=offset)
    return reply({"projects": [_shown(found) for found in page.items], "total": page.total, "limit": limit, "offset": offset})


async def create_project(caller: CallerDep, uow: UowDep, body: ProjectCreate) -> Response:
    """Make a project. It begins with a default profile of the same name."""
    return reply(_shown(await projects.create_project(uow, caller, body)), 201)


async def get_project(caller: CallerDep, connection: ReadDep, project_uuid: str) -> Response:
    """One project with its profiles."""
    return reply(_shown(await projects.get_project(connection, caller, _id(project_uuid))))


async def update_project(caller: CallerDep, uow: UowDep, project_uuid: str, body: ProjectUpdate) -> Response:
    """Change a project; what is not given stays."""
    return reply(_shown(await projects.update_project(uow, caller, _id(project_uuid), body)))


async def delete_project(caller: CallerDep, uow: UowDep, project_uuid: str, servers: WithServers = None) -> Response:
    """Remove a project with its profiles; the default project stays (409)."""
    await projects.delete_project(uow, caller, _id(project_uuid), servers)
    return Response(status_code=204)


def _shown(found: Project) -> dict[str, Any]:
    return {
        "uuid": found.id,
        "name": found.name,
        "description": found.description,
        "is_default": found.is_default,
        "default_profile_uuid": found.default_profile_id,
        "profiles": [{"uuid": one.id, "slug": one.slug, "name": one.name, "is_default": one.is_default} for one in found.profiles],
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def _id(text: str) -> str:
    return uuid_or_404(text, ProjectNotFound)


_PATH = "/api/projects"
_ONE = _PATH + "/{project_uuid}"
ROUTES = [
    Route("GET", _PATH, "read:servers", list_projects, "List projects", "Projects", output=ProjectList),
    Route("POST", _PATH, "write:servers", create_project, "Make a project", "Projects", status=201, output=ProjectOut),
    Route("GET", _ONE, "read:servers", get_project, "Get a project", "Projects", output=ProjectOut),
    Route("PATCH", _ONE, "write:servers", update_project, "Change a project", "Projects", output=ProjectOut),
    Route("DELETE", _ONE, "delete:servers", delete_project, "Remove a project", "Projects", status=204),
]
