"""What the row of a tool call tells beside its columns: sizes, texts of errors, and arguments and result where they are captured."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from plughub.protocol.envelope import object_of
from plughub.upstream.redact import HIDDEN, Redactor
from plughub.upstream.target import RawJson, Target

# Of a text about a failure, the hub's own or the server's.
MAX_TEXT = 4_000
# Of arguments, and of a result, as they are kept: what is larger is cut, and what is far larger is not even looked at.
MAX_CAPTURED = 8_192
MAX_LOOKED_AT = 65_536
_HEAD = 4_096
_DEPTH = 64
_REDACTORS = 256
# Members whose value nobody should find in a log, whatever the server.
_SECRET = re.compile(
    r"pass(word|wd|phrase)|secret|token|api[-_]?key|private[-_]?key|access[-_]?key|authori[sz]ation|credential|cookie", re.I
)
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
Facts = dict[str, Any]


class _Error(msgspec.Struct):
    message: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class _Block(msgspec.Struct):
    text: str = ""


class _Result(msgspec.Struct):
    content: list[_Block] = []


_error = msgspec.json.Decoder(_Error)
_result = msgspec.json.Decoder(_Result)


class Redactors:
    """One for each server's newest configuration; a few hundred are kept."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, Redactor]] = OrderedDict()

    def of(self, target: Target) -> Redactor:
        """The one that takes out this server's secrets."""
        found = self._kept.get(target.server_id)
        if found is None or found[0] != target.revision:
            found = self._kept[target.server_id] = (target.revision, Redactor(target))
            if len(self._kept) > _REDACTORS:
                self._kept.popitem(last=False)
        return found[1]


def sized(told: str, bytes_in: int, bytes_out: int) -> str:
    """The JSON object `told` with the sizes of arguments and result; on the way of every call, so without a parser."""
    return f'{told[:-1]}{"" if told == "{}" else ","}"in":{bytes_in},"out":{bytes_out}}}'


def with_facts(told: str, facts: Mapping[str, Any], context: RawJson | None) -> str:
    """The JSON object `told` with further members, and the caller's own note."""
    parts: dict[str, RawJson] = {name: msgspec.json.encode(value) for name, value in facts.items()}
    parts |= _parts.decode(told)
    if context is not None:
        parts["context"] = context
    return str(object_of(parts), "utf-8")


def text_of_error(error: RawJson | None, redact: Redactor) -> str:
    """What a server's JSON-RPC error says, with its data, without the server's secrets."""
    try:
        read = _error.decode(error or b"{}")
    except msgspec.DecodeError:
        return redact.head(bytes(error or b""), MAX_TEXT)
    data = bytes(read.data)[: MAX_TEXT + redact.reach].decode(errors="replace")
    return redact(f"{read.message}\n{data}" if data else read.message, MAX_TEXT)


def text_of_result(result: RawJson, redact: Redactor) -> str:
    """What a tool's own error says, without the server's secrets."""
    try:
        return redact("\n".join(block.text for block in _result.decode(result).content if block.text), MAX_TEXT)
    except msgspec.DecodeError:
        return redact.head(bytes(result), MAX_TEXT)


def captured(value: RawJson, redact: Redactor) -> Any:
    """Arguments or a result as they are kept: without the server's secrets, and without the value of any member that sounds like one.

    What is too large is `{"truncated": true, "bytes", "head"?}`.
    """
    size = len(value)
    if size > MAX_LOOKED_AT:
        return {"truncated": True, "bytes": size}
    try:
        shown = _clean(msgspec.json.decode(value), redact, _DEPTH)
    except (msgspec.DecodeError, RecursionError):
        return {"truncated": True, "bytes": size}
    whole = msgspec.json.encode(shown)
    if len(whole) > MAX_CAPTURED:
        return {"truncated": True, "bytes": size, "head": whole[:_HEAD].decode(errors="replace")}
    return shown


def _clean(value: Any, redact: Redactor, depth: int) -> Any:
    if depth == 0:
        return HIDDEN
    if isinstance(value, dict):
        return {redact(name): HIDDEN if _SECRET.search(name) else _clean(item, redact, depth - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, redact, depth - 1) for item in value]
    if isinstance(value, str):
        return redact(value)
    # A secret may be a number, too.
    return value if value is None or isinstance(value, bool) or redact(str(value)) == str(value) else HIDDEN
