"""Fixtures of the delivery tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from boardwright.delivery.trust.keys import FileKeyStore
from boardwright.delivery.trust.policy import TrustPolicy
from boardwright.delivery.trust.repository import FleetRepository


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> None:
        self.now += timedelta(**parts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys")


@pytest.fixture
def repository(tmp_path: Path, keys: FileKeyStore, clock: Clock) -> FleetRepository:
    return FleetRepository(tmp_path / "tuf", "default.line-1", keys, TrustPolicy(), clock=clock)


@pytest.fixture
def make_repository(tmp_path: Path, keys: FileKeyStore, clock: Clock) -> Callable[..., FleetRepository]:
    def make(**changes: object) -> FleetRepository:
        options = {"clock": clock, **changes}
        return FleetRepository(tmp_path / "tuf", "default.line-1", keys, TrustPolicy(), **options)  # type: ignore[arg-type]

    return make
