"""What datasets are, without a server, a file or a clock.

- ``dataset``: datasets, versions, samples, and what makes a sample acceptable.
- ``statistics``: statistics that merge, in constant memory.
"""
