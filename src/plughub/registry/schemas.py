"""What comes in about the registry, and what the rules make of its rows."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

_STRICT = ConfigDict(extra="forbid", strict=True)
CATALOGUE, LOCAL = "catalogue", "local"
# The scope of what everybody sees.
EVERYBODY = ""
Source = Literal["registry", "community", "all"]
Sort = Literal["relevance", "recent", "popular"]


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character is not possible here")
    return text


ServerName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_nul)]
Value = Annotated[str, StringConstraints(max_length=65_536), AfterValidator(_no_nul)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_nul)]


class Install(BaseModel):
    """`POST /api/registry/install`. `env`: the values that the server's document asks for, by name, arguments and headers too."""

    model_config = _STRICT

    server_name: ServerName = Field(validation_alias=AliasChoices("server_name", "serverName"))
    profile_uuid: str | None = Field(None, validation_alias=AliasChoices("profile_uuid", "profileUuid"))
    project_uuid: str | None = Field(None, validation_alias=AliasChoices("project_uuid", "projectUuid"))
    env: Annotated[dict[Word, Value], Field(max_length=200)] = Field(default_factory=dict)


class Submit(BaseModel):
    """`POST /api/registry/submit`: `server` is a whole `server.json`; the documents' own form names a repository and little else."""

    model_config = _STRICT

    server: dict[str, Any] | None = None
    repository: Annotated[str, StringConstraints(max_length=2048)] | None = None
    description: Annotated[str, StringConstraints(max_length=100)] | None = None
    transport: Annotated[list[Word], Field(max_length=3)] | None = None
    package_type: Word | None = None
    environment_variables: Annotated[list[Word | dict[str, Any]], Field(max_length=100)] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a list shows of a server: its latest version, and what happened here."""

    id: str
    scope: str
    source: str
    name: str
    version: str
    status: str
    title: str
    description: str
    author: str
    package_type: str
    transports: tuple[str, ...]
    repository: str
    published_at: float
    updated_at: float
    installs: int
    stars: int


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for. `words`: each must be in the name, title, description or author."""

    words: tuple[str, ...] = ()
    source: Source = "all"
    package: str | None = None
    repository: str | None = None
    sort: Sort = "relevance"


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened to one server of the registry in a time."""

    scope: str
    name: str
    installs: int = 0
    calls: int = 0
    last_at: float = 0.0

    @property
    def score(self) -> int:
        """An installation counts as much as ten calls."""
        return 10 * self.installs + self.calls


@dataclass(frozen=True, slots=True)
class OwnInstall:
    """A server of the caller's that came from the registry. `latest`: the version that the registry has now."""

    server_id: str
    name: str
    version: str
    latest: str | None
    integrity: str | None
    installed_at: float

    @property
    def update(self) -> str | None:
        """The version to change to, if it is another one."""
        return self.latest if self.latest != self.version else None


@dataclass(slots=True)
class Figures:
    """Of one server: how often what it came from was installed here, in all and on each of the last seven days, today last."""

    installations: int = 0
    daily: list[int] = field(default_factory=lambda: [0] * 7)
