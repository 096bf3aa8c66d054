"""Documents over REST, on both databases: what is kept, found, told, and by whom."""

import asyncio
import hashlib

import pytest
from sqlalchemy import func, select

from plughub.api.document_shapes import BulkOut, ComparedOut, DocumentList, DocumentOut, DocumentSearchOut, RagOut, VersionList
from plughub.db.document_tables import document_blob, document_chunk
from plughub.db.tables import event
from plughub.documents import files
from plughub.documents.service import MAX_VERSIONS
from tests.documents.making import found, make, text_in, upload
from tests.serving import Json, Served

pytestmark = pytest.mark.anyio
DOCUMENTS = "/api/documents"


async def titles(served: Served, query: str, **given: object) -> list[str]:
    answer = await served.call("GET", f"{DOCUMENTS}?{query}", **given)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return [each.title for each in DocumentList.model_validate(answer.json()).documents]


async def key_elsewhere(served: Served, name: str) -> str:
    return await served.key_of(await served.organization(name))


@pytest.mark.requirement("documents.crud", "documents.told", "http.times", "http.paging")
async def test_a_document_is_made_read_changed_and_removed(served: Served) -> None:
    made = await make(served, "Handbook", "# One\n\nText.", tags=["b", "a"], metadata={"owner": "ada"}, category="guide")
    read = DocumentOut.model_validate(made)
    assert (read.title, read.tags, read.version, read.source, read.fileName) == ("Handbook", ["a", "b"], 1, "api", "Handbook.md")
    assert read.contentHash == hashlib.sha256(b"# One\n\nText.").hexdigest()
    path = f"{DOCUMENTS}/{read.id}"
    assert (await served.call("GET", path)).json() == made
    served.clock.advance(5)
    changed = (await served.call("PATCH", path, {"title": "Other", "description": "d", "metadata": None, "tags": ["c"]})).json()
    assert (changed["title"], changed["description"], changed["metadata"], changed["tags"], changed["category"]) == (
        "Other",
        "d",
        {},
        ["c"],
        "guide",
    )
    assert changed["updatedAt"] > changed["createdAt"] and changed["version"] == 1
    assert (await served.call("PATCH", path, {"title": "Other"})).json()["updatedAt"] == changed["updatedAt"]
    assert (await served.call("DELETE", path)).status_code == 204
    assert (await served.call("GET", path)).status_code == (await served.call("DELETE", path)).status_code == 404
    async with served.database.read() as connection:
        told = (await connection.execute(select(event.c.name).where(event.c.data.contains(read.id)).order_by(event.c.change_no))).scalars()
        assert list(told) == ["document.created", "document.updated", "document.deleted"]
        for left in (document_chunk, document_blob):
            assert (await connection.execute(select(func.count()).select_from(left))).scalar_one() == 0


@pytest.mark.requirement("documents.crud")
async def test_lists_have_filters_and_an_order(served: Served) -> None:
    key = await key_elsewhere(served, "Lists")
    for title, tags in (("Beta", ["x"]), ("alpha", ["x", "y"]), ("Gamma 100%", [])):
        await make(served, title, title, key=key, tags=tags)
        served.clock.advance(86_400)
    assert await titles(served, "", key=key) == ["Gamma 100%", "alpha", "Beta"]
    assert await titles(served, "sort=date_asc&limit=1&offset=1", key=key) == ["alpha"]
    assert await titles(served, "sort=size&limit=1", key=key) == ["Gamma 100%"]
    assert await titles(served, "tags=x", key=key) == ["alpha", "Beta"]
    assert await titles(served, "tags=x,y", key=key) == await titles(served, "tags=x&tags=y", key=key) == ["alpha"]
    assert await titles(served, "searchQuery=ALPH", key=key) == await titles(served, "search_query=alph", key=key) == ["alpha"]
    assert await titles(served, "searchQuery=%25", key=key) == ["Gamma 100%"]
    assert await titles(served, "source=upload", key=key) == await titles(served, "visibility=private", key=key) == []
    assert await titles(served, "source=api&visibility=workspace&kind=md&limit=1", key=key) == ["Gamma 100%"]
    first = (await served.call("GET", f"{DOCUMENTS}?sort=date_asc", key=key)).json()["documents"][0]["createdAt"]
    assert await titles(served, f"dateTo={first}", key=key) == ["Beta"]
    assert await titles(served, f"date_from={first}&date_to=2000-01-01", key=key) == []
    refused = await served.call("GET", f"{DOCUMENTS}?dateTo=soon", key=key)
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "dateTo")


