"""The step ``compile/distill``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.domain.passes import CALIBRATION
from boardwright.compiler.kinds import DISTILL
from boardwright.compiler.steps.files import (
    baseline_of,
    check_information,
    clear_failures,
    labelled,
    link,
    notes_of,
    open_dataset,
    read_model,
    told_information,
    write_json,
    write_trained,
)
from boardwright.compiler.steps.importing import pushed_files_told, read_declared
from boardwright.compiler.steps.training import memory_of, state_file, tell, training_role
from boardwright.compiler.steps.ultralytics import trainable_file
from boardwright.jobs.step_api import Progress, StepRequest, StepResult, implements

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.importing import ImportedModel
    from boardwright.model import InputSpec, OutputSpec
    from boardwright.samples import DatasetReader

_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class _Done:
    """What either way of distilling gives; an empty ``checkpoint`` is the graph itself."""

    model: onnx.ModelProto
    checkpoint: bytes
    described: dict[str, Any]
    notes: tuple[str, ...]
    interruption: str = ""


@implements(DISTILL)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Train the input ``model.onnx`` beside ``teacher``, a checkpoint that is imported here.

    Uses the dataset ``training``, without one ``calibration``. ``checkpoint`` is the student's: an
    Ultralytics file is trained itself, where it still is what the graph was made of. Outputs: ``model.onnx``,
    ``checkpoint`` (the trained Ultralytics file, otherwise the graph again) and ``distillation.json``.
    Killed, it goes on after the last epoch that was kept; Ultralytics' trainer starts over.
    """
    from boardwright.compiler.engine.distill.teacher import check_teacher

    parameters = request.parameters
    with clear_failures(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = read_model(request)
        role = training_role(request)
        dataset = open_dataset(request, role)
        progress(0, 0, "importing the teacher")
        teacher = _import_teacher(request, folder)
        check_teacher(student[2], teacher.output_spec)
        file, why_not = _ultralytics_file(request, folder, student, teacher, dataset)
        if file is not None:
            of_teacher = link(request.input("teacher"), folder / "of-the-teacher.pt")
            done = _distill_file(request, progress, file, of_teacher, student, dataset)
        else:
            done = _distill_graph(request, progress, student, teacher, dataset)
        finding = check_information(request, progress, done.model, baseline_of(request, student[0]), role)
    unlabelled = "There is no training dataset: learnt from the calibration images, unlabelled."
    first = unlabelled if role == CALIBRATION else ""
    notes = notes_of(first, *done.notes, why_not, finding=finding)
    described = {**done.described, "teacher": parameters["teacher"], "dataset": role, "notes": list(notes)}
    described |= told_information(finding)
    outputs = {
        **write_trained(request, done.model, done.checkpoint),
        "distillation.json": write_json(request, "distillation.json", described),
    }
    return StepResult(outputs, _values(described), notes_of(*notes, done.interruption))


def _values(described: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        "objective", "matching", "layers", "labelled_samples", "held_out_samples", "teacher", "dataset",
        "scores", "epoch", "objective_before", "objective_after",
    )  # fmt: skip
    found = {name: described[name] for name in kept if name in described}
    training = described.get("training", {"losses": described.get("losses", [])})
    of_training = ("steps", "steps_planned", "stopped", "losses", "judged", "kept_epoch")
    return {**found, **{name: training[name] for name in of_training if name in training}}


def _import_teacher(request: StepRequest, folder: Path) -> ImportedModel:
    """Import the teacher's checkpoint as its own version would be; its errors say that they are its."""
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.compiler.engine.importing import import_checkpoint

    told = request.parameters["teacher_import"] or {}
    module = request.inputs.get("teacher-module")
    checkpoint = request.input("teacher")
    path, declared = read_declared(told, checkpoint, module, folder, "pushed_teacher")
    try:
        with pushed_files_told(path, declared.module):
            return import_checkpoint(path, declared)
    except EngineError as error:
        raise type(error)(
            error.reason, f"The teacher {request.parameters['teacher']}: {error.message}"
        ) from error


def _ultralytics_file(
    request: StepRequest,
    folder: Path,
    student: tuple[onnx.ModelProto, InputSpec, OutputSpec],
    teacher: ImportedModel,
    dataset: DatasetReader,
) -> tuple[Path | None, str]:
    """Return the student's file where Ultralytics' trainer is to do the work, and otherwise why it is not."""
    from boardwright.compiler.engine.errors import EngineError
    from boardwright.model import ModelFormat

    objective = request.parameters["objective"]
    if objective not in ("auto", "ultralytics") or student[2].task != "detection":
        if objective == "ultralytics":
            raise EngineError("DISTILL_OBJECTIVE_UNFIT", "The objective ultralytics is for detectors.")
        return None, ""
    if teacher.format is not ModelFormat.ULTRALYTICS:
        path, why_not = None, "the teacher is no Ultralytics checkpoint"
    else:
        path, why_not = trainable_file(request, folder, student, dataset)
    if why_not and objective == "ultralytics":
        raise EngineError(
            "DISTILL_OBJECTIVE_UNFIT", f"The objective ultralytics cannot be used: {why_not}. Choose auto."
        )
    if why_not:
        why_not = f"Ultralytics' own trainer was not used: {why_not}; the graph learnt the teacher's boxes."
    return path, why_not


def _distill_file(
    request: StepRequest,
    progress: Progress,
    file: Path,
    teacher: Path,
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
        file,
        teacher,
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
        state_file=state_file(request),
        on_step=tell(progress),
    )
    return _Done(done.model, b"", done.describe(), done.notes, done.record.interruption)


def _set(request: StepRequest) -> dict[str, Any]:
    """Return the parameters that are set, with the seed: what is None is left to whoever trains."""
    found = {name: value for name, value in request.parameters.items() if value is not None}
    return {**found, "seed": request.seed + int(request.parameters["seed"])}
