"""The builder's steps, each run in a process of its own.

kinds.py          what the kinds are called, their defaults, and what their results depend on
build.py          build/build: graph and specs in; the runtime's files, golden samples, report and pin out
golden.py         golden inputs from a sealed dataset or from seeded noise, and the expected outputs
measure.py        build/measure: artifacts side by side in turns; latency, memory, size
peak_memory.py    the process whose peak memory is read: one model, opened and run
host_noise.py     what else the machine was doing meanwhile
"""
