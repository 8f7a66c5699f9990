"""Fixtures: pictures, packs, a folder in place of the registry's blobs, the service over both databases."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from boardwright.calibration.domain.dataset import DatasetKey, DatasetVersion, Sample
from boardwright.calibration.inspection.process import Inspector
from boardwright.calibration.ports import Caller, RequestId
from boardwright.calibration.sealing import Progress, Sealer
from boardwright.calibration.service import CalibrationService
from boardwright.calibration.settings import MIGRATIONS, SCHEMA
from boardwright.calibration.storage.repository import SqlRepository
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.rpc.errors import NotFound, Unavailable
from boardwright.samples import FoundSample, Label, write_packs
from boardwright.testing.database import database_fixture

database = database_fixture(SCHEMA, MIGRATIONS)
CALLER = Caller("ada", "", "Test")
KEY = DatasetKey("default", "digits")


@dataclass
class FolderBlobs:
    """Implements `ports.Blobs` in a folder. `down` makes it unreachable; `fetched` counts."""

    folder: Path
    down: bool = False
    fetched: list[str] = field(default_factory=list)
    held: dict[str, set[str]] = field(default_factory=dict)

    def _path(self, digest: str) -> Path:
        if self.down:
            raise Unavailable("STORE_UNAVAILABLE", "the store is away")
        return self.folder / digest.removeprefix("sha256:")

    async def sizes(self, project: str, digests: Collection[str], actor: str) -> dict[str, int]:
        paths = {digest: self._path(digest) for digest in digests}
        return {digest: path.stat().st_size for digest, path in paths.items() if path.exists()}

    async def fetch(self, project: str, digest: str, path: Path, actor: str) -> None:
        source = self._path(digest)
        if not source.exists():
            raise NotFound("BLOB_NOT_FOUND", digest)
        self.fetched.append(digest)
        shutil.copyfile(source, path)

    async def store(self, project: str, path: Path, actor: str) -> str:
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, self._path(digest))
        return digest

    async def hold(self, project: str, reference: str, digests: Collection[str], actor: str) -> None:
        self.held[reference] = set(digests)

    def read(self, digest: str) -> bytes:
        return self._path(digest).read_bytes()


@dataclass
class Bench:
    """The service with everything around it."""

    service: CalibrationService
    sealer: Sealer
    repository: SqlRepository
    blobs: FolderBlobs
    database: Database
    folder: Path

    def pack(self, items: Iterable[tuple[str, bytes, Label]]) -> list[Sample]:
        """Put encoded images into packs and the packs into the blobs."""
        found = [FoundSample(name, data, "image/png", label) for name, data, label in items]
        samples: list[Sample] = []
        for pack in write_packs(found, self.folder / "packs"):
            if pack.path is not None:
                shutil.move(pack.path, self.blobs.folder / pack.digest.removeprefix("sha256:"))
            samples += [
                Sample(s.name, s.digest, s.size_bytes, s.media_type, s.pack_digest, s.pack_offset, s.label)
                for s in pack.samples
            ]
        return samples

    async def open(
        self, classes: tuple[str, ...] = ("cat", "dog"), task: str = "classification", key: DatasetKey = KEY
    ) -> DatasetVersion:
        """Create the dataset if needed, and open a version."""
        try:
            await self.service.dataset(key)
        except NotFound:
            await self.service.create_dataset(key, task, "", CALLER, RequestId())
        return await self.service.create_version(key, classes, CALLER, RequestId())

    async def seal(self, version: DatasetVersion, skip_invalid: bool = False) -> list[Progress]:
        """Seal; all progress."""
        return [step async for step in self.sealer.seal(version.key, skip_invalid, CALLER)]

    async def sealed(self, version: DatasetVersion, skip_invalid: bool = False) -> DatasetVersion:
        """Seal; the sealed version."""
        last = (await self.seal(version, skip_invalid))[-1].version
        assert last is not None
        return last


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    (tmp_path / "blobs").mkdir()
    blobs = FolderBlobs(tmp_path / "blobs")
    repository = SqlRepository(database, Outbox(database))
    sealer = Sealer(repository, blobs, Inspector, tmp_path / "scratch", batch=8)
    return Bench(CalibrationService(repository, blobs), sealer, repository, blobs, database, tmp_path)


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """An encoded image of one colour."""

    def encode(color: object = (10, 20, 30), size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
        from PIL import Image

        buffer = BytesIO()
        Image.new(mode, size, color).save(buffer, "PNG")  # type: ignore[arg-type]
        return buffer.getvalue()

    return encode
