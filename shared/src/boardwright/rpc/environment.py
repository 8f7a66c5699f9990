"""Settings that a service cannot do without, from the environment."""

from __future__ import annotations

import os


def needed(name: str, example: str) -> str:
    """Return a variable's value. Raises: ValueError, saying what to give it, where it is not set."""
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set; give it {example}")
    return value


def database_url() -> str:
    """BOARDWRIGHT_DATABASE_URL. Raises: ValueError where it is not set."""
    return needed("BOARDWRIGHT_DATABASE_URL", "sqlite:///absolute/path.db or postgresql://user@host/name")
