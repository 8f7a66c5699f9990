"""The step ``compile/distill``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.kinds import DISTILL
from boardwright.compiler.steps.files import (
    BASELINE_MODEL,
    MODEL,
    check_information,
    clear_failures,
    labelled,
    link,
    load_graph,
    open_dataset,
    read_model,
    write_bytes,
    write_json,
    write_model,
)
from boardwright.compiler.steps.importing import read_declared
from boardwright.compiler.steps.training import memory_of, tell
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.importing import ImportedModel
    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader

CHECKPOINT = "checkpoint"
_TYPE = "application/octet-stream"
_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class _Done:
    """What either way of distilling gives."""

    model: onnx.ModelProto
    checkpoint: bytes
    described: dict[str, Any]
    notes: tuple[str, ...]


@implements(DISTILL)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Train the input ``model.onnx`` beside ``teacher``, a checkpoint that is imported here.

    Uses the dataset ``training``, without one ``calibration``. ``checkpoint`` is the student's: an
    Ultralytics file is trained itself, where it still is what the graph was made of. Outputs: ``model.onnx``,
    ``checkpoint`` (the trained Ultralytics file, otherwise the graph again) and ``distillation.json``.
    """
    from boardwright.compiler.engine.distill.teacher import check_teacher

    parameters = request.parameters
    with clear_failures(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = read_model(request)
        role = "training" if "training" in request.inputs else "calibration"
        dataset = open_dataset(request, role)
        progress(0, 0, "importing the teacher")
        teacher = _import_teacher(request, folder)
        check_teacher(student[2], teacher.output_spec)
        files, why_not = _ultralytics_files(request, folder, student, teacher, dataset)
        if files is not None:
            done = _distill_files(request, progress, files, student, dataset)
        else:
            done = _distill_graph(request, progress, student, teacher, dataset)
        progress(0, 0, "checking that the outputs carry information")
        baseline = load_graph(request, BASELINE_MODEL) if BASELINE_MODEL in request.inputs else student[0]
        finding = check_information(done.model, baseline, dataset, student[1], student[2])
        if parameters["fail_if_information_lost"]:
            finding.require()
    notes = [note for note in (*done.notes, why_not, finding.lost) if note]
    if role == "calibration":
        notes.insert(0, "There is no training dataset: learnt from the calibration images, unlabelled.")
    described = {**done.described, "teacher": parameters["teacher"], "dataset": role, "notes": notes}
    described["information"] = finding.describe()
    outputs = {
        MODEL: write_model(request, done.model),
        CHECKPOINT: write_bytes(request, CHECKPOINT, done.checkpoint, _TYPE),
        "distillation.json": write_json(request, "distillation.json", described),
    }
    return StepResult(outputs, _values(described), tuple(notes))


def _values(described: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "objective", "matching", "layers", "labelled_samples", "teacher", "dataset", "scores", "epoch",
        "objective_before", "objective_after",
    )  # fmt: skip
    found = {name: described[name] for name in kept if name in described}
    training = described.get("training", described)
    return {**found, "losses": list(training.get("losses", ()))}


def _import_teacher(request: StepRequest, folder: Path) -> ImportedModel:
    """Import the teacher's checkpoint as its own version would be; its errors say that they are its."""
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.importing import import_checkpoint

    told = request.parameters["teacher_import"] or {}
    module = request.inputs.get("teacher-module")
    checkpoint = request.input("teacher")
    path, declared = read_declared(told, checkpoint, module, folder, "teacher")
    try:
        return import_checkpoint(path, declared)
    except EngineError as error:
        raise type(error)(
            error.reason, f"The teacher {request.parameters['teacher']}: {error.message}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Files:
    """Ultralytics files of student and teacher."""

    student: Path
    teacher: Path


def _ultralytics_files(
    request: StepRequest,
    folder: Path,
    student: tuple[onnx.ModelProto, InputSpec, OutputSpec],
    teacher: ImportedModel,
    dataset: DatasetReader,
) -> tuple[_Files | None, str]:
    """Return the files where Ultralytics' trainer is to do the work, and otherwise why it is not."""
    from boardwright.compiler.engine.distill.checkpoints import import_ultralytics, same_graph, unfit_spec
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.graph.prepare import opset_of
    from boardwright.model import ModelFormat

    objective = request.parameters["objective"]
    model, input_spec, output_spec = student
    if objective not in ("auto", "ultralytics") or output_spec.task != "detection":
        if objective == "ultralytics":
            raise EngineError("DISTILL_OBJECTIVE_UNFIT", "The objective ultralytics is for detectors.")
        return None, ""
    why_not = ""
    path = link(request.input(CHECKPOINT), folder / "student.pt")
    if not _is_ultralytics(path) or teacher.format is not ModelFormat.ULTRALYTICS:
        why_not = "student and teacher are not both Ultralytics checkpoints"
    elif not any(sample.label for sample in dataset.manifest.samples):
        why_not = "the dataset has no boxes, and Ultralytics' loss needs them"
    elif unfit_spec(input_spec):
        why_not = unfit_spec(input_spec)
    elif not same_graph(import_ultralytics(path, input_spec, output_spec, opset_of(model)), model):
        why_not = "an earlier pass changed the graph since this checkpoint"
    if not why_not:
        return _Files(path, link(request.input("teacher"), folder / "of-the-teacher.pt")), ""
    if objective == "ultralytics":
        raise EngineError(
            "DISTILL_OBJECTIVE_UNFIT", f"The objective ultralytics cannot be used: {why_not}. Choose auto."
        )
    return None, f"Ultralytics' own trainer was not used: {why_not}; the graph learnt the teacher's boxes."


def _distill_files(
    request: StepRequest,
    progress: Progress,
    files: _Files,
    student: tuple[onnx.ModelProto, InputSpec, OutputSpec],
    dataset: DatasetReader,
) -> _Done:
    from boardwright.compiler.engine.distill.checkpoints import distill_ultralytics
    from boardwright.compiler.engine.training.ultralytics import read_ultralytics_options

    parameters = request.parameters
    model, input_spec, output_spec = student
    total = min(len(dataset), parameters["training_samples"] or len(dataset))
    options = read_ultralytics_options(_set(request), input_spec)
    done = distill_ultralytics(
        files.student,
        files.teacher,
        labelled(dataset, total),
        input_spec,
        output_spec,
        options,
        model,
        on_epoch=lambda epoch: progress(epoch, options.epochs, "training"),
    )
    return _Done(done.model, done.checkpoint, done.describe(), done.record.notes)


def _distill_graph(
    request: StepRequest,
    progress: Progress,
    student: tuple[onnx.ModelProto, InputSpec, OutputSpec],
    teacher: ImportedModel,
    dataset: DatasetReader,
) -> _Done:
    from boardwright.compiler.engine.distill.graphs import distill_graph
    from boardwright.compiler.engine.distill.options import read_distill_options
    from boardwright.compiler.engine.distill.teacher import Teacher
    from boardwright.compiler.engine.training.data import DatasetSource
    from boardwright.compiler.engine.training.options import DataOptions, TrainOptions, from_parameters

    parameters = {"learning_rate": _LEARNING_RATE, **_set(request)}
    parameters["samples"] = request.parameters["training_samples"]
    model, input_spec, output_spec = student
    done = distill_graph(
        model,
        input_spec,
        output_spec,
        Teacher(teacher.model, teacher.input_spec, teacher.output_spec),
        DatasetSource(dataset),
        read_distill_options(parameters),
        from_parameters(TrainOptions, parameters),
        from_parameters(DataOptions, parameters),
        memory_bytes=memory_of(DISTILL),
        on_step=tell(progress),
    )
    graph = done.model.SerializeToString(deterministic=True)
    return _Done(done.model, graph, done.describe(), done.notes)


def _set(request: StepRequest) -> dict[str, Any]:
    """Return the parameters that are set, with the seed: what is None is left to whoever trains."""
    found = {name: value for name, value in request.parameters.items() if value is not None}
    return {**found, "seed": request.seed + int(request.parameters["seed"])}


def _is_ultralytics(path: Path) -> bool:
    """Tell an Ultralytics file; an earlier pass may have left a graph in a checkpoint's place."""
    from boardwright.model import ModelError, ModelFormat, detect_format

    try:
        return detect_format(path) is ModelFormat.ULTRALYTICS
    except ModelError:
        return False
