"""The registry's rows. What is read here leaves as `domain` values; nothing else sees a row.

tables.py       the tables, with SQLModel; blob_tables.py: those of the Blobs API
migrations/     Alembic
rows.py         rows to domain values and back
models.py       models, their counters, stages and promotions
versions.py     versions and aliases
variants.py     variants, artifacts, measurements
releases.py     releases
lineage.py      the graph; journal.py: the audit log
listing.py      filters, page tokens and keyset pagination for every list
blobs.py        the Blobs API; blob_references.py: what the rest of the registry asks of blobs
"""
