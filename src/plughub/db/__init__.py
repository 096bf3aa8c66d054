"""The database: tables, engines, the unit of work, the batching writer, migrations."""

# Here, so that whoever looks at the metadata finds every table.
from plughub.db import webhook_tables as webhook_tables
