"""Files of every kind, good and hostile, and the form that carries them."""

import io
import zipfile
import zlib
from typing import Any

import httpx2

from tests.serving import Json, Served

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
DOCX_TEXT = (
    '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Refunds</w:t></w:r></w:p>'
    "<w:p><w:r><w:t>Paid within </w:t></w:r><w:r><w:t>thirty days.</w:t></w:r></w:p>"
)


def docx(body: str | bytes = DOCX_TEXT, *, head: str = "", repeat: int = 1) -> bytes:
    """A Word document with that body, so many times."""
    made = io.BytesIO()
    body = body if isinstance(body, bytes) else body.encode()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w", force_zip64=True) as part:
        part.write(f"{head}<w:document {W}><w:body>".encode())
        for _ in range(repeat):
            part.write(body)
        part.write(b"</w:body></w:document>")
    return made.getvalue()


def pdf(content: bytes = b"BT /F1 12 Tf 72 700 Td (Refunds are paid within thirty days) Tj ET", *, packed: bool = False) -> bytes:
    """A PDF of one page."""
    stream, how = (zlib.compress(content, 1), b"/Filter/FlateDecode") if packed else (content, b"")
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<<%b/Length %d>>\nstream\n%b\nendstream" % (how, len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    found, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(found))
        found += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%btrailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (table, len(found))
    return found + end


def form(name: str, data: bytes, *, file: str = "file", **fields: str) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a form with a file; `name` as it stands on the wire."""
    parts = [b'--XX\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (k.encode(), v.encode()) for k, v in fields.items()]
    head = f'--XX\r\nContent-Disposition: form-data; name="{file}"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return b"".join([*parts, head.encode(), data, b"\r\n--XX--\r\n"]), {"Content-Type": "multipart/form-data; boundary=XX"}


async def upload(
    served: Served, name: str, data: bytes, *, key: str | None = None, to: str = "/api/documents/upload", **fields: str
) -> httpx2.Response:
    body, headers = form(name, data, **fields)
    return await served.call("PUT" if to.count("/") == 3 and "upload" not in to else "POST", to, body, key=key, headers=headers)


async def make(served: Served, title: str, content: str, *, key: str | None = None, **given: Any) -> Json:
    answer = await served.call("POST", "/api/documents", {"title": title, "content": content, **given}, key=key)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def text_in(served: Served, document_id: str) -> str:
    return str((await served.call("GET", f"/api/documents/{document_id}?includeContent=true")).json()["content"])


async def found(served: Served, query: str, *, key: str | None = None, **given: Any) -> list[Json]:
    answer = await served.call("POST", "/api/documents/search", {"query": query, **given}, key=key)
    assert answer.status_code == 200, answer.text
    results: list[Json] = answer.json()["results"]
    return results
