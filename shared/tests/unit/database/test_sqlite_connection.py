"""Opening a SQLite file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boardwright.database.errors import DatabaseUnavailable
from boardwright.database.sqlite_connection import connect


def opened(path: Path) -> int:
    """How many of this process's descriptors are of this file."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link) == str(path) for link in links)


def test_a_damaged_file_is_told_and_closed(tmp_path: Path) -> None:
    path = (tmp_path / "ledger.db").resolve()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseUnavailable, match="damaged") as told:
        connect(path)
    assert told.value is not None and opened(path) == 0
