"""The arguments of a tool as a user types them. Pure functions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plughub.cli.exits import ExitCode, Failure


def whole_arguments(text: str, place: str) -> dict[str, Any]:
    """Arguments as one JSON object. Raises Failure."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Failure(ExitCode.USAGE, f"The arguments {place} are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Failure(ExitCode.USAGE, f"The arguments {place} must be a JSON object")
    return value


def typed_arguments(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """`name=text` by the type that the tool's schema gives the name; `name:=JSON` as JSON. Raises Failure."""
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    found: dict[str, Any] = {}
    for word in words:
        name, mark, text = word.partition("=")
        if not mark or not name.rstrip(":"):
            raise Failure(ExitCode.USAGE, f"{word} is no argument: write name=value, name:=JSON, one JSON object, or - for stdin")
        if name.endswith(":"):
            name = name[:-1]
            found[name] = _json(name, text)
        else:
            found[name] = _typed(name, text, known.get(name))
    return found


def _typed(name: str, text: str, described: Any) -> Any:
    kinds = described.get("type") if isinstance(described, Mapping) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds:
        if "string" in kinds:
            return text
        return _json(name, text, f" as the tool wants it ({', '.join(map(str, kinds))})")
    if isinstance(described, Mapping) and all(isinstance(one, str) for one in described.get("enum", [None])):
        return text
    # The tool does not say: what reads as JSON is JSON.
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json(name: str, text: str, wanted: str = "") -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failure(ExitCode.USAGE, f"{name} is not JSON{wanted}: {text[:100]}") from error
