"""Jobs as pure values and functions: the DAG of steps, cache keys, records and lease rules."""
