"""What the registry keeps and the rules over it, without a server, a database or a clock.

resources.py   the resources as frozen values
gates.py       a gate, the figures it needs, its verdict
stages.py      the ladder, promotion and roll back
lineage.py     walking the graph of what was made of what
"""
