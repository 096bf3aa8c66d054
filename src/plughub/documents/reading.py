"""What reads files that anybody may have made: a program of its own, `python -m plughub.documents.reading`, with limits on its time and
memory, that hands the text over and ends. The hub starts it (`documents.readers`) and believes nothing but the size of its answer.

    text KIND FILE          the text of a file: headings as `# …`, paragraphs apart, at most MAX_TEXT_BYTES of UTF-8
    diff OLD NEW            the unified difference of two texts, at most MAX_DIFF_BYTES

On standard output: one line of JSON, then the bytes. The line is `{"truncated": bool, …}` or `{"error": why}`.
"""

import csv
import difflib
import json
import re
import resource
import signal
import sys
import zipfile
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.parsers import expat

from plughub.documents.bounds import MAX_DIFF_BYTES, MAX_TEXT_BYTES, TIME_S

MEMORY_BYTES = 1024 * 1024 * 1024
_MAX_DIFF_LINES = 50_000
_PIECE = 64 * 1024
# Of a Word document unpacked, and of one cell: beyond this it is no text that somebody wrote.
_MAX_XML_BYTES = 64 * 1024 * 1024
_MAX_CELL = 1024 * 1024
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main "
_NAMES = """address article aside blockquote body br dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr li
main nav ol p pre section table tbody td tfoot th thead tr ul"""
_BLOCKS = frozenset(_NAMES.split())
_UNSEEN = frozenset(("script", "style", "template", "noscript", "svg", "head", "title"))
_SPACE = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES = re.compile(r"\n{3,}")


class Unreadable(Exception):
    """Why the file cannot be read, in words for whoever sent it."""


class Enough(Exception):
    """There is as much text as is taken."""


class Text:
    """The text so far. `add` raises Enough when there is no room for more."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0
        self.truncated = False

    def add(self, part: str) -> None:
        """Some more of it."""
        # What no database takes, and what is no character at all.
        part = part.replace("\0", "").encode(errors="replace").decode()
        size = len(part.encode())
        if self.size + size > MAX_TEXT_BYTES:
            self.parts.append(part.encode()[: MAX_TEXT_BYTES - self.size].decode(errors="ignore"))
            self.truncated = True
            raise Enough
        self.size += size
        self.parts.append(part)


def read_text(path: Path, into: Text) -> None:
    """Plain text and Markdown: as it is."""
    for piece in _decoded(path):
        into.add(piece.replace("\r\n", "\n").replace("\r", "\n"))


def read_csv(path: Path, into: Text) -> None:
    """Every row as a paragraph that names its columns: `name: value; …`."""
    csv.field_size_limit(_MAX_CELL)
    names: list[str] = []
    try:
        for row in csv.reader(_lines(path)):
            if not names:
                names = [cell.strip() for cell in row]
                continue
            cells = (
                f"{name}: {cell.strip()}" if name else cell.strip()
                for name, cell in zip(_endless(names), row, strict=False)
                if cell.strip()
            )
            line = "; ".join(cells)
            if line:
                into.add(line + "\n\n")
        if names and not into.parts:
            into.add("; ".join(names))
    except csv.Error as error:
        raise Unreadable(f"no CSV: {error}") from error


def read_html(path: Path, into: Text) -> None:
    """What a reader sees, without what runs or styles."""
    parser = _Page(into)
    for piece in _decoded(path):
        parser.feed(piece)
    parser.close()
    parser.end_block()


def read_docx(path: Path, into: Text) -> None:
    """The paragraphs of the body; those of a heading's style as headings."""
    reader = _Word(into)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.data
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        with zipfile.ZipFile(path) as archive, archive.open("word/document.xml") as part:
            unpacked = 0
            while piece := part.read(_PIECE):
                unpacked += len(piece)
                if unpacked > _MAX_XML_BYTES:
                    raise Unreadable(f"it unpacks to more than {_MAX_XML_BYTES // 1024**2} MiB")
                parser.Parse(piece, False)
            parser.Parse(b"", True)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, NotImplementedError, RuntimeError, expat.ExpatError) as error:
        raise Unreadable(f"no Word document: {error}") from error


