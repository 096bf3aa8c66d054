"""What comes in and goes out about accounts and their sessions."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.models import Shape
from plughub.identity.passwords import MAX_LENGTH
from plughub.identity.people import MAX_EMAIL
from plughub.identity.roles import Role

_STRICT = ConfigDict(extra="forbid", strict=True)


def _printable(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("control characters are not possible here")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


PersonName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(_printable)]
Email = Annotated[str, StringConstraints(min_length=1, max_length=MAX_EMAIL), AfterValidator(_no_nul)]
Password = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH), AfterValidator(_no_nul)]
Code = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class RegisterIn(BaseModel):
    """`POST /api/auth/register`. `invitation`: the token of the link that somebody was invited with."""

    model_config = _STRICT

    name: PersonName
    email: Email
    password: Password
    invitation: Token | None = None


class LoginIn(BaseModel):
    """`POST /api/auth/login`. `code`: of the authenticator, or a backup code, for whoever has a second factor."""

    model_config = _STRICT

    email: Email
    password: Password
    code: Code | None = None


class SetupIn(BaseModel):
    """`POST /api/auth/setup`. `code`: what the first start has printed."""

    model_config = _STRICT

    code: Code
    name: PersonName
    email: Email
    password: Password


class PasswordIn(BaseModel):
    """`POST /api/auth/password`."""

    model_config = _STRICT

    current_password: Password = Field(validation_alias=AliasChoices("current_password", "currentPassword"))
    new_password: Password = Field(validation_alias=AliasChoices("new_password", "newPassword"))


class TotpIn(BaseModel):
    """`POST /api/auth/totp`."""

    model_config = _STRICT

    password: Password


class TotpConfirmIn(BaseModel):
    """`POST /api/auth/totp/confirm`."""

    model_config = _STRICT

    code: Code


class ProofIn(BaseModel):
    """`POST /api/auth/totp/disable` and `/backup-codes`: both factors once more."""

    model_config = _STRICT

    password: Password
    code: Code


class TotpOut(Shape):
    """What an authenticator needs, shown this once. `uri` is what its QR code says."""

    secret: str
    uri: str


class BackupCodesOut(Shape):
    """Each stands for a code of the authenticator once; shown this once."""

    backup_codes: list[str]


class ForgotIn(BaseModel):
    """`POST /api/auth/password/forgot`."""

    model_config = _STRICT

    email: Email


class ResetIn(BaseModel):
    """`POST /api/auth/password/reset`."""

    model_config = _STRICT

    token: Token
    password: Password


class VerifyIn(BaseModel):
    """`POST /api/auth/verify`."""

    model_config = _STRICT

    token: Token


class UserOut(Shape):
    """A person as they and their administrators see them. `verified`: the address is known to be theirs."""

    id: str
    email: str
    name: str
    verified: bool
    two_factor: bool
    created_at: str


class PlaceOut(Shape):
    """An organisation that a person belongs to."""

    id: str
    name: str
    slug: str
    role: Role


class RegisteredOut(Shape):
    """`verification_sent`: a mail tells the address what came of it, and nobody else."""

    status: Literal["registered", "verification_sent"]
    email: str
    user: UserOut | None


class LoginOut(Shape):
    """A login; the session itself is in the cookie. `organization` is the one that it acts for."""

    user: UserOut
    organization: PlaceOut
    expires_at: str


class VerifiedOut(Shape):
    """Whose address was confirmed."""

    user: UserOut


class SentOut(Shape):
    """Said of every address alike."""

    status: Literal["sent_if_known"]


class CallerOrganizationOut(Shape):
    """The organisation that a caller acts for; a key has no role in it."""

    id: str
    name: str
    slug: str
    role: Role | None


class MeOut(Shape):
    """Who the caller is: `user` is null for a key, `organizations` the person's own."""

    credential: Literal["key", "session", "token"]
    environment: Literal["live", "test"]
    scopes: list[str]
    user: UserOut | None
    organization: CallerOrganizationOut
    organizations: list[PlaceOut]


class SessionOut(Shape):
    """A browser that is logged in."""

    id: str
    current: bool
    organization_id: str
    address: str
    user_agent: str
    created_at: str
    last_seen_at: str
    expires_at: str


class SessionList(Shape):
    """All of a person's sessions: there are never many."""

    sessions: list[SessionOut]
    total: int
    limit: int
    offset: int


class PendingLinkOut(Shape):
    """A link that its address has not got by mail."""

    kind: Literal["register", "verify", "reset", "invitation"]
    email: str
    url: str
    created_at: str
    expires_at: str | None


class LinkList(Shape):
    """The newest ones."""

    links: list[PendingLinkOut]
    total: int
    limit: int
    offset: int


class EndedOut(Shape):
    """How many sessions were ended."""

    ended: int
