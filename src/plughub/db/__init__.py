"""The database: tables, engines, the unit of work, the batching writer, migrations."""

# Here, so that whoever looks at the metadata finds every table.
from plughub.db import collection_tables as collection_tables