def read_pdf(path: Path, into: Text) -> None:
    """The text of every page."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("it is encrypted")
        for page in reader.pages:
            into.add(_tidy(page.extract_text()) + "\n\n")
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
        # The library meets what no writer of PDFs would write with whatever it stumbles over.
        raise Unreadable(f"no PDF that can be read: {error}"[:300]) from error


READERS = {"txt": read_text, "md": read_text, "csv": read_csv, "html": read_html, "docx": read_docx, "pdf": read_pdf}


class _Page(HTMLParser):
    def __init__(self, into: Text) -> None:
        super().__init__(convert_charrefs=True)
        self._into = into
        self._line: list[str] = []
        self._unseen = 0
        self._mark = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "body":
            self._unseen = 0  # a head that was never closed
        if tag in _BLOCKS:
            self.end_block()
            self._mark = "#" * int(tag[1]) + " " if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit() else "- " if tag == "li" else ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        if tag in _BLOCKS:
            self.end_block()

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._line.append(data)

    def end_block(self) -> None:
        line = " ".join("".join(self._line).split())
        self._line = []
        if line:
            self._into.add(f"{self._mark}{line}\n\n")
        self._mark = ""


class _Word:
    def __init__(self, into: Text) -> None:
        self._into = into
        self._line: list[str] = []
        self._size = 0
        self._heading = 0
        self._in_text = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == _W + "t":
            self._in_text = True
        elif name == _W + "tab":
            self._line.append("\t")
        elif name == _W + "br":
            self._line.append("\n")
        elif name == _W + "pStyle":
            style = re.fullmatch(r"(?:heading|berschrift|titre|.*rubrik)\s?([1-6])|title", attributes.get(_W + "val", ""), re.IGNORECASE)
            self._heading = 0 if style is None else int(style[1] or 1)

    def end(self, name: str) -> None:
        if name == _W + "t":
            self._in_text = False
        elif name == _W + "p":
            line = "".join(self._line).strip()
            if line:
                self._into.add(f"{'#' * self._heading} {line}\n\n".lstrip())
            self._line, self._size, self._heading = [], 0, 0

    def data(self, data: str) -> None:
        if self._in_text:
            self._line.append(data)
            self._size += len(data)
            if self._size > MAX_TEXT_BYTES:
                self._into.add("".join(self._line))


def _no_doctype(*_: Any) -> None:
    raise Unreadable("its XML declares a document type, which Word never does")


def _decoded(path: Path) -> Iterator[str]:
    """The file's characters: UTF-16 or UTF-8 by its byte order mark, UTF-8 where it is that, else Windows-1252."""
    with path.open(encoding=_encoding(path), errors="replace", newline="") as file:
        while piece := file.read(_PIECE):
            yield piece


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2 * _PIECE)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # What is cut in the middle of a character is not wrong.
        return "utf-8" if error.start > len(head) - 4 and len(head) == 2 * _PIECE else "cp1252"
    return "utf-8"


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends; one that has none is given in pieces, so that it is never whole in memory."""
    rest = ""
    for piece in _decoded(path):
        lines = (rest + piece.replace("\0", "")).splitlines(keepends=True)
        rest = lines.pop() if lines and len(lines[-1]) < _MAX_CELL else ""
        yield from lines
    if rest:
        yield rest


def _endless(names: Iterable[str]) -> Iterator[str]:
    yield from names
    while True:
        yield ""


def _tidy(text: str) -> str:
    return _LINES.sub("\n\n", _SPACE.sub(" ", text)).strip()


def extract(kind: str, path: Path) -> tuple[dict[str, Any], bytes]:
    """The head and the body of the answer to `text`."""
    into = Text()
    try:
        READERS[kind](path, into)
    except Enough:
        pass
    except Unreadable as error:
        return {"error": str(error)}, b""
    return {"truncated": into.truncated}, "".join(into.parts).encode()


def compare(old: Path, new: Path) -> tuple[dict[str, Any], bytes]:
    """The head and the body of the answer to `diff`; only the first lines of long texts are looked at."""
    before, after = (path.read_text(errors="replace").split("\n") for path in (old, new))
    truncated = max(len(before), len(after)) > _MAX_DIFF_LINES
    found: list[str] = []
    size = added = removed = 0
    for line in difflib.unified_diff(before[:_MAX_DIFF_LINES], after[:_MAX_DIFF_LINES], "old", "new", lineterm=""):
        if not line.startswith(("+++", "---")):
            added, removed = added + (line[:1] == "+"), removed + (line[:1] == "-")
        size += len(line.encode()) + 1
        if size > MAX_DIFF_BYTES:
            truncated = True
        else:
            found.append(line)
    return {"truncated": truncated, "added": added, "removed": removed}, "\n".join(found).encode()


def main() -> None:
    """Read what the arguments name."""
    signal.alarm(2 * TIME_S)  # should the hub be gone
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_S, TIME_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    what, first, second = sys.argv[1:]
    try:
        head, body = extract(first, Path(second)) if what == "text" else compare(Path(first), Path(second))
    except MemoryError:
        head, body = {"error": "it takes more memory than a document may"}, b""
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + body)


if __name__ == "__main__":
    main()
