"""State dicts (``torch.save`` or safetensors) and the user's module that builds their network."""

from __future__ import annotations

import difflib
import importlib.util
import json
import struct
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.checkpoint.torch_file import LOAD_ERRORS, check_torch_file
from boardwright.compiler.engine.errors import (
    CheckpointTooLarge,
    CheckpointUnreadable,
    NetworkFailed,
    first_line,
)
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, MIB, Limits, check_file_size

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "ema_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_MAX_HEADER_BYTES = 64 * MIB
DEFAULT_BUILDER = "build_network"


def load_torch_state_dict(
    path: Path, limits: Limits = DEFAULT_LIMITS
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Load the tensors of a file that ``torch.save`` wrote, and notes about what was left out.

    The file is checked without torch first, then read with ``weights_only=True``.

    Raises:
        CheckpointRefused, CheckpointTooLarge, CheckpointUnreadable: see ``check_torch_file``.
    """
    checked = check_torch_file(path, limits=limits)
    import torch

    try:
        with torch.serialization.safe_globals(_opaque_types(checked.opaque_globals)):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} cannot be read as a state dict: {first_line(error)}. "
            "Save torch.save(model.state_dict(), path) again.",
        ) from error
    return find_state_dict(loaded, path.name)


def load_safetensors(path: Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, torch.Tensor]:
    """Load the tensors of a safetensors file after checking the sizes in its header.

    Raises:
        CheckpointUnreadable: the header or the data do not fit the file.
        CheckpointTooLarge: it claims more than the limits allow.
    """
    check_safetensors_header(path, limits)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} is not a valid safetensors file: {first_line(error)}. Save it again.",
        ) from error


def check_safetensors_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Compare what a safetensors header claims with the file's own length.

    Raises:
        CheckpointUnreadable, CheckpointTooLarge: as in ``load_safetensors``.
    """
    size = check_file_size(path, limits.max_file_bytes)
    with path.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if header_bytes > _MAX_HEADER_BYTES or header_bytes + 8 > size:
            raise CheckpointUnreadable(
                "CHECKPOINT_UNREADABLE",
                f"{path.name} claims a header of {header_bytes:,} bytes in a file of {size:,}: it is "
                "truncated or "
                "no safetensors file.",
            )
        try:
            header = json.loads(stream.read(header_bytes))
            ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise CheckpointUnreadable(
                "CHECKPOINT_UNREADABLE", f"{path.name} has a damaged safetensors header ({error})."
            ) from error
    claimed = 8 + header_bytes + max(ends, default=0)
    if claimed > limits.max_unpacked_bytes:
        raise CheckpointTooLarge(
            "CHECKPOINT_TOO_LARGE", f"{path.name} claims {claimed:,} bytes of tensors in a file of {size:,}."
        )
    if claimed > size:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} claims {claimed:,} bytes and has {size:,}: it is truncated. Copy it again.",
        )


