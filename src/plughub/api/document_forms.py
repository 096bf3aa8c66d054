"""A form with a file, read as it comes in: the file goes to disk, never into memory as a whole."""

from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from plughub.api.framework import invalid_from
from plughub.documents.library import Landing
from plughub.documents.schemas import DocumentForm, Incoming
from plughub.door.request import ClientGone, Request
from plughub.kit import strict_json
from plughub.kit.errors import Invalid, Malformed, PayloadTooLarge

_MAX_FIELDS_BYTES = 64 * 1024
_OF_METADATA = ("title", "description", "category", "tags")
_KNOWN = frozenset(("title", "description", "category", "tags", "metadata", "changeSummary", "change_summary", "summary"))
_HINT = "Send multipart/form-data with a part 'file', or a JSON body"


def is_form(request: Request) -> bool:
    """Whether the body says that it is a form."""
    return request.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() == b"multipart/form-data"


def validated(model: type[BaseModel], raw: bytes, limit_bytes: int) -> Any:
    """A JSON body as the model. Raises Malformed, Invalid, PayloadTooLarge."""
    try:
        return model.model_validate(strict_json.loads(raw, limit_bytes=limit_bytes))
    except ValidationError as error:
        raise invalid_from(error.errors()) from None


async def read_form(request: Request, landing: Landing, limit_bytes: int) -> tuple[Incoming, DocumentForm]:
    """The file, and what stands beside it. Raises Malformed, Invalid, PayloadTooLarge, ClientGone."""
    _, options = parse_options_header(request.headers[b"content-type"])
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Malformed("The Content-Type names no boundary", hint=_HINT)
    announced = int(request.headers.get(b"content-length", b"0"))
    if announced > limit_bytes + _MAX_FIELDS_BYTES:
        raise PayloadTooLarge("The document is too large", limit_bytes=limit_bytes)
    form = _Form(landing)
    try:
        parser = MultipartParser(boundary, form.callbacks(), max_size=limit_bytes + _MAX_FIELDS_BYTES)
        await _feed(request, parser, form, limit_bytes)
    except FormParserError as error:
        raise Malformed(f"The form cannot be read: {error}"[:300], hint=_HINT) from error
    if not form.complete:
        raise Malformed("The form ends before its last boundary", hint=_HINT)
    if form.file_name is None:
        raise Invalid("file", "The 'file' field is required")
    about = _about(form.fields)
    return await landing.landed(form.file_name), about


async def _feed(request: Request, parser: MultipartParser, form: "_Form", limit_bytes: int) -> None:
    more, size = True, 0
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        size += len(body)
        if size > limit_bytes + _MAX_FIELDS_BYTES:
            raise PayloadTooLarge("The document is too large", limit_bytes=limit_bytes)
        parser.write(body)
        await form.landing.settle()
        more = message.get("more_body", False)


class _Form:
    """What the parser tells, part by part. One file, under the name `file`; the rest are small fields."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self.fields: dict[str, list[str]] = {}
        self.file_name: str | None = None
        self.complete = False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._held = bytearray()
        self._size = 0

    def callbacks(self) -> Any:
        """In the parser's names."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._held = b"", bytearray()

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._is_file = self._name == "file"
        if self._is_file:
            if self.file_name is not None:
                raise Invalid("file", "One file at a time is taken")
            self.file_name = options.get(b"filename", b"").decode(errors="replace")
        elif self._name not in _KNOWN:
            raise Invalid(self._name[:100] or "body", f"The '{self._name[:100]}' field is not known")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.landing.take(memoryview(data)[start:end])
            return
        self._size += end - start
        if self._size > _MAX_FIELDS_BYTES:
            raise Invalid(self._name, f"The fields beside the file hold more than {_MAX_FIELDS_BYTES} bytes")
        self._held += data[start:end]

    def _end(self) -> None:
        if not self._is_file:
            try:
                self.fields.setdefault(self._name, []).append(self._held.decode())
            except UnicodeDecodeError as error:
                raise Invalid(self._name, f"The '{self._name}' field is not valid UTF-8") from error

    def _finish(self) -> None:
        self.complete = True


def _about(fields: dict[str, list[str]]) -> DocumentForm:
    given: dict[str, Any] = {name: values[-1] for name, values in fields.items()}
    if "metadata" in given:
        metadata = _json(given["metadata"], "metadata")
        if not isinstance(metadata, dict):
            raise Invalid("metadata", "The 'metadata' field must be a JSON object")
        # The documents put everything that is said of a file there.
        given = {**{name: metadata.pop(name) for name in _OF_METADATA if name in metadata}, **given, "metadata": metadata}
    if "tags" in fields:
        tags = [part for text in fields["tags"] for part in _tags(text)]
        given["tags"] = tags
    try:
        return DocumentForm.model_validate(given)
    except ValidationError as error:
        raise invalid_from(error.errors()) from None


def _tags(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        found = _json(text, "tags")
        return found if isinstance(found, list) else [found]
    return [part.strip() for part in text.split(",") if part.strip()]


def _json(text: str, field: str) -> Any:
    try:
        return strict_json.loads(text.encode(), limit_bytes=_MAX_FIELDS_BYTES)
    except (Malformed, msgspec.DecodeError) as error:
        raise Invalid(field, f"The '{field}' field is not valid JSON") from error
