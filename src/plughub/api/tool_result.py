"""A tool's result as the REST documents show it: unwrapped, with the protocol's own members beside it."""

from dataclasses import dataclass

import msgspec

from plughub.bridge.results import refuse_unread
from plughub.kit.errors import UpstreamError
from plughub.upstream.target import RawJson


class _Result(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"[]")
    structuredContent: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815  the wire's name
    isError: bool = False  # noqa: N815
    resultType: msgspec.Raw = msgspec.Raw()  # noqa: N815


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


_result = msgspec.json.Decoder(_Result)
_blocks = msgspec.json.Decoder(list[msgspec.Raw])
_block = msgspec.json.Decoder(_Block)
_anything = msgspec.json.Decoder(msgspec.Raw)
# What a JSON text can begin with; most texts fall out here.
_JSON_STARTS = frozenset('{["-0123456789tfn \t\r\n')


@dataclass(slots=True)
class ToolResult:
    """Raw JSON: `result` is what a reader of the documents wants, the others are what the server sent."""

    result: RawJson
    content: RawJson
    structured: RawJson | None
    is_error: bool


def unwrap(raw: RawJson) -> ToolResult:
    """`result` = structuredContent, else the single text block parsed as JSON, else its text, else the content."""
    try:
        read = _result.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UpstreamError("MCP server sent a result that cannot be read", executed="unknown") from error
    if read.resultType:
        refuse_unread(bytes(read.resultType))
    if bytes(read.structuredContent) != b"null":
        return ToolResult(read.structuredContent, read.content, read.structuredContent, read.isError)
    return ToolResult(_single_text(read.content), read.content, None, read.isError)


def _single_text(content: msgspec.Raw) -> RawJson:
    try:
        blocks = _blocks.decode(content)
        block = _block.decode(blocks[0]) if len(blocks) == 1 else None
    except (msgspec.DecodeError, msgspec.ValidationError):
        return content
    if block is None or block.type != "text" or block.text is None:
        return content
    text = block.text
    if text[:1] in _JSON_STARTS and text:
        encoded = text.encode()
        try:
            _anything.decode(encoded)
        except (msgspec.DecodeError, RecursionError):
            pass
        else:
            return encoded
    return msgspec.json.encode(text)
