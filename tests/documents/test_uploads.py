"""Files on their way in: forms, kinds, names, and what is hostile in them."""

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from plughub.api.document_shapes import DocumentOut
from plughub.db.document_tables import document, document_blob
from tests.documents.making import docx, form, found, make, pdf, text_in, upload
from tests.serving import RawCall, Served, serving

pytestmark = pytest.mark.anyio
UPLOAD = "/api/documents/upload"


async def nothing_is_left(served: Served) -> None:
    """No blob without a document, and no file on disk."""
    async with served.database.read() as connection:
        query = select(func.count()).select_from(document_blob)
        documents = (await connection.execute(select(func.count()).select_from(document))).scalar_one()
        assert documents or (await connection.execute(query)).scalar_one() == 0
    folder = served.app.hub.settings.data_dir / "uploads"
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.requirement("documents.kinds", "documents.upload")
@pytest.mark.parametrize(
    ("name", "data", "mime_type", "text"),
    [
        ("a.pdf", pdf(), "application/pdf", "Refunds are paid within thirty days"),
        (
            "a.docx",
            docx(),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "# Refunds\n\nPaid within thirty days.",
        ),
        ("a.md", b"# Refunds\r\n\r\nThirty days.", "text/markdown", "# Refunds\n\nThirty days."),
        ("a.TXT", "Größe €".encode("cp1252"), "text/plain", "Größe €"),
        ("a.txt", "Größe €".encode("utf-16"), "text/plain", "Größe €"),
        ("a", b"no suffix", "text/plain", "no suffix"),
        ("a.csv", b"name,days\nrefund,30\n\n,5\n", "text/csv", "name: refund; days: 30\n\ndays: 5"),
        (
            "a.html",
            b"<head><style>x</style></head><h2>Refunds</h2><p>Thirty <b>days</b><script>no()</script><li>one",
            "text/html",
            "## Refunds\n\nThirty days\n\n- one",
        ),
        ("a.txt", b"<!doctype html><title>t</title><p>It is a page", "text/html", "It is a page"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
async def test_a_file_is_read_by_what_it_is(lite: Served, name: str, data: bytes, mime_type: str, text: str) -> None:
    answer = await upload(lite, name, data)
    assert answer.status_code == 201, answer.text
    made = DocumentOut.model_validate(answer.json())
    assert (made.mimeType, made.fileSize, made.title, made.source) == (mime_type, len(data), "a", "upload")
    assert (await text_in(lite, made.id)).strip() == text
    back = await lite.call("GET", f"/api/documents/{made.id}/download")
    assert back.content == data
    assert back.headers["content-type"] == (mime_type if mime_type != "text/html" else "application/octet-stream")


@pytest.mark.requirement("documents.kinds")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.exe", b"text", "'.exe' are not supported"),
        ("a.pdf", b"text", "its bytes are not those of a PDF"),
        ("a.docx", b"text", "its bytes are not those of a Word document"),
        ("a.txt", pdf(), "its bytes are those of a PDF"),
        ("a.txt", b"PK\x03\x04" + bytes(40), "an archive, and no Word document"),
        ("a.md", b"\x7fELF\0\0", "binary"),
    ],
)
async def test_what_is_no_such_file_is_refused_in_words(lite: Served, name: str, data: bytes, said: str) -> None:
    answer = await upload(lite, name, data)
    assert answer.status_code == 415
    assert said in answer.json()["message"] and "pdf" in answer.json()["error"]["details"]["hint"]


@pytest.mark.requirement("documents.kinds")
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../etc/cron.d/x.md", "x.md"),
        ("..\\\\..\\\\windows\\\\win.md", "win.md"),
        ("C:evil.md", "evil.md"),
        ("/abs/olute.md", "olute.md"),
        ("a\u202ecod.md", "acod.md"),
        ("é ü.md", "é ü.md"),
        ("..", "document.txt"),
        ("", "document.txt"),
        ("x" * 400 + ".md", "x" * 252 + ".md"),
    ],
    ids=repr,
)
async def test_a_files_name_is_never_a_path(lite: Served, sent: str, kept: str) -> None:
    answer = await upload(lite, sent, b"text")
    assert (answer.status_code, answer.json().get("fileName")) == (201, kept), answer.text
    told = (await lite.call("GET", f"/api/documents/{answer.json()['id']}/download")).headers["content-disposition"]
    assert told.startswith("attachment; filename=") and "/" not in told.replace("''", "") and "\\" not in told and "\n" not in told
    await nothing_is_left(lite)


