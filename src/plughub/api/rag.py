"""Passages that answer a question, with their sources, in the Plugged.in dialect (CONTRACT section 6). No model writes the answer."""

from collections.abc import Sequence
from typing import Any

from fastapi import Response

from plughub.api.document_shapes import RagOut, StorageOut
from plughub.api.framework import CallerDep, HubDep, ReadDep
from plughub.api.reply import reply
from plughub.documents import store
from plughub.documents.schemas import RagQuery
from plughub.documents.search import Passage, search
from plughub.door.routes import Route

_PASSAGES = 6
# The documents cut answers there.
_MAX_ANSWER = 10_000
_NOTHING = "No passage of the documents fits the question."


async def query(caller: CallerDep, hub: HubDep, body: RagQuery) -> Response:
    """The best passages of the documents, in one text (`answer`) and one by one, with the documents that they are from.

    `includeMetadata: false`: the text alone, as plain text.
    """
    found = await search(hub.library, caller, body.query)
    # What is said of a document tells where to look, but is no passage of it, unless there is nothing else.
    inside = [passage for passage in found.passages if passage.position]
    best = (inside or found.passages)[:_PASSAGES]
    answer = "\n\n".join(_quoted(passage) for passage in best)[:_MAX_ANSWER] or _NOTHING
    if not body.include_metadata:
        return Response(answer, media_type="text/plain")
    documents = {passage.document.id: passage.document for passage in best}
    return reply(
        {
            "success": True,
            "answer": answer,
            "sources": [document.title for document in documents.values()],
            "documentIds": list(documents),
            "passages": [_shown(passage, list(documents)) for passage in best],
            "search": {"mode": found.mode, "note": found.note},
        }
    )


async def storage(caller: CallerDep, connection: ReadDep, hub: HubDep) -> Response:
    """What the documents of the environment take, and may take."""
    count, size = await store.usage(connection, caller.space_id)
    chunks, vectors = await store.count_passages(connection, caller.space_id)
    settings = hub.settings
    return reply(
        {
            "documents_count": count,
            "documents_quota": settings.documents_quota,
            "total_chunks": chunks,
            "vectors_count": vectors,
            "storage_bytes": size,
            "storage_quota_bytes": settings.documents_quota_bytes,
            "estimated_storage_mb": round(size / 1e6, 3),
            "is_estimate": False,
        }
    )


def _quoted(passage: Passage) -> str:
    place = f"{passage.document.title}: {passage.heading}" if passage.heading and passage.position else passage.document.title
    return f"[{place}]\n{passage.text}"


def _shown(passage: Passage, documents: Sequence[str]) -> dict[str, Any]:
    return {
        "text": passage.text,
        "heading": passage.heading,
        "source": documents.index(passage.document.id),
        "documentId": passage.document.id,
        "title": passage.document.title,
        "fileName": passage.document.file_name,
        "version": passage.document.version,
        "position": passage.position,
        "relevanceScore": round(passage.score, 6),
    }


_TAG = "Documents"
ROUTES = [
    Route(
        "POST",
        "/api/rag/query",
        "read:documents",
        query,
        "Passages that answer a question",
        _TAG,
        output=RagOut,
        other_kinds=("text/plain",),
    ),
    Route("GET", "/api/rag/storage-stats", "read:documents", storage, "What documents take", _TAG, output=StorageOut),
]
