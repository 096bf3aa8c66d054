"""What comes in and goes out about organisations, their members and invitations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from plughub.api.auth_shapes import Email, PersonName, PlaceOut, Token
from plughub.api.models import Shape
from plughub.identity.roles import Role

_STRICT = ConfigDict(extra="forbid", strict=True)
Description = Annotated[str, StringConstraints(max_length=2000, pattern="^[^\\x00]*$")]
KeysChoice = Literal["keep", "revoke"]


class OrganizationIn(BaseModel):
    """`POST /api/organizations`."""

    model_config = _STRICT

    name: PersonName


class OrganizationUpdate(BaseModel):
    """`PATCH /api/organizations/{id}`, `PATCH /v1/organization`: what is not given stays."""

    model_config = _STRICT

    name: PersonName | None = None
    description: Description | None = None


class RoleIn(BaseModel):
    """Another role."""

    model_config = _STRICT

    role: Role


class InviteIn(BaseModel):
    """Whom to invite, and as what."""

    model_config = _STRICT

    email: Email
    role: Role = "member"


class RemoveIn(BaseModel):
    """What becomes of the keys that the member has made; needed when there are some."""

    model_config = _STRICT

    keys: KeysChoice | None = None


class AcceptIn(BaseModel):
    """`POST /api/invitations/accept`."""

    model_config = _STRICT

    token: Token


class OrganizationOut(Shape):
    """An organisation. `role`: the person's own in it, null for a key."""

    id: str
    name: str
    slug: str
    description: str
    tier: str
    role: Role | None
    created_at: str


class OrganizationPlace(Shape):
    """An organisation in the list of those that the caller belongs to."""

    id: str
    name: str
    slug: str
    role: Role | None


class OrganizationList(Shape):
    """All of them: there are never many."""

    organizations: list[OrganizationPlace]
    total: int
    limit: int
    offset: int


class SwitchedOut(Shape):
    """The organisation that the session acts for from now on."""

    organization: PlaceOut


class MemberOut(Shape):
    """Somebody in the organisation. `last_active_at`: null while they are logged in nowhere."""

    id: str
    email: str
    name: str
    role: Role
    verified: bool
    two_factor: bool
    joined_at: str
    last_active_at: str | None


class MemberList(Shape):
    """A page of members."""

    members: list[MemberOut]
    total: int
    limit: int
    offset: int


class LeftKey(Shape):
    """A key that a removed member has made."""

    id: str
    name: str
    prefix: str
    environment: Literal["live", "test"]
    status: Literal["active", "suspended", "revoked"]


class RemovedOut(Shape):
    """Who is out, and the keys that they have made: kept or revoked."""

    removed: bool
    user_id: str
    keys: list[LeftKey]


class InvitationOut(Shape):
    """An open invitation."""

    id: str
    email: str
    role: Role
    created_at: str
    expires_at: str


class InvitedOut(InvitationOut):
    """A new invitation. `invite_url` is its link, shown this once: whoever has the address opens it."""

    invite_url: str


class InvitationList(Shape):
    """All that are open: there are never many."""

    invitations: list[InvitationOut]
    total: int
    limit: int
    offset: int


class V1Organization(Shape):
    """The organisation as `/v1` shows it. A limit of null is none."""

    id: str
    name: str
    slug: str
    description: str
    plan: str
    created_at: str
    settings: dict[str, bool]
    limits: dict[str, int | None]
    usage: dict[str, int | None]


class V1Member(Shape):
    """A member as `/v1` shows them."""

    id: str
    email: str
    name: str
    role: Role
    joined_at: str
    last_active: str | None


class V1Invited(Shape):
    """An invitation as `/v1` shows it."""

    invite_id: str
    email: str
    role: Role
    expires_at: str
    invite_url: str


class V1RoleChanged(Shape):
    """Another role."""

    id: str
    email: str
    role: Role
    updated_at: str


class V1Removed(Shape):
    """Who is out."""

    removed: bool
    user_id: str
    keys: list[dict[str, Any]]
