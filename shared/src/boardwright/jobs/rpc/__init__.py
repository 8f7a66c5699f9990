"""Jobs on the wire: the Leases API for workers, and what every jobs collection answers.

- ``convert.py``          domain values to protobuf messages and back
- ``leases_servicer.py``  ``boardwright.api.jobs.v1.Leases`` over a JobService
- ``collection.py``       get, list, cancel, retry, watch and logs, for a service's own servicer to call
- ``keeper.py``           references to outputs through the registry's Blobs API
"""
