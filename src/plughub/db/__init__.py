"""The database: tables, engines, the unit of work, the batching writer, migrations."""

from plughub.db import tables, watch_tables

__all__ = ["tables", "watch_tables"]
