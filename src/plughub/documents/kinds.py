"""What a file is, by its bytes; its name only tells one text from another."""

import re
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path

from plughub.kit.errors import UnsupportedMediaType

HEAD_BYTES = 8192
_MAX_NAME = 255
_DOCX_PART = "word/document.xml"
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# A slash or a colon is of no file name, and what steers a terminal or turns the direction of text is of none of ours.
_SEPARATORS = re.compile(r"[\\/:]")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: its name is the usual suffix."""

    name: str
    mime_type: str
    suffixes: tuple[str, ...]
    what: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("pdf", "application/pdf", ("pdf",), "a PDF"),
        Kind("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ("docx",), "a Word document (.docx)"),
        Kind("md", "text/markdown", ("md", "markdown"), "Markdown"),
        Kind("txt", "text/plain", ("txt", "text", ""), "plain text"),
        Kind("html", "text/html", ("html", "htm"), "HTML"),
        Kind("csv", "text/csv", ("csv",), "CSV"),
    )
}
_BY_SUFFIX = {suffix: kind.name for kind in KINDS.values() for suffix in kind.suffixes}
_HINT = f"Upload one of: {', '.join(KINDS)}"


def clean_name(name: str) -> str:
    """A file's name as it is shown: the last part of a path, without control characters; never a path, and never used as one."""
    last = _SEPARATORS.split(name)[-1]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    stem, dot, suffix = shown.rpartition(".")
    if len(shown) > _MAX_NAME:
        shown = stem[: _MAX_NAME - len(suffix) - 1] + dot + suffix if dot and len(suffix) < 20 else shown[:_MAX_NAME]
    return shown if shown.strip(".") else ""


def suffix_of(name: str) -> str:
    """What follows the last dot, in small letters; "" without one."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def sniff(path: Path, name: str) -> Kind:
    """The kind of the file at `path` that its sender calls `name`. Raises UnsupportedMediaType, saying what it is or is not."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    suffix = suffix_of(name)
    claimed = _BY_SUFFIX.get(suffix)
    found = _binary(path, head) or _text(head, claimed)
    if claimed is None and found not in ("pdf", "docx", "html"):
        raise _refused(f"Files of the type '.{suffix[:20]}' are not supported", suffix)
    if claimed in ("pdf", "docx") and found != claimed:
        raise _refused(f"The file is called .{suffix}, but its bytes are not those of {KINDS[claimed].what}", suffix)
    if claimed not in ("pdf", "docx", None) and found in ("pdf", "docx"):
        raise _refused(f"The file is called .{suffix}, but its bytes are those of {KINDS[found].what}", suffix)
    return KINDS[found]


def _binary(path: Path, head: bytes) -> str | None:
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo(_DOCX_PART)
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, NotImplementedError) as error:
        raise _refused("The file is an archive, and no Word document", "zip") from error
    return "docx"


def _text(head: bytes, claimed: str | None) -> str:
    if b"\0" in head and not head.startswith(_UTF16):
        raise _refused("The file is binary, and none of the kinds that have text to search", "binary")
    if _HTML.match(head):
        return "html"
    return claimed if claimed in ("md", "csv", "html") else "txt"


def _refused(text: str, what: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(text, field="file", value=what[:20], hint=_HINT)
