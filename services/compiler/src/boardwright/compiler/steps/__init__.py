"""The compiler's steps, one module per pass: thin adapters from files and JSON to the engine.

They run in the step process only. ``files`` is what they share; ``boardwright.compiler.kinds`` declares them
and ``pyproject.toml`` names them as entry points.
"""
