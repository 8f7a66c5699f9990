"""Inputs on this machine's disk, by digest: fetched once, used by many steps, bounded in size.

Files are read-only and shared by the steps that use them at the same time. When the folder outgrows its
bound, the files used longest ago go; those in use stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from boardwright.jobs.domain.blobs import Blob

Fetch = Callable[[Blob, Path], Awaitable[None]]


class InputCache:
    """A folder of blobs of at most ``max_bytes`` (more only while that much is in use)."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._in_use: Counter[str] = Counter()
        self._fetching: dict[str, asyncio.Lock] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob("*.partial"):
            partial.unlink()

    @contextlib.asynccontextmanager
    async def use(self, blobs: Mapping[str, Blob], fetch: Fetch) -> AsyncIterator[dict[str, Path]]:
        """Give the blobs' paths by name for the length of the block; ``fetch`` writes those not yet here.

        ``fetch`` must verify what it writes. Raises what ``fetch`` raises.
        """
        self._in_use.update(blob.digest for blob in blobs.values())
        try:
            yield {name: await self._provide(blob, fetch) for name, blob in blobs.items()}
        finally:
            self._in_use.subtract(blob.digest for blob in blobs.values())
            self._in_use += Counter()
            for digest in self._fetching.keys() - self._in_use.keys():
                del self._fetching[digest]  # nobody holds it or waits for it
            self._shrink()

    async def _provide(self, blob: Blob, fetch: Fetch) -> Path:
        path = self._path(blob.digest)
        lock = self._fetching.setdefault(blob.digest, asyncio.Lock())
        async with lock:
            if path.exists():
                os.utime(path)
                return path
            partial = path.with_name(path.name + ".partial")
            try:
                await fetch(blob, partial)
                partial.chmod(0o444)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self._shrink()
        return path

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def _shrink(self) -> None:
        held = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._folder.iterdir())
        total = sum(size for _, size, _ in held)
        for _, size, file in held:
            if total <= self._max_bytes:
                return
            if not self._in_use[f"sha256:{file.name}"] and not file.name.endswith(".partial"):
                file.unlink()
                total -= size
