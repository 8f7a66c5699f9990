"""An embedded stack of its own for each test, on fresh data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.cli.embedded import stack


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a running stack."""
    folder = tmp_path / "data"
    stack.up(folder, detach=True)
    yield folder
    stack.down(folder)
