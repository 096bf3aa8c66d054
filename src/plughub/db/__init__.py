"""The database: tables, engines, the unit of work, the batching writer, migrations."""

from plughub.db import tables, usage_tables, watch_tables

__all__ = ["tables", "usage_tables", "watch_tables"]
