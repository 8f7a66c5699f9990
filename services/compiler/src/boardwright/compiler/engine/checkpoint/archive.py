"""Zip archives (PyTorch, TorchScript, Ultralytics) judged by their directory alone, before a byte unpacks."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from boardwright.compiler.engine.errors import CheckpointRefused, CheckpointTooLarge, CheckpointUnreadable
from boardwright.compiler.engine.limits import Limits, check_file_size

_ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One file of an archive; ``name`` is relative to the archive's own top folder."""

    name: str
    full_name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The checked directory of a zip archive."""

    path: Path
    members: tuple[ArchiveMember, ...]

    def member(self, name: str) -> ArchiveMember | None:
        """Return the member called ``name`` below the top folder, or None."""
        return next((member for member in self.members if member.name == name), None)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the bytes of one member.

        Raises:
            CheckpointUnreadable: there is no such member, or its bytes fail their checksum.
            CheckpointTooLarge: it is larger than ``max_bytes``.
        """
        member = self.member(name)
        if member is None:
            raise CheckpointUnreadable("CHECKPOINT_UNREADABLE", f"{self.path.name} holds no {name!r}.")
        if member.size_bytes > max_bytes:
            raise CheckpointTooLarge(
                "CHECKPOINT_TOO_LARGE",
                f"{member.full_name} in {self.path.name} claims {member.size_bytes:,} bytes; "
                f"at most {max_bytes:,} are accepted there.",
            )
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member.full_name) as stream:
                return stream.read(max_bytes + 1)
        except Exception as error:  # each way of compressing has errors of its own
            raise _damaged(self.path, error) from error


def is_zip(path: Path) -> bool:
    """Tell whether the file starts like a zip archive."""
    with path.open("rb") as stream:
        return stream.read(4) == _ZIP_MAGIC


def check_archive(path: Path, limits: Limits) -> Archive:
    """Read the directory of ``path`` and refuse what would unpack beyond the limits.

    Raises:
        CheckpointUnreadable: not a zip archive, truncated, or damaged.
        CheckpointTooLarge: too many members, or the sizes claimed exceed the limits (a zip bomb).
        CheckpointRefused: a member's name leaves the archive's folder, or members overlap.
    """
    file_bytes = check_file_size(path, limits.max_file_bytes)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise _damaged(path, error) from error
    _check_sizes(path, infos, file_bytes, limits)
    return Archive(path, tuple(_member(path, info) for info in infos if not info.is_dir()))


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], file_bytes: int, limits: Limits) -> None:
    if len(infos) > limits.max_entries:
        raise CheckpointTooLarge(
            "CHECKPOINT_TOO_LARGE",
            f"{path.name} holds {len(infos):,} entries; at most {limits.max_entries:,} are accepted.",
        )
    packed = sum(info.compress_size + _LOCAL_HEADER_BYTES for info in infos)
    if packed > file_bytes:
        raise CheckpointRefused(
            "CHECKPOINT_REFUSED",
            f"{path.name} is {file_bytes:,} bytes long, but its members claim {packed:,}: they overlap, "
            "as in a zip bomb. Save the checkpoint again with torch.save.",
        )
    unpacked = sum(info.file_size for info in infos)
    if unpacked > limits.max_unpacked_bytes:
        raise CheckpointTooLarge(
            "CHECKPOINT_TOO_LARGE",
            f"{path.name} has {file_bytes:,} bytes and would unpack to {unpacked:,}; "
            f"at most {limits.max_unpacked_bytes:,} are accepted.",
        )
    for info in infos:
        if info.file_size > 1 << 20 and info.file_size > limits.max_ratio * max(info.compress_size, 1):
            raise CheckpointRefused(
                "CHECKPOINT_REFUSED",
                f"{path.name} holds {info.filename}, which would unpack {info.compress_size:,} bytes to "
                f"{info.file_size:,}: weights never compress like that, a zip bomb does. "
                "Save the checkpoint again with torch.save.",
            )


def _member(path: Path, info: zipfile.ZipInfo) -> ArchiveMember:
    parts = info.filename.replace("\\", "/").split("/")
    if info.filename.startswith("/") or ".." in parts or ":" in parts[0]:
        raise CheckpointRefused(
            "CHECKPOINT_REFUSED",
            f"{path.name} holds an entry {info.filename!r} that points outside of the archive.",
        )
    relative = "/".join(parts[1:]) if len(parts) > 1 else parts[0]
    return ArchiveMember(relative, info.filename, info.file_size)


def _damaged(path: Path, error: Exception) -> CheckpointUnreadable:
    return CheckpointUnreadable(
        "CHECKPOINT_UNREADABLE",
        f"{path.name} is truncated or damaged ({error}). Copy or save the checkpoint again.",
    )