def find_state_dict(loaded: Any, file_name: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the mapping from parameter name to tensor inside of what a checkpoint holds.

    Training scripts wrap it (``{"model": …, "epoch": …}``) and data-parallel training prefixes its names.

    Raises:
        CheckpointUnreadable: there is no such mapping.
    """
    import torch

    notes: list[str] = []
    current = loaded
    for _ in range(3):
        if not isinstance(current, Mapping):
            break
        tensors = {key: value for key, value in current.items() if isinstance(value, torch.Tensor)}
        wrapper = next((key for key in _WRAPPERS if isinstance(current.get(key), Mapping)), None)
        if wrapper is None:
            left_out = sorted(str(key) for key in current if key not in tensors)
            if tensors:
                if left_out:
                    notes.append(f"Left out of the state dict, being no tensors: {', '.join(left_out[:8])}.")
                return {str(key): value for key, value in tensors.items()}, tuple(notes)
            break
        notes.append(f"The state dict was taken from {wrapper!r} of the checkpoint.")
        current = current[wrapper]
    kind = type(loaded).__name__
    keys = f" with the keys {sorted(map(str, loaded))[:8]}" if isinstance(loaded, Mapping) else ""
    raise CheckpointUnreadable(
        "CHECKPOINT_NO_STATE_DICT",
        f"{file_name} holds a {kind}{keys} and no state dict. Save torch.save(model.state_dict(), path).",
    )


def build_network(
    module_file: Path, builder: str = DEFAULT_BUILDER, arguments: Mapping[str, Any] | None = None
) -> torch.nn.Module:
    """Import the user's module and call ``builder`` in it with ``arguments``.

    This runs the user's code: call it in a step's process only.

    Raises:
        NetworkFailed: the import failed, there is no such callable, or it gave no ``torch.nn.Module``.
    """
    import torch

    module = _import_file(module_file)
    function = getattr(module, builder, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(builder, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" It defines {', '.join(sorted(names)) or 'none'}."
        raise NetworkFailed(
            "NETWORK_BUILDER_MISSING",
            f"{module_file.name} has no function or class {builder!r} that builds the network.{hint}",
        )
    try:
        network = function(**dict(arguments or {}))
    except Exception as error:
        raise _user_code_failed(module_file, f"{builder}() failed", error) from error
    if not isinstance(network, torch.nn.Module):
        raise NetworkFailed(
            "NETWORK_BUILDER_WRONG",
            f"{builder}() of {module_file.name} returned a {type(network).__name__}; "
            "it must return a torch.nn.Module.",
        )
    return network


def load_weights(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], file_name: str) -> None:
    """Put ``tensors`` into ``network``, every name and shape matching.

    Raises:
        NetworkFailed: names or shapes differ; the message lists them.
    """
    expected = network.state_dict()
    given = _without_prefix(tensors, set(expected))
    missing = sorted(set(expected) - set(given))
    unexpected = sorted(set(given) - set(expected))
    shapes = [
        f"{key}: {list(given[key].shape)} in the checkpoint, {list(value.shape)} in the network"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"missing in the checkpoint: {', '.join(missing[:5])}" if missing else "",
            f"unknown to the network: {', '.join(unexpected[:5])}" if unexpected else "",
            f"of another shape: {'; '.join(shapes[:5])}" if shapes else "",
        ]
        raise NetworkFailed(
            "NETWORK_WEIGHTS_DIFFER",
            f"The weights of {file_name} do not fit the network "
            f"({'. '.join(part for part in parts if part)}). "
            "Push the module that this checkpoint was trained with, and its arguments.",
        )
    network.load_state_dict(dict(given))


def _without_prefix(tensors: Mapping[str, torch.Tensor], names: set[str]) -> dict[str, torch.Tensor]:
    given = dict(tensors)
    for prefix in _PREFIXES:
        if given and all(key.startswith(prefix) for key in given) and not names & set(given):
            given = {key.removeprefix(prefix): value for key, value in given.items()}
    return given


def _import_file(path: Path) -> ModuleType:
    name = f"boardwright_user_module_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NetworkFailed("NETWORK_MODULE_FAILED", f"{path.name} is no Python file: push a .py module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _user_code_failed(path, "importing it failed", error) from error
    return module


def _user_code_failed(path: Path, what: str, error: Exception) -> NetworkFailed:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f" at line {frames[-1].lineno}" if frames else ""
    return NetworkFailed(
        "NETWORK_MODULE_FAILED",
        f"{path.name}: {what}{where}: {type(error).__name__}: {error}. "
        "The module must build the network with nothing but torch and what is in the file.",
    )


def _opaque_types(names: frozenset[str]) -> list[Any]:
    """Return what ``weights_only`` needs to know to read the harmless data types beside the tensors."""
    import argparse
    import pathlib

    import numpy as np

    scalar, rebuild = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in "bBhHiIlLqQefd?"]
    known: dict[str, list[Any]] = {
        "numpy.dtype": [np.dtype, *dtypes],
        "numpy.core.multiarray.scalar": [(scalar, "numpy.core.multiarray.scalar")],
        "numpy._core.multiarray.scalar": [(scalar, "numpy._core.multiarray.scalar")],
        "numpy.ndarray": [np.ndarray],
        "numpy.core.multiarray._reconstruct": [(rebuild, "numpy.core.multiarray._reconstruct")],
        "numpy._core.multiarray._reconstruct": [(rebuild, "numpy._core.multiarray._reconstruct")],
        "argparse.Namespace": [argparse.Namespace],
    }
    entries = [entry for name in sorted(names) for entry in known.get(name, [])]
    entries += [(pathlib.PurePosixPath, name) for name in sorted(names) if name.startswith("pathlib.")]
    return entries
