"""A batch as the API reference shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from plughub.api.batch_plan import ID, MAX_PATH, MOST

Id = Annotated[str, StringConstraints(pattern=f"^{ID}$")]


class OperationIn(BaseModel):
    """One operation. `{{id.body.uuid}}` in its path, headers and body stands for what another one was answered."""

    model_config = ConfigDict(extra="forbid")

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, StringConstraints(pattern="^/", max_length=MAX_PATH)]
    id: Id = Field(default_factory=str, description="By default its place in the list, from 0")
    headers: dict[Literal["Accept", "Content-Type", "Idempotency-Key", "If-None-Match"], str] = Field(default_factory=dict)
    body: Any = None
    depends_on: list[Id] = Field(default_factory=list)


class BatchIn(BaseModel):
    """The body of `POST /api/batch`."""

    model_config = ConfigDict(extra="forbid")

    operations: Annotated[list[OperationIn], Field(min_length=1, max_length=MOST)]
    mode: Literal["sequential", "parallel", "atomic"] = Field(
        default="sequential", description="One after the other; as many at once as there is room for; or all in one transaction or none"
    )


class OperationOut(BaseModel):
    """What an operation was answered."""

    id: str
    index: int
    status: int
    headers: dict[str, str]
    body: Any


class BatchOut(BaseModel):
    """The answers in the order of the request; failed are those of 400 and above."""

    results: list[OperationOut]
    succeeded: int
    failed: int
