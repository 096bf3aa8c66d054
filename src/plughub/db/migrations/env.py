"""Alembic's entry: runs on the connection and in the transaction that `plughub.db.migrate` opened."""

from alembic import context

from plughub.db.columns import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
