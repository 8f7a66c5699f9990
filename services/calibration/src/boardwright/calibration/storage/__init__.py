"""Datasets in SQL, on SQLite and PostgreSQL.

- ``tables``: the schema (SQLModel); ``migrations``: Alembic.
- ``repository``: datasets and versions; ``samples``: samples and inspections; ``rows``: rows to domain and
  back.
"""
