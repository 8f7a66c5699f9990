"""What every service's `storage/migrations/env.py` calls.

    from boardwright.database.alembic_env import run
    from boardwright.registry.storage.tables import METADATA

    run(METADATA)

Imported by Alembic alone: it loads SQLAlchemy.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection

_LOCK_TIMEOUT_SECONDS = 30


def run(metadata: sa.MetaData) -> None:
    """Run the pending migrations of the configured URL in one transaction, one migrator at a time."""
    attributes = context.config.attributes
    url, schema = str(attributes["url"]), str(attributes["schema"])
    if url.startswith("sqlite:"):
        url = "sqlite:////" + url.removeprefix("sqlite:///").lstrip("/")
    else:
        url = "postgresql+psycopg://" + url.partition("://")[2]
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                _prepare_postgresql(connection, schema)
            context.configure(
                connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True
            )
            with context.begin_transaction():
                context.run_migrations()
            connection.commit()
    finally:
        engine.dispose()


def _prepare_postgresql(connection: Connection, schema: str) -> None:
    """Make the schema the place of everything that follows; no second migrator until the commit."""
    name = connection.dialect.identifier_preparer.quote(schema)
    connection.execute(sa.text(f"SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s'"))
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtext(:schema))"), {"schema": f"boardwright/{schema}"}
    )
    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
    connection.execute(sa.text(f"SET search_path TO {name}"))
    connection.dialect.default_schema_name = schema
