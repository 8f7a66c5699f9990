"""Which globals a checkpoint may name, and what to tell whoever brings one that names others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_STATE_DICT = frozenset(
    {
        "collections.OrderedDict", "collections.Counter", "collections.defaultdict",
        "builtins.set", "builtins.frozenset", "builtins.bytearray", "builtins.complex",
        "builtins.dict", "builtins.list", "builtins.tuple", "builtins.int", "builtins.float",
        "_codecs.encode",
        "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_qtensor", "torch._utils._rebuild_sparse_tensor",
        "torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout", "torch.storage.TypedStorage", "torch.storage.UntypedStorage",
    }
)  # fmt: skip
_STORAGE_TYPES = (
    "Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "ComplexFloat",
    "ComplexDouble",
)  # fmt: skip
_STORAGES = frozenset(f"torch.{name}Storage" for name in _STORAGE_TYPES)
_DTYPE_NAMES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "complex64", "complex128",
)  # fmt: skip
_DTYPES = frozenset(f"torch.{name}" for name in _DTYPE_NAMES)

OPAQUE = frozenset(
    {
        "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "argparse.Namespace",
        "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    }
)  # fmt: skip
"""Plain data that training scripts leave beside the weights."""

_ULTRALYTICS_PREFIXES = (
    "torch.nn.modules.",
    "ultralytics.nn.modules.",
    "ultralytics.nn.tasks.",
    "ultralytics.utils.loss.",
    "ultralytics.utils.tal.",
)
_ULTRALYTICS_EXTRA = frozenset(
    {"builtins.getattr", "ultralytics.utils.IterableSimpleNamespace", "datetime.datetime"}
)  # Ultralytics' own restricted loader replaces getattr by one that reads attributes of modules only

_ULTRALYTICS_REFUSED = frozenset({"ultralytics.nn.modules.block.TorchVision"})  # its constructor downloads

_RUNS_CODE = (
    "posix.", "nt.", "os.", "subprocess.", "sys.", "socket.", "shutil.", "importlib.", "runpy.", "pty.",
    "ctypes.", "pickle.", "marshal.", "types.", "code.", "webbrowser.", "builtins.eval", "builtins.exec",
    "builtins.compile", "builtins.getattr", "builtins.__import__", "builtins.open", "operator.", "functools.",
)  # fmt: skip
_YOLOV5_REPOSITORY = ("models.yolo.", "models.common.", "models.experimental.")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``message`` is empty when everything named is allowed; ``opaque`` are the data types beside tensors."""

    message: str
    opaque: frozenset[str]


def is_allowed(name: str, *, allow_ultralytics: bool) -> bool:
    """Tell whether a checkpoint may name the global ``name``."""
    if name in _STATE_DICT or name in OPAQUE or name in _STORAGES or name in _DTYPES:
        return True
    if name in _ULTRALYTICS_REFUSED:
        return False
    return allow_ultralytics and (name in _ULTRALYTICS_EXTRA or name.startswith(_ULTRALYTICS_PREFIXES))


def refusal(file_name: str, names: Iterable[str], *, allow_ultralytics: bool) -> Verdict:
    """Judge the globals that a pickle names.

    The message tells every refused global, says that none of them ran, and what to do, which depends on where
    such a file usually comes from.
    """
    named = sorted(names)
    refused = [name for name in named if not is_allowed(name, allow_ultralytics=allow_ultralytics)]
    opaque = frozenset(name for name in named if name in OPAQUE)
    if not refused:
        return Verdict("", opaque)
    dangerous = [name for name in refused if name.startswith(_RUNS_CODE)]
    listed = _listing(dangerous or refused)
    return Verdict(
        f"{file_name} asks to load {listed}, which a weights file has no need of. Nothing of it was run. "
        f"{_advice(refused, dangerous)}",
        opaque,
    )


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown


def _advice(refused: list[str], dangerous: list[str]) -> str:
    if dangerous:
        return (
            "A file that names such a function runs code on whoever loads it: do not open it elsewhere, and "
            "ask "
            "where it came from. If it is yours, save the tensors alone: torch.save(model.state_dict(), "
            "path)."
        )
    if any(name.startswith(_YOLOV5_REPOSITORY) for name in refused):
        return (
            "It is a whole model of the YOLOv5 repository, whose classes are not installed here. Export it "
            "there "
            "(python export.py --weights FILE --include onnx) and push the ONNX file with an input spec."
        )
    if any(name.startswith(("ultralytics.", "torch.nn.modules.")) for name in refused):
        return (
            "It is a whole pickled model, not a state dict. Declare format ultralytics if Ultralytics wrote "
            "it; "
            "otherwise save torch.save(model.state_dict(), path) and push it with the module that builds the "
            "network."
        )
    return (
        "It pickles classes of the training code. Save torch.save(model.state_dict(), path) and push it "
        "with the "
        "module that builds the network."
    )
