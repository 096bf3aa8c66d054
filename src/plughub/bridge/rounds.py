"""Input that a server needs in the middle of a request, in the two ways that MCP has for it.

Until 2025-11-25 a server sends requests of its own (`elicitation/create`, `sampling/createMessage`, `roots/list`). Since 2026-07-28 it
answers `input_required`: the client answers the questions in it and sends its request again. Pure functions over raw JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from plughub.kit.errors import InvalidParams, UpstreamError
from plughub.protocol.envelope import object_of
from plughub.protocol.facts import RawJson

# An older server's refusal of a call until its user has been to a page, and the list of pages (MCP 2025-11-25 "Elicitation").
URL_NEEDED = -32042
# The requests in whose course 2026-07-28 lets a server ask.
MAY_ASK = frozenset({"tools/call", "prompts/get", "resources/read"})
RESPONSES, STATE = "inputResponses", "requestState"
_CANCELLED = b'{"action":"cancel"}'
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a server: a method of `protocol.facts.QUESTIONS` and raw params."""

    method: str
    params: RawJson


@dataclass(frozen=True, slots=True)
class InputRequired:
    """An `input_required` result: its questions by key, and the state to send back as it came."""

    questions: Mapping[str, Asked]
    state: RawJson | None


def read_input_required(result: RawJson) -> InputRequired | None:
    """The questions of a result, or None when it is complete. Raises UpstreamError when they cannot be read."""
    if b'"input_required"' not in bytes(result):
        return None
    try:
        parts = _members.decode(result)
        if bytes(parts.get("resultType", b"")) != b'"input_required"':
            return None
        questions = {key: _asked(raw) for key, raw in _members.decode(parts.get("inputRequests", b"{}")).items()}
    except (msgspec.DecodeError, KeyError) as error:
        raise UpstreamError("MCP server sent a request for input that cannot be read", executed="unknown") from error
    state = parts.get("requestState")
    return InputRequired(questions, None if state is None else bytes(state))


def _asked(raw: RawJson) -> Asked:
    parts = _members.decode(raw)
    return Asked(_string.decode(parts["method"]), bytes(parts.get("params", b"{}")))


def write_input_required(questions: Mapping[str, Asked], state: RawJson | None) -> bytes:
    """The result that asks a client of 2026-07-28."""
    asked = {key: object_of({"method": msgspec.json.encode(each.method), "params": _params(each)}) for key, each in questions.items()}
    parts = {"resultType": b'"input_required"', "inputRequests": object_of(asked)}
    return object_of(parts if state is None else {**parts, "requestState": state})


def _params(asked: Asked) -> RawJson:
    if asked.method != "elicitation/create" or b"elicitationId" not in asked.params:
        return asked.params
    try:
        return modern_params(_members.decode(asked.params))
    except msgspec.DecodeError:
        return asked.params


def without_answers(params: Mapping[str, RawJson]) -> Mapping[str, RawJson]:
    """The params for a server that knows of no answers in a request. Raises InvalidParams for a state: nobody there gave one out."""
    if STATE in params:
        raise InvalidParams(f"params.{STATE} is not one that was given out: send the request without it")
    return params if RESPONSES not in params else {name: value for name, value in params.items() if name != RESPONSES}


def answered(params: Mapping[str, RawJson], responses: Mapping[str, RawJson], state: RawJson | None) -> dict[str, RawJson]:
    """The params of the same request once more, with the answers and the server's state."""
    found: dict[str, RawJson] = {name: value for name, value in params.items() if name not in (RESPONSES, STATE)}
    found[RESPONSES] = object_of(responses)
    if state is not None:
        found[STATE] = state
    return found


def response_of(method: str, result: RawJson | None) -> RawJson:
    """What a client's answer is to the server. An elicitation that the client refused to show was cancelled.

    Raises UpstreamError: to the other questions an error is no answer.
    """
    if result is not None:
        return result
    if method == "elicitation/create":
        return _CANCELLED
    raise UpstreamError(f"The client did not answer {method}", executed="unknown")


def read_responses(raw: RawJson | None) -> dict[str, RawJson]:
    """`inputResponses` of a request: the answers by key. Raises InvalidParams."""
    if raw is None:
        return {}
    try:
        found = {key: bytes(value) for key, value in _members.decode(raw).items()}
    except msgspec.DecodeError as error:
        raise InvalidParams(f"params.{RESPONSES} must be an object") from error
    for key, value in found.items():
        if value[:1] != b"{":
            raise InvalidParams(f"params.{RESPONSES}.{key[:100]} must be an object")
    return found


class _Pages(msgspec.Struct):
    elicitations: list[dict[str, msgspec.Raw]]


class _Refusal(msgspec.Struct):
    code: int
    data: msgspec.Raw = msgspec.Raw(b"{}")


_refusal = msgspec.json.Decoder(_Refusal)
_pages = msgspec.json.Decoder(_Pages)


def read_url_needed(error: RawJson) -> dict[str, Asked]:
    """The pages that an older server's refusal sends its user to, as questions; none when it is another error."""
    try:
        found = _refusal.decode(error)
        if found.code != URL_NEEDED:
            return {}
        pages = _pages.decode(found.data).elicitations
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {f"url{number}": Asked("elicitation/create", modern_params(page)) for number, page in enumerate(pages, 1)}


def modern_params(params: Mapping[str, RawJson]) -> bytes:
    """The params of an older server's elicitation without the id that 2026-07-28 does not know."""
    return object_of({name: value for name, value in params.items() if name != "elicitationId"})


def legacy_params(asked: Asked) -> RawJson:
    """The params of a question as 2025-11-25 wants them: an elicitation of a page has an id, made of what it says."""
    if asked.method != "elicitation/create":
        return asked.params
    try:
        params: dict[str, RawJson] = dict(_members.decode(asked.params))
    except msgspec.DecodeError:
        return asked.params
    if bytes(params.get("mode", b"")) != b'"url"' or "elicitationId" in params:
        return asked.params
    return object_of({**params, "elicitationId": b'"%b"' % blake2b(asked.params, digest_size=8).hexdigest().encode()})
