"""Distillation of Ultralytics' own files by Ultralytics' trainer (``distill_model``): labels and features."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.checkpoint.ultralytics_file import YoloCheckpoint, load_ultralytics
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.prepare import opset_of
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.training.ultralytics import (
    UltralyticsOptions,
    UltralyticsRecord,
    check_heads,
    save_ultralytics,
    train_ultralytics,
)
from boardwright.compiler.engine.training.yolo_folder import write_yolo_folder
from boardwright.model import InputSpec, ModelFormat, OutputSpec

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.evaluate import Sample

_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TrainedCheckpoint:
    """A trained Ultralytics file and its graph. ``checkpoint`` is the ``.pt`` that ``model`` was made of."""

    model: onnx.ModelProto
    checkpoint: bytes
    record: UltralyticsRecord

    def describe(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {"objective": "ultralytics", "matching": "features and labels", **self.record.describe()}


def distill_ultralytics(
    student: Path,
    teacher: Path | None,
    samples: Iterable[Sample],
    input_spec: InputSpec,
    output_spec: OutputSpec,
    options: UltralyticsOptions,
    like: onnx.ModelProto,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> TrainedCheckpoint:
    """Train the ``.pt`` file ``student`` on labelled samples, beside the ``.pt`` file ``teacher``.

    Both files are judged before they are loaded. ``like`` is the student's graph: the result is exported at
    its opset and specs. Without ``teacher`` it is Ultralytics' ordinary fine-tuning.

    Raises:
        EngineError: DISTILL_HEADS_DIFFER, DISTILL_CLASSES_DIFFER, ULTRALYTICS_TASK_UNFIT,
            ULTRALYTICS_SPEC_UNFIT; and those of ``train_ultralytics``, ``load_ultralytics`` and import.
        DatasetUnfit: LABELS_NEEDED, LABELS_DO_NOT_FIT.
    """
    unfit = unfit_spec(input_spec)
    if unfit:
        raise EngineError("ULTRALYTICS_SPEC_UNFIT", f"{unfit} Choose another objective.")
    ours = _detector(load_ultralytics(student))
    theirs = _detector(load_ultralytics(teacher)) if teacher is not None else None
    module = ours.model.model
    if theirs is not None:
        check_heads(module, theirs.model.model)
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_yolo_folder(
            samples, Path(folder) / "dataset", output_spec.num_classes, held_out_share=_HELD_OUT_SHARE
        )
        record = train_ultralytics(
            module,
            dataset,
            options,
            teacher=theirs.model.model if theirs is not None else None,
            on_epoch=on_epoch,
        )
        path = Path(folder) / "checkpoint.pt"
        save_ultralytics(module, path, max(input_spec.height, input_spec.width))
        model = import_ultralytics(path, input_spec, output_spec, opset_of(like))
        return TrainedCheckpoint(model, path.read_bytes(), record)


def import_ultralytics(
    path: Path, input_spec: InputSpec, output_spec: OutputSpec, opset: int
) -> onnx.ModelProto:
    """Return the graph of a ``.pt`` file, fed and read as the specs say; the file is judged first."""
    declared = Declared(
        format=ModelFormat.ULTRALYTICS, task=output_spec.task, input_spec=input_spec, output_spec=output_spec
    )
    return import_checkpoint(path, declared, opset=opset).model


def same_graph(model: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Tell whether two exports have the same weights: a checkpoint may be older than the graph made of it.

    Answers alone would not tell: networks that were hardly trained answer alike with other weights.
    """
    import numpy as np
    from onnx import numpy_helper

    ours, theirs = ({tensor.name: tensor for tensor in graph.graph.initializer} for graph in (model, other))
    return ours.keys() == theirs.keys() and all(
        list(tensor.dims) == list(theirs[name].dims)
        and np.allclose(
            numpy_helper.to_array(tensor), numpy_helper.to_array(theirs[name]), rtol=1e-4, atol=1e-6
        )
        for name, tensor in ours.items()
    )


def unfit_spec(spec: InputSpec) -> str:
    """Say why Ultralytics' trainer cannot prepare images as ``spec`` does; empty where it can."""
    if spec.color == "GRAY" or abs(spec.scale - 1 / 255) > 1e-6 or any(spec.mean) or set(spec.std) - {1.0}:
        return "Ultralytics' trainer scales colours to 0 to 1 and knows no mean, std or gray images."
    if spec.resize != "letterbox":
        return f"Ultralytics' trainer letterboxes images, and the input spec says {spec.resize}."
    return ""


def _detector(checkpoint: YoloCheckpoint) -> YoloCheckpoint:
    if checkpoint.task != "detect":
        raise EngineError(
            "ULTRALYTICS_TASK_UNFIT",
            f"Ultralytics' distillation is for detectors, and this checkpoint is for {checkpoint.task!r}. "
            "Choose another objective.",
        )
    return checkpoint