@pytest.mark.requirement("documents.versions")
async def test_versions_are_compared_and_gone_back_to(served: Served) -> None:
    made = await make(served, "Terms", "one\ntwo\nthree")
    path = f"{DOCUMENTS}/{made['id']}"
    await served.call("PUT", path, {"content": "one\n2\nthree", "changeSummary": "a digit"})
    await served.call("PATCH", path, {"operation": "append", "content": "four"})
    await served.call("PATCH", path, {"operation": "prepend", "content": "zero"})
    assert await text_in(served, made["id"]) == "zero\none\n2\nthree\nfour"
    told = ComparedOut.model_validate((await served.call("GET", f"{path}/compare?v1=1&v2=2")).json())
    assert (told.added, told.removed, told.identical) == (1, 1, False)
    assert "-two\n+2" in told.diff
    last = ComparedOut.model_validate((await served.call("GET", f"{path}/compare")).json())
    assert (last.v1, last.v2, last.added) == (3, 4, 1)
    back = (await served.call("POST", f"{path}/rollback", {"version": 1})).json()
    assert (back["version"], back["contentHash"]) == (5, made["contentHash"])
    assert await text_in(served, made["id"]) == "one\ntwo\nthree"
    assert [each["id"] for each in await found(served, "two")] == [made["id"]]
    assert await found(served, "zero four") == []
    versions = VersionList.model_validate((await served.call("GET", f"{path}/versions")).json()).versions
    assert [(each.versionNumber, each.isCurrent) for each in versions] == [(5, True), (4, False), (3, False), (2, False), (1, False)]
    assert (await served.call("GET", f"{path}/download?version=2")).text == "one\n2\nthree"
    assert (await served.call("GET", f"{path}/versions/2")).json()["content"] == "one\n2\nthree"
    for missing in (f"{path}/versions/9", f"{path}/versions/x", f"{path}/download?version=9", f"{path}/download?version=-1"):
        assert (await served.call("GET", missing)).status_code == 404
    assert (await served.call("POST", f"{path}/rollback", {"version": 9})).status_code == 404
    table = (await upload(served, "t.csv", b"a,b\n1,2\n")).json()
    refused = await served.call("PATCH", f"{DOCUMENTS}/{table['id']}", {"content": "x"})
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "content")


@pytest.mark.requirement("documents.versions")
async def test_versions_made_at_once_each_get_a_number_and_the_oldest_go(served: Served) -> None:
    made = await make(served, "Busy", "first")
    path = f"{DOCUMENTS}/{made['id']}"
    answers = await asyncio.gather(*(served.call("PUT", path, {"content": f"text {n}"}) for n in range(8)))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 10))
    mixed = await asyncio.gather(*(served.call("PATCH", path, {"operation": "append", "content": f"line {n}"}) for n in range(4)))
    assert {answer.status_code for answer in mixed} <= {200, 409} and 200 in {answer.status_code for answer in mixed}
    text = await text_in(served, made["id"])
    assert text.count("line") == sum(answer.status_code == 200 for answer in mixed)
    for n in range(MAX_VERSIONS):
        await served.call("PUT", path, {"content": f"more {n}"})
    versions = (await served.call("GET", f"{path}/versions?limit=100")).json()
    assert (versions["total"], versions["versions"][-1]["versionNumber"]) == (
        MAX_VERSIONS,
        versions["versions"][0]["versionNumber"] - MAX_VERSIONS + 1,
    )
    async with served.database.read() as connection:
        space = (
            (await connection.execute(select(document_chunk.c.space_id).where(document_chunk.c.document_id == made["id"])))
            .scalars()
            .first()
        )
        query = select(func.count()).select_from(document_blob).where(document_blob.c.space_id == space)
        documents = (await served.call("GET", f"{DOCUMENTS}?limit=100")).json()["documents"]
        counts = [(await served.call("GET", f"{DOCUMENTS}/{each['id']}/versions?limit=100")).json()["total"] for each in documents]
        assert (await connection.execute(query)).scalar_one() <= 2 * sum(counts)
    await served.call("DELETE", path)


