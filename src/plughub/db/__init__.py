"""The database: tables, engines, the unit of work, the batching writer, migrations."""
