"""What comes in and goes out when somebody leaves, or takes along what is theirs."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from plughub.api.auth_shapes import Code, Password

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
