"""A document in the documented spelling."""

import re
from typing import Any

from plughub.api.reply import uuid_or_404
from plughub.documents import files
from plughub.documents.intake import text_of
from plughub.documents.kinds import KINDS
from plughub.documents.schemas import Document, Version
from plughub.gateway.hub import Hub
from plughub.kit.clock import rfc3339
from plughub.kit.errors import DocumentNotFound

_ODD = re.compile(r"[^\w.-]+")


def one(text: str) -> str:
    """The id of a document in a path. Raises DocumentNotFound."""
    return uuid_or_404(text, DocumentNotFound)


def named(title: str, kind: str) -> str:
    """What the file of a text is called."""
    return f"{_ODD.sub('-', title).strip('-.')[:80] or 'document'}.{kind}"


def shown(found: Document) -> dict[str, Any]:
    """Without its content."""
    return {
        "id": found.id,
        "title": found.title,
        "description": found.description,
        "fileName": found.file_name,
        "fileSize": found.size,
        "mimeType": KINDS[found.kind].mime_type,
        "tags": list(found.tags),
        "source": found.source,
        "category": found.category,
        "visibility": "workspace",
        "version": found.version,
        "metadata": found.details,
        "contentHash": found.sha256,
        "textTruncated": found.truncated,
        "aiMetadata": None,
        "modelAttributions": [],
        "createdAt": rfc3339(found.created_at),
        "updatedAt": rfc3339(found.updated_at),
    }


def shown_version(version: Version, of: Document) -> dict[str, Any]:
    """Without its content."""
    return {
        "versionNumber": version.number,
        "fileName": version.file_name,
        "fileSize": version.size,
        "mimeType": KINDS[version.kind].mime_type,
        "contentHash": version.sha256,
        "changeSummary": version.summary,
        "createdByModel": None,
        "createdAt": rfc3339(version.created_at),
        "isCurrent": version.number == of.version,
    }


async def content_of(hub: Hub, version: Version) -> str:
    """The text in a version, as far as it is searched."""
    async with hub.database.read() as connection:
        size = await files.blob_size(connection, version.text_id)
    return await text_of(hub.library, version, size)
