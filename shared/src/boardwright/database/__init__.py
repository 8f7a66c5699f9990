"""A service's own database: transactions as functions, on SQLite (embedded) and PostgreSQL (production).

    database.py      `Database`: open, write, read, migrate
    transaction.py   what a transaction function sees: plain SQL with :name placeholders
    sqlite.py        one writer thread, group commit, durable WAL; sqlite_reads.py: long reads in threads;
                     sqlite_connection.py: what both stand on
    postgresql.py    a pool of threads, serializable, retried
    migrating.py     when Alembic runs, and alembic_env.py: what every service's env.py calls
    requests.py      `request_id`: the same request again gives the same answer
    outbox.py        the ordered, resumable event log
    housekeeping.py  old answers and events go
    paging.py        opaque page tokens; filters.py: AIP-160 filters to SQL
    schema.py        the tables of requests and outbox, for a service's tables.py and migration

At runtime only `sqlite3` or `psycopg` is loaded; SQLModel and Alembic belong to migrations and tests.
"""

from boardwright.database.database import Database
from boardwright.database.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseFull,
    DatabaseOutdated,
    DatabaseUnavailable,
    ForeignKeyViolation,
    QueryTooLong,
    UniqueViolation,
    ValueRefused,
)
from boardwright.database.transaction import Dialect, Row, Transaction

__all__ = [
    "ConstraintViolation",
    "Database",
    "DatabaseError",
    "DatabaseFull",
    "DatabaseOutdated",
    "DatabaseUnavailable",
    "Dialect",
    "ForeignKeyViolation",
    "QueryTooLong",
    "Row",
    "Transaction",
    "UniqueViolation",
    "ValueRefused",
]