@pytest.mark.requirement("documents.bulk")
async def test_several_are_made_tagged_and_removed(served: Served) -> None:
    key = await key_elsewhere(served, "Bulk")
    texts = [{"title": f"Bulk {n}", "content": "<p>text</p>" if n else "text", "format": "html" if n else "md"} for n in range(3)]
    made = BulkOut.model_validate((await served.call("POST", f"{DOCUMENTS}/bulk", {"documents": texts}, key=key)).json())
    ids = [each.id for each in made.results]
    assert (made.succeeded, made.failed, [each.status for each in made.results]) == (3, 0, ["created"] * 3)
    foreign = await make(served, "Foreign", "text")
    tagged = (
        await served.call("POST", f"{DOCUMENTS}/bulk", {"operation": "tag", "ids": [*ids, foreign["id"], "x"], "tags": ["t"]}, key=key)
    ).json()
    assert (tagged["succeeded"], tagged["failed"]) == (3, 2)
    assert {each["error"] for each in tagged["results"][3:]} == {"Document not found"}
    assert len(await titles(served, "tags=t", key=key)) == 3
    await served.call("POST", f"{DOCUMENTS}/bulk", {"operation": "untag", "ids": ids[:1], "tags": ["t"]}, key=key)
    assert len(await titles(served, "tags=t", key=key)) == 2
    gone = (await served.call("POST", f"{DOCUMENTS}/bulk", {"operation": "delete", "ids": [*ids, *ids]}, key=key)).json()
    assert (gone["succeeded"], await titles(served, "", key=key)) == (3, [])
    for body, said in (
        ({"documents": texts, "operation": "delete", "ids": ids}, "either"),
        ({"operation": "delete"}, "needs 'ids'"),
        ({"operation": "tag", "ids": ids}, "needs 'tags'"),
        ({"documents": [{"title": "a", "content": ""}]}, "content"),
    ):
        answer = await served.call("POST", f"{DOCUMENTS}/bulk", body, key=key)
        assert answer.status_code == 400 and said in answer.text


@pytest.mark.requirement("documents.download")
async def test_a_file_is_downloaded_whole_or_in_parts(served: Served) -> None:
    data = bytes(range(1, 256)).replace(b"\x25", b"x") * 3000  # over several pieces
    made = (await upload(served, "long name é.txt", data)).json()
    path = f"{DOCUMENTS}/{made['id']}/download"
    whole = await served.call("GET", path)
    assert whole.content == data and whole.headers["content-length"] == str(len(data))
    assert "filename=\"long name _.txt\"; filename*=utf-8''long%20name%20%C3%A9.txt" in whole.headers["content-disposition"]
    assert (whole.headers["x-content-type-options"], whole.headers["content-security-policy"]) == ("nosniff", "sandbox; default-src 'none'")
    for wanted, part in (
        ("bytes=0-0", data[:1]),
        ("bytes=262140-262150", data[262140:262151]),
        ("bytes=-5", data[-5:]),
        ("bytes=700000-", data[700000:]),
        ("bytes=10-99999999", data[10:]),
    ):
        answer = await served.call("GET", path, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (206, part)
        begin = len(data) - 5 if wanted == "bytes=-5" else int(wanted.removeprefix("bytes=").partition("-")[0])
        assert answer.headers["content-range"] == f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
    for ignored in ("bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=9-2"):
        assert (await served.call("GET", path, headers={"Range": ignored})).status_code == 200
    for outside in (f"bytes={len(data)}-", "bytes=-0"):
        refused = await served.call("GET", path, headers={"Range": outside})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{len(data)}")
    tag = whole.headers["etag"]
    assert (await served.call("GET", path, headers={"If-None-Match": f'"x", {tag}'})).status_code == 304
    assert (await served.call("GET", path, headers={"Range": "bytes=0-0", "If-Range": tag})).status_code == 206
    assert (await served.call("GET", path, headers={"Range": "bytes=0-0", "If-Range": '"old"'})).status_code == 200
    head = await served.call("HEAD", path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))


@pytest.mark.requirement("documents.search")
async def test_full_text_finds_forms_of_words_in_passages_and_titles(served: Served) -> None:
    key = await key_elsewhere(served, "Search")
    padding = "\n\n".join(f"Nothing of interest in paragraph number {n}." for n in range(60))
    policy = await make(served, "Refund policy", f"# Returns\n\n{padding}\n\n## Money\n\nRefunded within thirty days.", key=key, tags=["p"])
    other = await make(served, "Shipping", "Parcels leave on Tuesdays. Ask for a refund by mail.", key=key)
    named = await make(served, "Zanzibar", "Text", key=key, description="An island")
    results = await found(served, "refunding the money in days", key=key)
    assert results[0]["id"] == policy["id"]
    assert (results[0]["heading"], results[0]["relevanceScore"]) == ("Returns › Money", 1.0)
    assert "thirty days" in results[0]["snippet"] and len(results[0]["snippet"]) < 260
    assert {each["id"] for each in await found(served, "refund", key=key)} == {policy["id"], other["id"]}
    assert [each["id"] for each in await found(served, "zanzibar", key=key)] == [named["id"]]
    assert [each["id"] for each in await found(served, "island", key=key)] == [named["id"]]
    assert [each["id"] for each in await found(served, "refund", key=key, filters={"tags": ["p"], "kind": "md"})] == [policy["id"]]
    page = DocumentSearchOut.model_validate(
        (await served.call("POST", f"{DOCUMENTS}/search", {"query": "refund", "limit": 1, "offset": 1}, key=key)).json()
    )
    assert (len(page.results), page.total, page.hasMore, page.search.mode) == (1, 2, False, "full_text")
    await served.call("PATCH", f"{DOCUMENTS}/{named['id']}", {"title": "Madagascar", "description": None})
    assert await found(served, "island", key=key) != []  # another key may not change it
    await served.call("PATCH", f"{DOCUMENTS}/{named['id']}", {"title": "Madagascar", "description": None}, key=key)
    assert await found(served, "island", key=key) == []
    assert [each["title"] for each in await found(served, "zanzibar", key=key)] == ["Madagascar"]  # so its file is called
    await served.call("DELETE", f"{DOCUMENTS}/{policy['id']}", key=key)
    assert [each["id"] for each in await found(served, "refund", key=key)] == [other["id"]]


