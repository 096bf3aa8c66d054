"""JSON-RPC as the API reference shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class RpcErrorBody(BaseModel):
    """A JSON-RPC error object."""

    code: int
    message: str
    data: Any = None


class RpcError(BaseModel):
    """A JSON-RPC error."""

    jsonrpc: Literal["2.0"]
    id: Any
    error: RpcErrorBody


class RpcRequest(BaseModel):
    """One JSON-RPC message; any method of MCP. Without an id it is a notification."""

    jsonrpc: Literal["2.0"]
    method: str
    # Factories: neither may be null, and a plain default would be shown as one.
    id: str | int | float = Field(default_factory=str)
    params: dict[str, Any] = Field(default_factory=dict)


class RpcResponse(BaseModel):
    """The answer with the caller's own id."""

    jsonrpc: Literal["2.0"]
    id: Any
    result: dict[str, Any] | None = None
    error: RpcErrorBody | None = None


# What is wrong with one message of a batch is told in its place of the answer, so any JSON may stand there.
RpcPost = RpcRequest | Annotated[list[Any], Field(min_length=1, max_length=50, description="A batch, which MCP 2025-03-26 alone has")]
RpcAnswer = RpcResponse | list[RpcResponse]
