"""Jobs in a service's own database: tables to declare, and functions over one transaction.

- ``schema.py``    the tables, for a service's tables.py and first migration
- ``rows.py``      rows to domain values
- ``jobs.py``      create, advance, cancel, retry, finish
- ``leases.py``    lease, heartbeat, complete, fail, give back, expire
- ``logs.py``      the end of each step's log
- ``cache.py``     cache key to outcome or remembered failure
- ``retention.py`` jobs that ended long ago go
"""