@pytest.mark.requirement("documents.hostile-files")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("bomb.docx", docx(b" " * 1024 * 1024, repeat=70), "unpacks to more than 64 MiB"),
        ("laugh.docx", docx(head='<!DOCTYPE a [<!ENTITY b "bbb">]>'), "declares a document type"),
        ("torn.docx", docx()[:-60] + bytes(60), None),
        ("bomb.pdf", pdf(b" " * 80 * 1024 * 1024, packed=True), "Limit reached"),
        ("torn.pdf", b"%PDF-1.7\n" + b"1 0 obj <<" * 100, "no PDF that can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
async def test_a_file_that_blows_up_is_refused_and_leaves_nothing(lite: Served, name: str, data: bytes, said: str | None) -> None:
    answer = await upload(lite, name, data)
    assert answer.status_code == (400 if said else 415), answer.text
    assert said is None or said in answer.json()["message"]
    await nothing_is_left(lite)


@pytest.mark.requirement("documents.hostile-files")
async def test_a_table_of_a_million_rows_and_a_page_of_deep_nesting_are_cut_or_read(lite: Served) -> None:
    table, page = b"a,b\n" + b"1,2\n" * 1_000_000, b"<div>" * 100_000 + b"hello" + b"</div>" * 100_000
    one, other = await asyncio.gather(upload(lite, "a.csv", table), upload(lite, "deep.html", page))
    assert (one.status_code, one.json()["textTruncated"], one.json()["fileSize"]) == (201, True, len(table))
    assert (await text_in(lite, other.json()["id"])).strip() == "hello"


@pytest.mark.requirement("documents.upload")
async def test_what_stands_beside_a_file_is_kept(lite: Served) -> None:
    metadata = json.dumps({"title": "From metadata", "tags": ["x"], "owner": "ada"})
    answer = await upload(lite, "a.md", b"text", metadata=metadata, tags="b, a,,b", category="guide", description="d")
    made = answer.json()
    assert (made["title"], made["tags"], made["category"], made["description"]) == ("From metadata", ["a", "b"], "guide", "d")
    assert made["metadata"] == {"owner": "ada"}
    again = await upload(lite, "b.txt", b"other", to=f"/api/documents/{made['id']}", changeSummary="new", tags='["c"]')
    assert again.status_code == 200, again.text
    assert (again.json()["version"], again.json()["fileName"], again.json()["tags"], again.json()["title"]) == (
        2,
        "b.txt",
        ["c"],
        made["title"],
    )
    versions = (await lite.call("GET", f"/api/documents/{made['id']}/versions")).json()["versions"]
    assert [(each["versionNumber"], each["changeSummary"]) for each in versions] == [(2, "new"), (1, "")]


@pytest.mark.requirement("documents.upload")
async def test_a_form_that_is_wrong_is_refused_by_the_field(lite: Served) -> None:
    body, headers = form("a.md", b"text")
    wrong = [
        (await upload(lite, "a.md", b""), "file"),
        (await upload(lite, "a.md", b"text", file="attachment"), "attachment"),
        (await upload(lite, "a.md", b"text", colour="red"), "colour"),
        (await upload(lite, "a.md", b"text", metadata="{"), "metadata"),
        (await upload(lite, "a.md", b"text", metadata="[]"), "metadata"),
        (await upload(lite, "a.md", b"text", tags='["a", 1]'), "tags.1"),
        (await upload(lite, "a.md", b"text", description="x" * 70_000), "description"),
        (await lite.call("POST", UPLOAD, body.removesuffix(b"--XX--\r\n") + body, headers=headers), "file"),
        (await lite.call("POST", UPLOAD, b"--XX--\r\n", headers=headers), "file"),
    ]
    for answer, field in wrong:
        assert (answer.status_code, answer.json()["error"]["details"].get("field")) == (400, field), answer.text
    for sent, given in ((body[:-4], headers), (b"garbage", headers), (body, {"Content-Type": "multipart/form-data"})):
        answer = await lite.call("POST", UPLOAD, sent, headers=given)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_PARAMETER"), answer.text
    await nothing_is_left(lite)


@pytest.mark.requirement("documents.upload")
async def test_an_upload_that_breaks_off_leaves_nothing(lite: Served) -> None:
    body, headers = form("a.md", b"never whole " * 1000)
    headers = {**headers, "Content-Length": str(len(body) + 100)}
    call = RawCall(lite, "POST", UPLOAD, headers)
    running = call.piece(body[:5000], more=True).start()
    call.leave()
    assert (await running).messages == []
    await nothing_is_left(lite)
    assert await found(lite, "never whole") == []


@pytest.mark.requirement("documents.upload", "documents.quotas")
async def test_size_and_quotas_are_settings(lite_url: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/small.db"
    given = {"max_document_bytes": 2_000_000, "documents_quota": 2, "documents_quota_bytes": 3_000_000}
    async with serving(url, tmp_path, **given) as small:  # type: ignore[arg-type]
        large = await upload(small, "a.txt", b"word " * 400_001)
        assert (large.status_code, large.json()["error"]["details"]["limit_bytes"]) == (413, 2_000_000)
        body, headers = form("a.txt", b"word " * 500_000)
        call = RawCall(small, "POST", UPLOAD, headers)  # its length is not announced
        for at in range(0, len(body), 100_000):
            call.piece(body[at : at + 100_000], more=True)
        assert (await call.run()).status == 413
        first = await upload(small, "a.txt", b"word " * 399_000)
        assert first.status_code == 201
        full = await upload(small, "b.txt", b"term " * 399_000)
        assert (full.status_code, full.json()["error"]["details"]["reason"]) == (409, "quota_bytes")
        async with small.database.read() as connection:
            assert (await connection.execute(select(func.count()).select_from(document_blob))).scalar_one() == 1
        await make(small, "second", "text")
        refused = await small.call("POST", "/api/documents", {"title": "third", "content": "text"})
        assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (409, "quota")
        await small.call("DELETE", f"/api/documents/{first.json()['id']}")
        await make(small, "third", "text")
        told = (await small.call("GET", "/api/rag/storage-stats")).json()
        assert (told["documents_count"], told["storage_bytes"], told["documents_quota"]) == (2, 8, 2)
