"""The repositories of all fleets in one folder, called from asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from boardwright.delivery.domain.resources import FleetKey
from boardwright.delivery.trust.keys import KeyStore
from boardwright.delivery.trust.metadata import WantedTarget
from boardwright.delivery.trust.policy import TrustPolicy
from boardwright.delivery.trust.repository import FleetRepository, Publication


class FolderRepositories:
    """Implements `ports.FleetRepositories`. Signing and writing happen in threads."""

    def __init__(self, folder: Path, keys: KeyStore, policy: TrustPolicy | None = None) -> None:
        self._folder = folder
        self._keys = keys
        self._policy = policy or TrustPolicy()

    async def publish(self, fleet: FleetKey, wanted: Sequence[WantedTarget]) -> Publication:
        """See the port."""
        return await asyncio.to_thread(self._repository(fleet).publish, wanted)

    async def root(self, fleet: FleetKey, version: int = 0) -> tuple[int, bytes]:
        """See the port."""
        return await asyncio.to_thread(self._repository(fleet).root, version)

    def read(self, fleet: FleetKey, path: str) -> bytes | None:
        """See the port. Small files: read in place."""
        return self._repository(fleet).read(path)

    def _repository(self, fleet: FleetKey) -> FleetRepository:
        return FleetRepository(self._folder, fleet.repository, self._keys, self._policy)
