"""Which steps may train an Ultralytics file itself: where it still is what the graph was made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.compiler.steps.files import link
from boardwright.jobs.step_api import StepRequest

if TYPE_CHECKING:
    import onnx

    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader


def trainable_file(
    request: StepRequest,
    folder: Path,
    student: tuple[onnx.ModelProto, InputSpec, OutputSpec],
    dataset: DatasetReader,
) -> tuple[Path | None, str]:
    """Return the input ``checkpoint`` as a file that Ultralytics' trainer can train, or None and why not."""
    from boardwright.compiler.engine.distill.checkpoints import import_ultralytics, same_graph, unfit_spec
    from boardwright.compiler.engine.graph.prepare import opset_of

    model, input_spec, output_spec = student
    path = link(request.input("checkpoint"), folder / "student.pt")
    if not _is_ultralytics(path):
        return None, "the checkpoint is no Ultralytics file, or an earlier pass left a graph in its place"
    if not any(sample.label for sample in dataset.manifest.samples):
        return None, "the dataset has no boxes, and Ultralytics' loss needs them"
    if unfit_spec(input_spec):
        return None, unfit_spec(input_spec).rstrip(".")
    if not same_graph(import_ultralytics(path, input_spec, output_spec, opset_of(model)), model):
        return None, "an earlier pass changed the graph since this checkpoint"
    return path, ""


def _is_ultralytics(path: Path) -> bool:
    from boardwright.model import ModelError, ModelFormat, detect_format

    try:
        return detect_format(path) is ModelFormat.ULTRALYTICS
    except ModelError:
        return False
