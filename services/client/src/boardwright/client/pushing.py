"""What a push uploads and records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.rpc.errors import InvalidArgument

BUILDER_LABEL = "network-builder"
"""Label that names the function of the pushed module which builds the network."""

_MEDIA_TYPES = {
    "onnx": "application/vnd.boardwright.model.onnx",
    "torch-state-dict": "application/vnd.boardwright.model.torch-state-dict",
    "safetensors": "application/vnd.boardwright.model.safetensors",
    "torchscript": "application/vnd.boardwright.model.torchscript",
    "ultralytics": "application/vnd.boardwright.model.ultralytics",
}
_NEEDS_MODULE = ("torch-state-dict", "safetensors")

_GRAPH_BYTES = 4 << 20
_WEIGHTS_ELSEWHERE = re.compile(rb"\x6a.{1,2}\x0a\x08location\x12", re.DOTALL)
"""A tensor's `external_data` entry (TensorProto's field 13) with the key "location", as it is serialized."""

SpecLike = Mapping[str, Any] | str | Path | Any
"""A spec as its dataclass (`boardwright.model.InputSpec`), its JSON object, or a file that holds one."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload and how it is called in the version."""

    path: Path
    name: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk, ready to be pushed.

    Attributes:
        format: one of `boardwright.model.ModelFormat`.
        files: the checkpoint first, then the module that builds its network, if it needs one.
        builder: the function in that module; empty for the default.
        input_spec_json, output_spec_json: canonical JSON, empty when import shall derive them.
    """

    format: str
    files: tuple[LocalFile, ...]
    builder: str
    input_spec_json: str
    output_spec_json: str
    task: str


def read_checkpoint(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002
    module: str | Path | None = None,
    input_spec: SpecLike | None = None,
    output_spec: SpecLike | None = None,
    labels: tuple[str, ...] = (),
) -> Checkpoint:
    """Tell the format, read the specs and check that nothing is missing; nothing is loaded or imported.

    Args:
        module: Python file that builds the network of a state dict, "net.py" or "net.py:function".
        labels: class names, completing the output spec.

    Raises:
        InvalidArgument: CHECKPOINT_NOT_FOUND, MODEL_FORMAT_UNKNOWN, MODULE_NEEDED, SPEC_INVALID,
            CHECKPOINT_EXTERNAL_DATA.
    """
    from boardwright.model import InputSpec, ModelError, OutputSpec, detect_format

    if not path.is_file():
        raise InvalidArgument("CHECKPOINT_NOT_FOUND", f"there is no file {path}")
    try:
        kind = format or str(detect_format(path))
        if kind not in _MEDIA_TYPES:
            raise InvalidArgument(
                "MODEL_FORMAT_UNKNOWN", f"{kind!r} is no format; use one of {', '.join(_MEDIA_TYPES)}"
            )
        inputs = InputSpec.from_json(_document(input_spec)) if input_spec is not None else None
        outputs = _output_spec(output_spec, labels, OutputSpec)
    except ModelError as error:
        raise InvalidArgument(error.reason, error.message) from error
    if kind == "onnx":
        _check_weights_inside(path)
    files = [LocalFile(path, path.name, _MEDIA_TYPES[kind])]
    builder = ""
    if module is not None:
        file, builder = _split_module(module)
        files.append(LocalFile(file, file.name, "text/x-python"))
    elif kind in _NEEDS_MODULE:
        raise InvalidArgument(
            "MODULE_NEEDED",
            f"{path.name} holds weights alone ({kind}): name the Python file that builds their network, "
            "--module net.py (a function build_network()) or --module net.py:make_net",
        )
    return Checkpoint(
        kind,
        tuple(files),
        builder,
        _text(inputs),
        _text(outputs),
        outputs.task if outputs is not None else "",
    )


def _check_weights_inside(path: Path) -> None:
    """Import reads one file alone, and torch.onnx.export writes two unless it is told not to.

    Without its weights a graph is small: the start of the file tells, and import looks at the rest.
    """
    with path.open("rb") as file:
        if not _WEIGHTS_ELSEWHERE.search(file.read(_GRAPH_BYTES)):
            return
    raise InvalidArgument(
        "CHECKPOINT_EXTERNAL_DATA",
        f"{path.name} keeps its weights in another file, which would be left behind: write one file, "
        "torch.onnx.export(…, external_data=False), or make one of both, "
        "onnx.save(onnx.load(path), new_path, save_as_external_data=False)",
    )


def _output_spec(given: SpecLike | None, labels: tuple[str, ...], kind: Any) -> Any:
    if given is None:
        return None
    document = dict(_document(given))
    if labels:
        document["labels"] = list(labels)
        document.setdefault("num_classes", len(labels))
    return kind.from_json(document)


def _document(spec: SpecLike) -> Mapping[str, Any]:
    if hasattr(spec, "to_json"):
        return dict(spec.to_json())
    if isinstance(spec, Mapping):
        return spec
    path = Path(spec)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument("SPEC_INVALID", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument("SPEC_INVALID", f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument("SPEC_INVALID", f"{path} holds no JSON object")
    return document


def _split_module(module: str | Path) -> tuple[Path, str]:
    text = str(module)
    file, colon, builder = text.rpartition(":")
    if not colon or not builder.isidentifier():
        file, builder = text, ""
    path = Path(file)
    if not path.is_file():
        raise InvalidArgument("MODULE_NOT_FOUND", f"there is no file {path}")
    return path, builder


def _text(spec: Any) -> str:
    from boardwright.content import canonical_json

    return canonical_json(spec.to_json()).decode() if spec is not None else ""
