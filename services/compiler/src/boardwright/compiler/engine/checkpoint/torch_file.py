"""Files that ``torch.save`` wrote, checked without torch: which globals, which tensors, how many bytes."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.compiler.engine.checkpoint.archive import Archive, check_archive, is_zip
from boardwright.compiler.engine.checkpoint.globals_policy import refusal
from boardwright.compiler.engine.checkpoint.pickles import PickleReading, TensorClaim, read_inertly, read_one
from boardwright.compiler.engine.errors import CheckpointRefused, CheckpointTooLarge, CheckpointUnreadable
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, Limits, check_file_size

LOAD_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, OSError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
)  # fmt: skip
"""What torch raises over a damaged file, and for too little memory: a step tells that apart by the cause."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_SMALL_BYTES = 16 << 20  # an expanded tensor of this size harms nobody
_LEGACY_PICKLES = ("magic number", "protocol version", "system info", "objects")

_ELEMENT_BYTES = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
    "FloatStorage": 4, "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a checked torch file holds. ``opaque_globals`` are harmless data types beside the tensors."""

    path: Path
    root: Any
    globals_named: frozenset[str]
    opaque_globals: frozenset[str]
    tensors: tuple[TensorClaim, ...]
    archive: Archive | None


def check_torch_file(
    path: Path, *, allow_ultralytics: bool = False, limits: Limits = DEFAULT_LIMITS
) -> TorchFile:
    """Judge a file that ``torch.save`` wrote, without running anything that is in it.

    ``allow_ultralytics`` accepts the classes of ``torch.nn`` and ``ultralytics.nn`` that a YOLO checkpoint
    holds; without it only tensors and plain containers pass.

    Raises:
        CheckpointRefused: it names globals beyond the allow-list (each is told), or is a TorchScript archive.
        CheckpointTooLarge: it claims more bytes than the limits allow.
        CheckpointUnreadable: it is damaged, or is no torch file.
    """
    if is_zip(path):
        archive = check_archive(path, limits)
        if archive.member("constants.pkl") is not None:
            raise CheckpointRefused(
                "CHECKPOINT_FORMAT",
                f"{path.name} is a TorchScript archive: declare its format as torchscript.",
            )
        reading = read_inertly(archive.read("data.pkl", limits.max_pickle_bytes), f"{path.name}/data.pkl")
    else:
        archive = None
        reading = _read_legacy(path, limits)
    verdict = refusal(path.name, reading.globals_named, allow_ultralytics=allow_ultralytics)
    if verdict.message:
        raise CheckpointRefused("CHECKPOINT_REFUSED", verdict.message)
    _check_claims(path, reading, archive, limits)
    return TorchFile(
        path,
        reading.root,
        frozenset(reading.globals_named),
        verdict.opaque,
        tuple(reading.tensors),
        archive,
    )


def _read_legacy(path: Path, limits: Limits) -> PickleReading:
    """Read the format before PyTorch 1.6: four pickles one after the other, then the storages."""
    check_file_size(path, limits.max_file_bytes)
    with path.open("rb") as file:
        head = io.BytesIO(file.read(limits.max_pickle_bytes))
    start = bytes(head.getbuffer()[:4])
    if not start.startswith(b"\x80"):
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} is not a file that torch.save wrote: it starts with "
            f"{start!r}. "
            "Check the declared format.",
        )
    reading = PickleReading()
    read_one(head, path.name, reading)
    if reading.root == _LEGACY_MAGIC:
        for part in _LEGACY_PICKLES[1:]:
            read_one(head, f"{path.name} ({part})", reading)
        return reading
    verdict = refusal(path.name, reading.globals_named, allow_ultralytics=False)
    raise CheckpointRefused(
        "CHECKPOINT_REFUSED",
        verdict.message
        or f"{path.name} is a plain Python pickle, not a file that torch.save wrote. "
        "Save torch.save(model.state_dict(), path) instead.",
    )


def _check_claims(path: Path, reading: PickleReading, archive: Archive | None, limits: Limits) -> None:
    sizes = {member.name: member.size_bytes for member in archive.members} if archive else None
    for claim in reading.tensors:
        element_bytes = _ELEMENT_BYTES.get(claim.storage.dtype.rpartition(".")[2], 1)
        claimed = claim.elements * element_bytes
        stored = claim.storage.elements * element_bytes
        if claimed > limits.max_tensor_bytes or claimed > max(stored, _SMALL_BYTES):
            raise CheckpointTooLarge(
                "CHECKPOINT_TOO_LARGE",
                f"{path.name} holds a tensor of shape {list(claim.shape)} that claims {claimed:,} bytes over "
                f"{stored:,} stored ones. Save the checkpoint again from contiguous tensors.",
            )
        if sizes is None:
            continue
        held = sizes.get(f"data/{claim.storage.key}")
        if held is None or held < stored:
            raise CheckpointUnreadable(
                "CHECKPOINT_UNREADABLE",
                f"{path.name} claims {stored:,} bytes for tensor data {claim.storage.key!r} and holds "
                f"{held or 0:,}. The file is damaged: save the checkpoint again.",
            )
