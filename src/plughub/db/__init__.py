"""The database: tables, engines, the unit of work, the batching writer, migrations."""

# All of them: whoever asks the metadata for its tables finds every one.
from plughub.db import registry_tables, tables

__all__ = ["registry_tables", "tables"]
