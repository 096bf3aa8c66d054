"""The database: tables, engines, the unit of work, the batching writer, migrations."""

# Here, so that whoever looks at the metadata finds every table.
from plughub.db import tables, usage_tables, watch_tables, webhook_tables

__all__ = ["tables", "usage_tables", "watch_tables", "webhook_tables"]
