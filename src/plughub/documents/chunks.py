"""A text as passages: by its headings, then its paragraphs, then its sentences. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# So much of a passage is read by a model with ease, and told by a search result in full.
TARGET = 1_000
MOST = 1_400
OVERLAP = 150
MAX_CHUNKS = 6_000
_MAX_HEADING = 200
_HEADING = re.compile(r"(#{1,6})\s+(\S.*?)\s*#*\s*\Z")
_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage, and the headings that it stands under, outermost first, ` › ` between them."""

    heading: str
    text: str


def split(text: str) -> list[Chunk]:
    """The passages of a text in their order, at most MAX_CHUNKS, none longer than MOST.

    A passage that goes on from another one of its section begins with the end of that one.
    """
    found: list[Chunk] = []
    for heading, section in _sections(text):
        for passage in _passages(section):
            found.append(Chunk(heading, passage))
            if len(found) >= MAX_CHUNKS:
                return found
    return found


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(headings, paragraphs) of each section that has text."""
    path: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        title = None if fenced or line[:1] != "#" else _HEADING.match(line)
        if title is None and line.strip():
            lines.append(line.rstrip())
            continue
        if lines:
            paragraphs.append("\n".join(lines))
            lines = []
        if title is not None:
            if paragraphs:
                yield _joined(path), paragraphs
                paragraphs = []
            level = len(title[1])
            path = [*(each for each in path if each[0] < level), (level, title[2])]
    if lines:
        paragraphs.append("\n".join(lines))
    if paragraphs:
        yield _joined(path), paragraphs


def _joined(path: list[tuple[int, str]]) -> str:
    return " › ".join(title for _, title in path)[:_MAX_HEADING]


def _passages(paragraphs: list[str]) -> Iterator[str]:
    held = ""
    for part in (piece for paragraph in paragraphs for piece in _pieces(paragraph)):
        if held and len(held) + len(part) + 2 > TARGET:
            yield held
            tail = _tail(held)
            held = f"{tail}\n\n{part}" if tail and len(tail) + len(part) + 2 <= MOST else part
        else:
            held = f"{held}\n\n{part}" if held else part
    if held:
        yield held


def _pieces(paragraph: str) -> Iterator[str]:
    """The paragraph, or so many of its sentences as fit; a sentence that does not is cut, between words where there are any."""
    if len(paragraph) <= MOST - OVERLAP:
        yield paragraph
        return
    held = ""
    for sentence in _SENTENCE_END.split(paragraph):
        for part in _cut(sentence):
            if held and len(held) + len(part) + 1 > TARGET:
                yield held
                held = part
            else:
                held = f"{held} {part}" if held else part
    if held:
        yield held


def _cut(sentence: str) -> Iterator[str]:
    at = 0
    while len(sentence) - at > TARGET:
        space = max(sentence.rfind(" ", at + TARGET // 2, at + TARGET), sentence.rfind("\n", at + TARGET // 2, at + TARGET))
        end = space if space > 0 else at + TARGET
        yield sentence[at:end].strip()
        at = end
    if rest := sentence[at:].strip():
        yield rest


def _tail(passage: str) -> str:
    """The last sentences of a passage, as far as they fit into the overlap."""
    kept = ""
    for sentence in reversed(_SENTENCE_END.split(passage[-2 * OVERLAP :])[1:]):
        if len(kept) + len(sentence) + 1 > OVERLAP:
            break
        kept = f"{sentence} {kept}" if kept else sentence
    return kept.strip()
