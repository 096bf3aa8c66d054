"""What comes in and goes out about people as they show themselves."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.auth_shapes import PersonName
from plughub.api.models import Shape


def _no_control(text: str) -> str:
    if any((ord(character) < 32 and character not in "\n\t") or ord(character) == 127 for character in text):
        raise ValueError("control characters are not possible here")
    return text


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("an address begins with http:// or https:// and names a host")
    return url


def _handle(text: str) -> str:
    return _address(text) if ":" in text or "/" in text else text


_Address = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_address)]
_Handle = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9@._~:/?#%&=+-]+$"), AfterValidator(_handle)]
_Network = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,29}$")]


class ProfileIn(BaseModel):
    """`PATCH /api/profile`, `PATCH /api/users/profile`: what is not given stays, null takes back. `social_links`: an account's name or
    address, by network."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: PersonName | None = None
    username: Annotated[str, StringConstraints(max_length=100)] | None = None
    bio: Annotated[str, StringConstraints(max_length=1000), AfterValidator(_no_control)] | None = None
    avatar_url: _Address | None = Field(None, validation_alias=AliasChoices("avatar_url", "avatarUrl"))
    is_public: bool | None = Field(None, validation_alias=AliasChoices("is_public", "isPublic"))
    social_links: Annotated[dict[_Network, _Handle], Field(max_length=10)] | None = Field(
        None, validation_alias=AliasChoices("social_links", "socialLinks")
    )


class OfOrganization(Shape):
    """The organisation that the caller acts for."""

    id: str
    name: str
    slug: str


class ProfileSelf(Shape):
    """Who is calling, as they show themselves. A key is nobody: then all but the organisation and the environment is null or empty."""

    id: str | None
    email: str | None
    name: str | None
    username: str | None
    bio: str
    avatar_url: str | None
    social_links: dict[str, str]
    is_public: bool
    organization: OfOrganization
    environment: Literal["live", "test"]
    profile_uuid: str


class PublicUser(Shape):
    """Somebody as they show themselves to everybody. Nobody follows anybody at this hub, so those counts are 0; `servers_count` is of the
    servers in the public collections that they have made."""

    username: str
    bio: str
    avatar_url: str | None
    social_links: dict[str, str]
    is_public: bool
    followers_count: int
    following_count: int
    servers_count: int


class UsernameOut(Shape):
    """Whether a name can be had, and if not, why."""

    available: bool
    message: str | None = None
