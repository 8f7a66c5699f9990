"""Packs: many small samples in one blob.

A pack is an uncompressed POSIX tar (ustar) whose entries are called by their digest, with every other field
zero, so that the same samples in the same order are the same blob. Any tar program opens it; a reader needs
only the offsets in the manifest.

Where a pack ends depends on the samples' digests (content-defined, as in rsync and restic), not on their
count: a sample more or less at the start of a dataset changes one pack, and the others are found to be
stored already.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from boardwright.samples.errors import SampleError
from boardwright.samples.found import FoundSample
from boardwright.samples.labels import Label

PACK_MEDIA_TYPE = "application/vnd.boardwright.samples.pack.v1.tar"
MAX_PACK_BYTES = 32 * 1024 * 1024
_MIN_PACK_BYTES = 8 * 1024 * 1024
_CUT_EVERY = 16  # past the minimum, one sample in so many ends the pack
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class PackedSample:
    """A sample and where its bytes are.

    Attributes:
        name, media_type, label: see ``FoundSample``.
        digest: "sha256:…" of the encoded image.
        size_bytes: its length.
        pack_digest: the pack; empty while it is being written.
        pack_offset: where its bytes begin in the pack.
    """

    name: str
    digest: str
    size_bytes: int
    media_type: str
    pack_digest: str
    pack_offset: int
    label: Label


@dataclass(frozen=True, slots=True)
class Pack:
    """A finished pack in a file of its own, and the samples to add once it is uploaded.

    ``samples`` may also name earlier packs: content that came before is not stored again. ``path`` is None
    when every sample of this round was stored before.
    """

    path: Path | None
    digest: str
    size_bytes: int
    samples: tuple[PackedSample, ...]


def write_packs(samples: Iterable[FoundSample], folder: Path) -> Iterator[Pack]:
    """Pack samples into files below ``folder``, one pack at a time.

    The caller uploads each pack and may then delete its file. A sample over 32 MiB gets a pack of its own.

    Raises:
        SampleError: ``SAMPLE_TOO_LARGE``.
        OSError: an image cannot be read, or the folder not be written.
    """
    known: dict[str, tuple[str, int]] = {}
    writer: _Writer | None = None
    try:
        for sample in samples:
            data = sample.read()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if writer is None:
                writer = _Writer(folder)
            if digest in known:
                writer.mention(_describe(sample, data, digest, *known[digest]))
                continue
            if writer.is_full_for(len(data)):
                yield _finish(writer, known)
                writer = _Writer(folder)
            writer.add(sample, data, digest)
            if writer.ends_after(digest):
                yield _finish(writer, known)
                writer = None
        if writer is not None:
            yield _finish(writer, known)
            writer = None
    finally:
        if writer is not None:
            writer.discard()


def _describe(sample: FoundSample, data: bytes, digest: str, pack: str, offset: int) -> PackedSample:
    return PackedSample(sample.name, digest, len(data), sample.media_type, pack, offset, sample.label)


def _finish(writer: "_Writer", known: dict[str, tuple[str, int]]) -> Pack:
    pack = writer.finish()
    for sample in pack.samples:
        known.setdefault(sample.digest, (sample.pack_digest, sample.pack_offset))
    return pack


class _Writer:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tar")
        self._file: BinaryIO = open(descriptor, "wb")  # noqa: SIM115 - closed by finish or discard
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self._size = 0
        self._samples: list[PackedSample] = []
        self._offsets: dict[str, int] = {}

    def is_full_for(self, size: int) -> bool:
        """Whether a sample of this size would push the pack over its limit."""
        return bool(self._offsets) and self._size + size + 4 * _BLOCK > MAX_PACK_BYTES

    def ends_after(self, digest: str) -> bool:
        """Whether the pack ends with this sample."""
        return self._size >= _MIN_PACK_BYTES and int(digest[-4:], 16) % _CUT_EVERY == 0

    def add(self, sample: FoundSample, data: bytes, digest: str) -> None:
        """Write the sample, unless this pack has its content already."""
        if digest not in self._offsets:
            self._write(entry_header(digest, len(data)))
            self._offsets[digest] = self._size
            self._write(data)
            self._write(b"\0" * (-len(data) % _BLOCK))
        self.mention(_describe(sample, data, digest, "", self._offsets[digest]))

    def mention(self, sample: PackedSample) -> None:
        """List a sample without writing it."""
        self._samples.append(sample)

    def finish(self) -> Pack:
        """End the tar and name it."""
        if not self._offsets:
            self.discard()
            return Pack(None, "", 0, tuple(self._samples))
        self._write(b"\0" * (2 * _BLOCK))
        self._file.close()
        digest = "sha256:" + self._hash.hexdigest()
        samples = tuple(s if s.pack_digest else replace(s, pack_digest=digest) for s in self._samples)
        return Pack(self._path, digest, self._size, samples)

    def discard(self) -> None:
        """Delete what was written."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)


def entry_header(digest: str, size: int) -> bytes:
    """The ustar header of an entry (POSIX 1003.1, "ustar Interchange Format"): 512 bytes."""
    fields = [
        ("sha256/" + digest.removeprefix("sha256:")).encode().ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        f"{size:011o}\0".encode(),
        b"00000000000\0",
        b" " * 8,
        b"0",
        b"\0" * 100,
        b"ustar\x0000",
        b"\0" * 64,
        b"0000000\0" * 2,
        b"\0" * 167,
    ]
    header = b"".join(fields)
    checksum = f"{sum(header):06o}\0 ".encode()
    return header[:148] + checksum + header[156:]


def read_packed(file: BinaryIO, digest: str, offset: int, size_bytes: int) -> bytes:
    """One sample's bytes out of an open pack, checked against its digest.

    Raises:
        SampleError: ``PACK_INVALID`` when the pack does not hold that content there.
    """
    file.seek(offset)
    data = file.read(size_bytes)
    if len(data) != size_bytes or "sha256:" + hashlib.sha256(data).hexdigest() != digest:
        raise SampleError("PACK_INVALID", f"the pack does not hold {digest} at offset {offset}")
    return data
