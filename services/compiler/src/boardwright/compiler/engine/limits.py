"""Bounds that hold before anything of an untrusted file is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from boardwright.compiler.engine.errors import CheckpointTooLarge, CheckpointUnreadable

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a checkpoint may hold. All sizes in bytes.

    ``max_ratio`` is what an archive member may unpack to per packed byte: weights hardly compress, so a
    member that grows a hundredfold is a bomb. ``max_pickle_bytes`` bounds the object stream of a torch
    file, whose tensors lie outside of it.
    """

    max_file_bytes: int = 4 * GIB
    max_unpacked_bytes: int = 4 * GIB
    max_entries: int = 50_000
    max_ratio: int = 100
    max_pickle_bytes: int = 64 * MIB
    max_tensor_bytes: int = 4 * GIB
    max_onnx_bytes: int = 2 * GIB - 1
    max_input_elements: int = 1 << 28


DEFAULT_LIMITS = Limits()


def check_file_size(path: Path, max_bytes: int) -> int:
    """Return the size of ``path`` in bytes.

    Raises:
        CheckpointUnreadable: the file is missing or empty.
        CheckpointTooLarge: it is larger than ``max_bytes``.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointUnreadable(
            "CHECKPOINT_MISSING", f"{path.name} cannot be read: {error.strerror}. Push the file again."
        ) from error
    if size == 0:
        raise CheckpointUnreadable("CHECKPOINT_EMPTY", f"{path.name} is empty. Save the checkpoint again.")
    if size > max_bytes:
        raise CheckpointTooLarge(
            "CHECKPOINT_TOO_LARGE",
            f"{path.name} has {size:,} bytes, and at most {max_bytes:,} are accepted. "
            "Leave optimizer state and EMA copies out of the checkpoint.",
        )
    return size
