"""The database: tables, engines, the unit of work, the batching writer, migrations."""

# Here, so that whoever looks at the metadata finds every table.
from plughub.db import (
    answer_tables,
    collection_tables,
    document_tables,
    registry_tables,
    tables,
    usage_tables,
    watch_tables,
    webhook_tables,
)

__all__ = [
    "answer_tables",
    "collection_tables",
    "document_tables",
    "registry_tables",
    "tables",
    "usage_tables",
    "watch_tables",
    "webhook_tables",
]
