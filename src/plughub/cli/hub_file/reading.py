"""YAML as a tree in which everything knows its line. Only what JSON could say, too: no anchors, no tags, no key twice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plughub.cli.exits import ExitCode, Failure

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
# YAML 1.1 reads `no` as false and a time as a date; what is meant as either is said so by the form, not by the word.
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})")


@dataclass(frozen=True, slots=True)
class Node:
    """A text, number, boolean or None, a list of nodes or a dict of nodes by name; and the line where it begins."""

    value: Any
    line: int


class Document:
    """A file, and how its mistakes are told."""

    def __init__(self, name: str) -> None:
        self.name = name

    def wrong(self, line: int, text: str) -> Failure:
        """A mistake in words, to be raised."""
        return Failure(ExitCode.USAGE, f"{self.name}:{line}: {text}")

    def read(self, data: bytes) -> Node:
        """The one document of the file. Raises Failure naming the line."""
        if len(data) > MAX_BYTES:
            raise Failure(ExitCode.USAGE, f"{self.name} is larger than {MAX_BYTES:,} bytes")
        try:
            events = yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
            return self._document(self._judged(events))
        except UnicodeDecodeError as error:
            raise Failure(ExitCode.USAGE, f"{self.name} is not UTF-8 text") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.wrong(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}") from error
        except yaml.reader.ReaderError as error:
            line = data.decode("utf-8-sig").count("\n", 0, error.position) + 1
            raise self.wrong(line, f"the character {error.character!r} is not allowed") from error

    def _judged(self, events: Iterator[Any]) -> Iterator[Any]:
        """The events, without those that mean nothing here. Raises Failure at what is refused."""
        depth = documents = 0
        for event in events:
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self.wrong(line, "anchors and aliases are not read: write it out")
            if (tag := getattr(event, "tag", None)) is not None:
                raise self.wrong(line, f"tags are not read: {tag}")
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.wrong(line, "a second document begins: there is one in a file")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise self.wrong(line, f"nested deeper than {MAX_DEPTH} levels")
            if not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent | yaml.DocumentStartEvent | yaml.DocumentEndEvent):
                yield event

    def _document(self, events: Iterator[Any]) -> Node:
        first = next(events, None)
        if first is None:
            raise Failure(ExitCode.USAGE, f"{self.name} is empty")
        root = self._node(first, events)
        next(events, None)  # to the end: a second document is refused
        return root

    def _node(self, event: Any, events: Iterator[Any]) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            return Node(_plain(event.value) if event.implicit[0] and event.style is None else event.value, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node([self._node(inner, events) for inner in _until(events, yaml.SequenceEndEvent)], line)
        found: dict[str, Node] = {}
        for key in _until(events, yaml.MappingEndEvent):
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarEvent):
                raise self.wrong(at, "a name must be a text")
            if key.value == "<<":
                raise self.wrong(at, "merge keys are not read: write it out")
            if key.value in found:
                raise self.wrong(at, f"'{key.value[:100]}' stands here twice; first in line {found[key.value].line}")
            found[key.value] = Node(self._node(next(events), events).value, at)
        return Node(found, line)


def _until(events: Iterator[Any], end: type) -> Iterator[Any]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _NUMBER.fullmatch(text) else text


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises Failure."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(ExitCode.USAGE, f"{path} cannot be read: {error.strerror}") from error
