"""Alembic runs this: it migrates the connection that `orchestrator.database.schema` hands over."""

from alembic import context

from orchestrator.database.models import Base
from orchestrator.database.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # SQLite alters a table by making it anew.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
