"""What comes in and goes out when somebody leaves, or takes along what is theirs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.auth_shapes import Code, Password
from plughub.api.models import Shape
from plughub.leaving.schemas import OrganizationDocument

_STRICT = ConfigDict(extra="forbid", strict=True)


class GoodbyeIn(BaseModel):
    """`DELETE /api/organizations/{id}`: both factors once more; `code` where there is a second one."""

    model_config = _STRICT

    password: Password
    code: Code | None = None


class FarewellIn(GoodbyeIn):
    """`DELETE /api/settings/account`. `keys`: what becomes of those that the person has made; `organizations`: those that nobody else is
    in go along."""

    keys: Literal["keep", "revoke"] | None = Field(None, description="Asked for when there are keys")
    organizations: Literal["delete"] | None = Field(None, description="Asked for when there are such organizations")


class ImportIn(BaseModel):
    """`POST /api/import`. `values`: what the placeholders of the document stand for, by name."""

    model_config = _STRICT

    document: OrganizationDocument
    values: Annotated[dict[str, Annotated[str, StringConstraints(max_length=65_536)]], Field(max_length=100_000)] = Field(
        default_factory=dict
    )


class SettledOut(Shape):
    """What was made: the ids of profiles and servers by their slugs in the document. Keys are made anew by hand: `keys_left_out`."""

    profiles: dict[str, str]
    servers: dict[str, str]
    collections: int
    keys_left_out: list[str]


class PersonExport(Shape):
    """What the hub knows of a person."""

    plughub: Literal["person"]
    version: Literal[1]
    exported_at: str
    user: dict[str, Any]
    profile: dict[str, Any]
    organizations: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    collections: list[dict[str, Any]]
    grants: list[dict[str, Any]]
