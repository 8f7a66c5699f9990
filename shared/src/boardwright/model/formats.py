"""The checkpoint formats a push may bring, told apart by content without loading anything."""

import zipfile
from enum import StrEnum
from pathlib import Path

from boardwright.content.canonical import read_json
from boardwright.model.errors import ModelError

_MAX_ENTRIES = 100_000

_TO_ONNX_BY_KERAS = (
    "a Keras model: load it with keras and write ONNX, model.export('model.onnx', format='onnx')"
)
_OTHERS_IN_ZIPS = {
    "archive_format": "a program of torch.export: write ONNX, "
    "torch.onnx.export(torch.export.load(path).module(), (sample,), 'model.onnx', external_data=False)",
    "model.weights.h5": _TO_ONNX_BY_KERAS,
}
_TFLITE = "a TFLite model, most of them quantized already: write ONNX from the network that it was made of"
_SAVED_MODEL = (
    "a TensorFlow graph: write ONNX, python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
)


class ModelFormat(StrEnum):
    """How a checkpoint is stored."""

    ONNX = "onnx"
    TORCH_STATE_DICT = "torch-state-dict"
    SAFETENSORS = "safetensors"
    TORCHSCRIPT = "torchscript"
    ULTRALYTICS = "ultralytics"


def detect_format(path: Path) -> ModelFormat:
    """Tell a checkpoint's format by its first bytes and its zip index; nothing is unpickled.

    A ``.pt`` file is a zip: TorchScript has ``code/``, a pickle that names ``ultralytics`` (or YOLOv5's own
    ``models.yolo``) is an Ultralytics checkpoint, everything else is taken as a state dict,
    a bare pickle too: the importer loads tensors alone and names what it refuses.

    Raises:
        ModelError: ``MODEL_FORMAT_UNKNOWN``, saying which formats are known, or how what another framework
            wrote becomes ONNX.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04":
        return _zip_format(path)
    if _is_safetensors(path, head):
        return ModelFormat.SAFETENSORS
    if head[:1] == b"\x80":
        # A bare pickle, as torch.save wrote before 1.6. Whether it holds only tensors, its loader decides.
        return ModelFormat.TORCH_STATE_DICT
    if head[:1] == b"\x08" or path.suffix == ".onnx":
        return ModelFormat.ONNX
    other = ""
    if head.startswith(b"\x89HDF"):
        other = _TO_ONNX_BY_KERAS
    elif head[4:8] == b"TFL3":
        other = _TFLITE
    elif path.suffix == ".pb":
        other = _SAVED_MODEL
    if other:
        raise ModelError("MODEL_FORMAT_UNKNOWN", f"{path.name} is {other}; push that file")
    known = ", ".join(ModelFormat)
    raise ModelError(
        "MODEL_FORMAT_UNKNOWN",
        f"{path.name} is none of the known formats ({known}); export it to ONNX, or save it with torch.save",
    )


def _zip_format(path: Path) -> ModelFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise ModelError("MODEL_FORMAT_UNKNOWN", f"{path.name} is a zip with {len(entries)} entries")
            inner = {entry.filename.partition("/")[2]: entry for entry in entries}
            if any(name.startswith("code/") for name in inner):
                return ModelFormat.TORCHSCRIPT
            for name, told in _OTHERS_IN_ZIPS.items():
                if any(name in (entry, entry.partition("/")[2]) for entry in archive.namelist()):
                    raise ModelError("MODEL_FORMAT_UNKNOWN", f"{path.name} is {told}; push that file")
            if "data.pkl" not in inner:
                raise ModelError(
                    "MODEL_FORMAT_UNKNOWN", f"{path.name} is a zip file, but torch.save did not write it"
                )
            with archive.open(inner["data.pkl"]) as pickled:
                start = pickled.read(4 * 1024 * 1024)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise ModelError("MODEL_FORMAT_UNKNOWN", f"{path.name} is a broken zip file: {error}") from error
    if b"ultralytics" in start or b"models.yolo" in start:
        return ModelFormat.ULTRALYTICS
    return ModelFormat.TORCH_STATE_DICT


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Eight bytes of header length, then a JSON object (safetensors format, version 0.4)."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= min(100_000_000, path.stat().st_size - 8):
        return False
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(read_json(file.read(length)), dict)
        except ValueError:
            return False
