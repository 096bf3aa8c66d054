"""JSON-RPC as the API reference shows it."""

from typing import Any, Literal

from pydantic import BaseModel


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
    """One JSON-RPC message; any method of MCP."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Any = None
    params: dict[str, Any] | None = None


class RpcResponse(BaseModel):
    """The answer with the caller's own id."""

    jsonrpc: Literal["2.0"]
    id: Any
    result: dict[str, Any] | None = None
    error: RpcErrorBody | None = None
