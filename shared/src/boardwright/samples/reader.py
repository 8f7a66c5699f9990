"""Reading a sealed dataset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from boardwright.samples.errors import SampleError
from boardwright.samples.images import MAX_PIXELS, decode_image
from boardwright.samples.labels import Label
from boardwright.samples.manifest import DatasetManifest, ManifestSample
from boardwright.samples.packs import read_packed

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class DatasetSample:
    """A decoded sample."""

    name: str
    image: "Image.Image"
    label: Label


class DatasetReader:
    """Iterates over a sealed dataset's samples in the manifest's order, decoding one at a time.

    Args:
        manifest: the dataset's manifest.
        packs: a mapping from a pack's digest to its file, or a function that fetches it.
        max_pixels: larger images are refused.

    Iterating raises SampleError: ``PACK_INVALID``, ``PACK_MISSING``, ``IMAGE_CORRUPT`` or ``IMAGE_TOO_LARGE``
    (a sealed dataset has none of the latter two).
    """

    def __init__(
        self,
        manifest: DatasetManifest,
        packs: Mapping[str, Path] | Callable[[str], Path],
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.manifest = manifest
        self._packs = packs
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.manifest.samples)

    def __iter__(self) -> Iterator[DatasetSample]:
        return self.samples()

    def samples(self, limit: int | None = None) -> Iterator[DatasetSample]:
        """The samples, decoded; with a limit, so many spread evenly over the dataset."""
        return self.at(spread(len(self.manifest.samples), limit))

    def at(self, indices: Sequence[int]) -> Iterator[DatasetSample]:
        """The samples at ``indices`` of the manifest, decoded, in the order asked for (training shuffles)."""
        for entry, data in self._read([self.manifest.samples[index] for index in indices]):
            try:
                yield DatasetSample(entry.name, decode_image(data, self._max_pixels), entry.label)
            except SampleError as error:
                raise SampleError(error.reason, f"{entry.name}: {error.message}") from error

    def _read(self, entries: list[ManifestSample]) -> Iterator[tuple[ManifestSample, bytes]]:
        current, file = -1, None
        try:
            for entry in entries:
                if entry.pack != current:
                    if file is not None:
                        file.close()
                    file, current = self._open(entry.pack), entry.pack
                assert file is not None
                yield entry, read_packed(file, entry.digest, entry.offset, entry.size_bytes)
        finally:
            if file is not None:
                file.close()

    def _open(self, pack: int) -> BinaryIO:
        digest = self.manifest.packs[pack].digest
        try:
            path = self._packs[digest] if isinstance(self._packs, Mapping) else self._packs(digest)
            return path.open("rb")
        except (KeyError, FileNotFoundError) as error:
            raise SampleError("PACK_MISSING", f"the dataset's pack {digest} was not fetched") from error


def spread(count: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` samples, evenly over ``count``; the same every time."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(max(0, limit))]