@pytest.mark.requirement("documents.search")
@pytest.mark.parametrize(
    "query",
    [
        '"',
        "a AND",
        "NEAR(",
        "* OR *",
        "title:x",
        "{heading}: y",
        "'); DROP TABLE document; --",
        "!&|<->",
        "\\",
        ":* & a",
        "^a",
        "-",
        "日本語 ÄÖ",
        "x" * 1000,
    ],
)
async def test_a_query_is_data_whatever_is_in_it(served: Served, query: str) -> None:
    answer = await served.call("POST", f"{DOCUMENTS}/search", {"query": query})
    assert answer.status_code == 200, answer.text
    assert (await served.call("POST", "/api/rag/query", {"query": query})).status_code == 200


@pytest.mark.requirement("documents.search", "keys.environments-apart", "routes.foreign-is-missing")
async def test_nobody_finds_what_is_anothers(served: Served) -> None:
    one, other = await served.organization("One of two"), await served.organization("Other of two")
    owner, test, foreign = await served.key_of(one), await served.key_of(one, "test"), await served.key_of(other)
    made = await make(served, "Secret plan", "The canary sings at noon.", key=owner)
    for key in (test, foreign):
        assert await found(served, "secret canary", key=key) == []
        assert (await served.call("POST", "/api/rag/query", {"query": "canary"}, key=key)).json()["passages"] == []
        assert await titles(served, "", key=key) == []
    assert [each["id"] for each in await found(served, "canary", key=await served.key_of(one, servers=[]))] == [made["id"]]


@pytest.mark.requirement("documents.rag", "documents.meaning")
async def test_a_question_gets_passages_with_their_sources(served: Served) -> None:
    key = await key_elsewhere(served, "Questions")
    empty = await served.call("POST", "/api/rag/query", {"query": "When?"}, key=key)
    assert RagOut.model_validate(empty.json()).answer == "No passage of the documents fits the question."
    policy = await make(served, "Refund policy", "# Refunds\n\nRefunds are paid within thirty days.", key=key)
    await make(served, "Shipping", "# Parcels\n\nThey leave on Tuesdays.", key=key)
    told = RagOut.model_validate((await served.call("POST", "/api/rag/query", {"query": "When are refunds paid?"}, key=key)).json())
    assert (told.sources, told.documentIds) == (["Refund policy"], [policy["id"]])
    assert told.answer == "[Refund policy: Refunds]\nRefunds are paid within thirty days."
    assert [(each.text, each.source, each.version) for each in told.passages] == [("Refunds are paid within thirty days.", 0, 1)]
    assert told.search.mode == "full_text" and told.search.note is not None and "Full text alone" in told.search.note
    for spelling in ("includeMetadata", "include_metadata"):
        plain = await served.call("POST", "/api/rag/query", {"query": "refunds", spelling: False}, key=key)
        assert plain.headers["content-type"].startswith("text/plain") and plain.text == told.answer


@pytest.mark.requirement("documents.pruned")
async def test_files_that_never_became_documents_are_removed(served: Served) -> None:
    made: Json = await make(served, "Kept", "text")
    space = (await served.operator()).founder("live").space_id
    await files.save_bytes(served.database, space, b"x" * (files.PIECE_BYTES + 1))
    assert await files.prune_blobs(served.database) == 0
    served.clock.advance(7 * 3600)
    assert await files.prune_blobs(served.database) == 1
    assert await text_in(served, made["id"]) == "text"
