"""What comes in and goes out at `/oauth`, as the API reference shows it."""

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.models import Shape
from plughub.keys.schemas import Description, Name, Scopes
from plughub.oauth.redirects import MAX_REDIRECTS

_STRICT = ConfigDict(extra="forbid", strict=True)
RedirectUris = Annotated[list[str], Field(min_length=1, max_length=MAX_REDIRECTS)]
UserCode = Annotated[str, StringConstraints(min_length=1, max_length=50)]


class TokenIn(BaseModel):
    """`POST /oauth/token`, as JSON or as a form; what a parameter is for is in RFC 6749, 7636, 8628 and 8707."""

    grant_type: str
    client_id: str = Field(default_factory=str)
    client_secret: str = Field(default_factory=str)
    code: str = Field(default_factory=str)
    redirect_uri: str = Field(default_factory=str)
    code_verifier: str = Field(default_factory=str)
    refresh_token: str = Field(default_factory=str)
    device_code: str = Field(default_factory=str)
    scope: str = Field(default_factory=str)
    resource: str = Field(default_factory=str)


class TokenOut(Shape):
    """Tokens (RFC 6749 section 5.1). The refresh token is good once: the answer to it holds the next one."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str
    scope: str


class TokenNamed(BaseModel):
    """`POST /oauth/revoke` and `/oauth/introspect`."""

    token: str
    token_type_hint: str = Field(default_factory=str)
    client_id: str = Field(default_factory=str)
    client_secret: str = Field(default_factory=str)


class Introspection(BaseModel):
    """RFC 7662; of a token that is not good, or is another client's, `active` alone."""

    active: bool
    client_id: str = ""
    scope: str = ""
    sub: str = ""
    aud: str = ""
    iss: str = ""
    exp: int = 0
    iat: int = 0
    token_type: str = ""


class RegistrationIn(BaseModel):
    """`POST /oauth/register` (RFC 7591); other members are ignored."""

    redirect_uris: list[str]
    client_name: str = Field(default_factory=str)
    token_endpoint_auth_method: str = Field(default_factory=str)
    grant_types: list[str] = Field(default_factory=list)
    response_types: list[str] = Field(default_factory=list)
    scope: str = Field(default_factory=str)
    client_uri: str = Field(default_factory=str)


class RegistrationOut(BaseModel):
    """The client as it was registered; its secret, if it has one, is in this answer and nowhere else."""

    client_id: str
    client_id_issued_at: int
    client_name: str
    redirect_uris: list[str]
    grant_types: list[str]
    response_types: list[str]
    token_endpoint_auth_method: str
    client_secret: str = ""
    client_secret_expires_at: int = 0
    scope: str = ""
    client_uri: str = ""


class DeviceIn(BaseModel):
    """`POST /oauth/device_authorization` (RFC 8628)."""

    client_id: str
    client_secret: str = Field(default_factory=str)
    scope: str = Field(default_factory=str)
    resource: str = Field(default_factory=str)


class DeviceOut(Shape):
    """What to show, and what to ask the token endpoint with every `interval` seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class ServerMetadata(Shape):
    """Authorization server metadata (RFC 8414)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    device_authorization_endpoint: str
    scopes_supported: list[str]
    response_types_supported: list[str]
    response_modes_supported: list[str]
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    code_challenge_methods_supported: list[str]
    authorization_response_iss_parameter_supported: bool
    client_id_metadata_document_supported: bool
    service_documentation: str


class AppIn(BaseModel):
    """`POST /api/oauth/apps`. `confidential`: it has a server that can keep a secret. `scopes`: the most it may ask for; null = any."""

    model_config = _STRICT

    name: Name
    redirect_uris: RedirectUris = Field(validation_alias=AliasChoices("redirect_uris", "redirectUris"))
    description: Description = ""
    confidential: bool = True
    scopes: Scopes | None = None


class AppPatch(BaseModel):
    """`PATCH /api/oauth/apps/{app_id}`: what is not given stays."""

    model_config = _STRICT

    name: Name | None = None
    redirect_uris: RedirectUris | None = Field(None, validation_alias=AliasChoices("redirect_uris", "redirectUris"))
    description: Description | None = None
    scopes: Scopes | None = None


class AppOut(Shape):
    """An app of the organisation. Its id is the `client_id`."""

    id: str
    client_id: str
    name: str
    description: str
    redirect_uris: list[str]
    confidential: bool
    scopes: list[str] | None
    created_at: str


class AppCreated(AppOut):
    """The secret is in this answer and nowhere else; null for an app that can keep none."""

    client_secret: str | None


class AppSecret(Shape):
    """Another secret; the one before is worth nothing from now on."""

    id: str
    client_id: str
    client_secret: str


class AppList(Shape):
    """A page of the organisation's apps."""

    apps: list[AppOut]
    total: int
    limit: int
    offset: int


class GrantOut(Shape):
    """What somebody allows a client. `servers`: `"*"` or their ids; `resource`: the one door that it is for."""

    id: str
    client_id: str
    client_name: str
    organization_id: str
    organization_name: str
    scopes: list[str]
    servers: Literal["*"] | list[str]
    resource: str | None
    created_at: str
    expires_at: str


class GrantList(Shape):
    """A page of a person's grants."""

    grants: list[GrantOut]
    total: int
    limit: int
    offset: int


class CliBegun(Shape):
    """What a command line shows, and asks with."""

    device_code: str
    user_code: str
    verification_url: str
    expires_in: int
    interval: int


class CliPolled(BaseModel):
    """`api_key` comes once, in the first answer after the approval."""

    status: Literal["authorization_pending", "approved"]
    api_key: str = ""


class CliApproveIn(BaseModel):
    """`POST /api/cli/auth/approve`. With a project the key has the servers of that alone."""

    model_config = _STRICT

    user_code: UserCode = Field(validation_alias=AliasChoices("user_code", "userCode"))
    project_uuid: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, validation_alias=AliasChoices("project_uuid", "projectUuid")
    )


class CliDenyIn(BaseModel):
    """`POST /api/cli/auth/deny`."""

    model_config = _STRICT

    user_code: UserCode = Field(validation_alias=AliasChoices("user_code", "userCode"))


class CliDecided(Shape):
    """What was said."""

    status: Literal["approved", "denied"]


class OAuthErrorOut(BaseModel):
    """RFC 6749 section 5.2."""

    error: str
    error_description: str
    request_id: str
