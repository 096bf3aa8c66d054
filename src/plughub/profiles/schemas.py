"""What comes in about projects and profiles, and both as the rules see them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.kit.caller import Caller
from plughub.profiles.overrides import MAX_TOOLS, Overrides

_STRICT = ConfigDict(extra="forbid", strict=True)


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_no_nul)]
Description = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_no_nul)]
Nobody = Annotated[list[Any], Field(max_length=0, description="Empty: there are no people in a project yet")]
# The characters that MCP (2025-11-25, "Tool Names") recommends, and no more of them than many clients take.
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
OwnName = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_no_nul)]
Wording = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(_no_nul)]


class ProjectCreate(BaseModel):
    """`POST /api/projects`."""

    model_config = _STRICT

    name: Name
    description: Description | None = None
    members: Nobody | None = None


class ProjectUpdate(BaseModel):
    """`PATCH /api/projects/{uuid}`: what is not given stays."""

    model_config = _STRICT

    name: Name | None = None
    description: Description | None = None
    members: Nobody | None = None


class ProfileCreate(BaseModel):
    """`POST /api/profiles`: in the default project unless another is named."""

    model_config = _STRICT

    name: Name
    description: Description | None = None
    project_uuid: str | None = Field(None, validation_alias=AliasChoices("project_uuid", "projectUuid"))


class ProfileUpdate(BaseModel):
    """`PATCH /api/profiles/{uuid}`: what is not given stays; the slug always does."""

    model_config = _STRICT

    name: Name | None = None
    description: Description | None = None
    project_uuid: str | None = Field(None, validation_alias=AliasChoices("project_uuid", "projectUuid"))


class ToolPatch(BaseModel):
    """One tool of a server in a profile; null = as the server says."""

    model_config = _STRICT

    enabled: bool | None = None
    name: ToolName | None = None
    description: Wording | None = None


class MemberPatch(BaseModel):
    """`PUT /api/profiles/{uuid}/servers/{uuid}`: merged into what there is (RFC 7386), as all changes of servers are."""

    model_config = _STRICT

    enabled: bool | None = None
    tools: Annotated[dict[OwnName, ToolPatch | None], Field(max_length=MAX_TOOLS)] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A server in a profile. `home`: the profile is the server's home; `enabled` and `overrides` hold in this profile alone."""

    server_id: str
    slug: str
    name: str
    home: bool
    enabled: bool = True
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile with its servers by id, in the order of their slugs."""

    id: str
    space_id: str
    project_id: str
    slug: str
    name: str
    description: str
    is_default: bool
    created_at: float
    updated_at: float
    members: Mapping[str, Member] = field(default_factory=dict)

    def seen_by(self, caller: Caller) -> "Profile | None":
        """The profile with the servers that the caller's grant includes; None when it is not of the caller's space, or when a
        grant that lists servers includes none of it.
        """
        if self.space_id != caller.space_id:
            return None
        if caller.servers is None:
            return self
        members = {server_id: member for server_id, member in self.members.items() if server_id in caller.servers}
        return replace(self, members=members) if members else None


@dataclass(frozen=True, slots=True)
class Project:
    """A project with its profiles, without their servers, in the order they were made."""

    id: str
    name: str
    description: str
    is_default: bool
    created_at: float
    updated_at: float
    default_profile_id: str
    profiles: tuple[Profile, ...] = ()
