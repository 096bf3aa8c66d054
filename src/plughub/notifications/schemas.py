"""The body of a notification that somebody sends."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

_MAX_METADATA = 4096
# Of this hub: two slashes at the beginning would be another's.
_OWN_PATH = r"^/([A-Za-z0-9_\-.~%?&=][A-Za-z0-9_\-.~%/?&=]*)?$"


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("NUL is not allowed")
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(value)
    if len(text) > _MAX_METADATA:
        raise ValueError(f"it is longer than {_MAX_METADATA} bytes")
    if "\\u0000" in text:
        raise ValueError("NUL is not allowed")
    return value


class NotificationCreate(BaseModel):
    """`POST /api/notifications`. Without `user_id` it is for everybody; `link` is a path of the hub."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True), AfterValidator(_no_nul)]
    title: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_no_nul)] | None = None
    severity: Literal["INFO", "SUCCESS", "WARNING", "ALERT"] = "INFO"
    send_email: bool = Field(
        False, validation_alias=AliasChoices("send_email", "sendEmail"), description="To the owners and administrators"
    )
    metadata: Annotated[dict[str, Any], AfterValidator(_small)] = Field(default_factory=dict)
    user_id: Annotated[str, StringConstraints(max_length=100)] | None = Field(None, validation_alias=AliasChoices("user_id", "userId"))
    link: Annotated[str, StringConstraints(max_length=500, pattern=_OWN_PATH)] | None = None


class MailPreference(BaseModel):
    """`PATCH /api/notifications/preferences`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    email: bool
