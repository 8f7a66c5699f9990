"""Steps, their cache, leases and workers: what the compiler and the builder share.

A map of this folder:

- ``step_api``             what a step is written against: kinds, requests, results, errors
- ``step``                 the step process, ``python -m boardwright.jobs.step <folder>``
- ``confinement``          what that process gives up: memory, file size, the network, files (``landlock``)
- ``executor``             the Executor port; ``subprocess_executor`` is the embedded one
- ``left_files``           what that process left, read so that it leads nowhere else
- ``process_memory``       resident memory of a process and its descendants
- ``domain/``              the DAG, cache keys, in-toto records, lease rules: values and pure functions
- ``storage/``             jobs in a service's own database, SQLite or PostgreSQL
- ``ports``, ``service``   what an owning service gives, and JobService, which it calls
- ``finishing``            calls the owner once all steps have succeeded
- ``rpc/``                 the Leases API, and what every jobs collection answers
- ``worker/``              the worker, ``python -m boardwright.jobs.worker``
"""
