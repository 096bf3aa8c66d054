"""Alembic's scripts; run by `plughub.db.migrate`."""
