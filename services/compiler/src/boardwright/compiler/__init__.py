"""The compiler turns a pushed checkpoint into optimised Variants with measured quality, by recipes.

Map:

- ``engine/``: the passes as a library that needs no server; one module or package per pass.
- ``recipes/``: recipes as YAML, their schema, and those that ship.
- ``domain/``: recipes, passes and plans as values: which steps a recipe becomes.
- ``kinds.py``, ``steps/``: the passes as steps; only the step process imports ``steps``.
- ``service.py``: a request becomes a job. ``publishing.py``: what a job made is registered.
- ``ports.py``: what is needed of the other services. ``errors.py``: what is refused.
- ``rpc/``: the Compiler API, and the clients behind the ports. ``storage/``: tables, journal, migrations.
- ``app.py``, ``settings.py``, ``__main__.py``: wiring, environment, ``serve | migrate``.
"""
