"""The shapes of the answers about projects and profiles."""

from typing import Literal

from plughub.api.models import Shape


class ToolInProfile(Shape):
    """What a profile says of a tool; what is not there is as the server says."""

    enabled: Literal[False] | None = None
    name: str | None = None
    description: str | None = None


class ServerInProfile(Shape):
    """A server in a profile. `home`: the profile is the server's home; `enabled` and `tools` hold in this profile alone."""

    uuid: str
    slug: str
    name: str
    home: bool
    enabled: bool
    tools: dict[str, ToolInProfile]


class ServersInProfile(Shape):
    """A page of the servers of a profile."""

    servers: list[ServerInProfile]
    total: int
    limit: int
    offset: int


class ProfileOut(Shape):
    """A profile with its servers, by slug."""

    uuid: str
    slug: str
    name: str
    description: str
    project_uuid: str
    is_default: bool
    mcp_url: str
    servers: list[ServerInProfile]
    created_at: str
    updated_at: str


class ProfileList(Shape):
    """A page of profiles."""

    profiles: list[ProfileOut]
    total: int
    limit: int
    offset: int


class ProfileInProject(Shape):
    """A profile in short."""

    uuid: str
    slug: str
    name: str
    is_default: bool


class ProjectOut(Shape):
    """A project with its profiles, oldest first."""

    uuid: str
    name: str
    description: str
    is_default: bool
    default_profile_uuid: str
    profiles: list[ProfileInProject]
    created_at: str
    updated_at: str


class ProjectList(Shape):
    """A page of projects."""

    projects: list[ProjectOut]
    total: int
    limit: int
    offset: int
