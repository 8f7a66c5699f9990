"""Distillation on imported graphs: any checkpoint format, teachers of any architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.distill.detection import SPLIT_HEADS, decoded_boxes, raw_candidates
from boardwright.compiler.engine.distill.objectives import (
    AnswerTerms,
    Distillation,
    FeatureMatching,
    place_of,
    raw_outputs,
    soft_labels,
)
from boardwright.compiler.engine.distill.options import DistillOptions
from boardwright.compiler.engine.distill.pairing import FeaturePair, pair_features
from boardwright.compiler.engine.distill.teacher import Answers, Teacher, check_teacher
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.inspect import graph_outputs
from boardwright.compiler.engine.training.data import Batch, ImageBatches, Source
from boardwright.compiler.engine.training.loop import TrainRecord, judge, train
from boardwright.compiler.engine.training.network import (
    GraphNetwork,
    prepare_for_training,
    to_onnx,
    to_torch,
)
from boardwright.compiler.engine.training.options import DataOptions, TrainOptions

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.distill.teacher import Answer
    from boardwright.model import InputSpec, OutputSpec


_FEWEST_HELD_OUT = 32
"""A student begins far from its teacher: five samples that judged 45 sent it back so often that it learnt
nothing (digits: 74 % instead of 84 %)."""

_SAME = 1e-5
_DECODED = "decoded boxes"


@dataclass(frozen=True, slots=True)
class Distilled:
    """The student after it learnt. ``objective`` is what was chosen, ``matching`` says how answers were
    compared, ``before`` and ``after`` how far they were apart over the same batches: of the ``held_out``
    samples, or where this is 0 of those learnt. ``pairs`` are the (student, teacher) activations that were
    matched."""

    model: onnx.ModelProto
    objective: str
    matching: str
    record: TrainRecord
    before: float
    after: float
    labelled: int
    held_out: int
    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing, as sentences."""
        told = tuple(self.record.notes)
        if self.after < self.before or not self.record.steps:
            return told
        return (
            *told,
            f"The student came no nearer to its teacher: the distance was {self.before:.4g} before training "
            f"and is {self.after:.4g}. Train with a lower learning_rate, for longer, or on more samples.",
        )

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "objective": self.objective,
            "matching": self.matching,
            "layers": [list(pair) for pair in self.pairs],
            "labelled_samples": self.labelled,
            "held_out_samples": self.held_out,
            "objective_before": float(f"{self.before:.6g}"),
            "objective_after": float(f"{self.after:.6g}"),
            "training": self.record.describe(),
            "notes": list(self.notes),
        }


def distill_graph(
    model: onnx.ModelProto,
    input_spec: InputSpec,
    output_spec: OutputSpec,
    teacher: Teacher,
    source: Source,
    options: DistillOptions,
    training: TrainOptions,
    data: DataOptions,
    *,
    memory_bytes: int | None = None,
    state_file: Path | None = None,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Distilled:
    """Train ``model`` to answer as ``teacher`` does on the samples of ``source``.

    ``memory_bytes`` bounds what a training step may take; ``on_step(step, steps, loss)`` tells progress. An
    interrupted training goes on from ``state_file``, which must be of the same arguments.

    Raises:
        EngineError: DISTILL_TASKS_DIFFER, DISTILL_CLASSES_DIFFER, DISTILL_OBJECTIVE_UNFIT,
            DISTILL_OUTPUTS_DIFFER, DISTILL_LAYERS_DIFFER, DISTILL_LAYERS_UNKNOWN; and training's own.
        DatasetUnfit: SAMPLES_REPEATED, LABELS_DO_NOT_FIT; and preprocessing's own.
    """
    check_teacher(output_spec, teacher.output_spec)
    objective = _chosen(options.objective, output_spec)
    network = to_torch(model, fold_batch_norms=False)
    pairs: tuple[FeaturePair, ...] = ()
    if objective == "features":
        teacher = replace(teacher, model=prepare_for_training(teacher.model))  # with all shapes known
        pairs = pair_features(network.graph, teacher.model, input_spec, teacher.input_spec, options.layers)
        teacher = replace(teacher, wanted=tuple(pair.teacher.name for pair in pairs))
    matching, answer_terms = _answer_terms(network, input_spec, output_spec, teacher, options)
    if matching == _DECODED:
        teacher = replace(teacher, score_threshold=max(options.score_threshold, 1e-3))
    batches = ImageBatches(source, input_spec, data, training.seed, fewest_held_out=_FEWEST_HELD_OUT)
    labelled = _labelled(batches, source, output_spec)
    augmented = bool(data.flip or data.scale_jitter or data.color_jitter or data.multi_scale)
    indices = _indices(len(source), data.samples)
    answers = Answers(teacher, source, input_spec, indices, augmented=augmented)

    def ask(batch: Batch) -> list[Answer]:
        return answers.to(batch.names, batch.inputs[input_spec.name])

    features = FeatureMatching(pairs, options) if pairs else None
    judging = Distillation(ask, answer_terms)
    held_out = batches.held_out()
    judged = held_out if held_out is not None else batches
    before = judge(network, judged, judging)
    if before < _SAME and not labelled and len(batches):
        record = _nothing_to_learn(training)
    else:
        record = train(
            network,
            batches,
            Distillation(ask, answer_terms, features),
            training,
            on_step,
            held_out=held_out,
            judging=judging,
            groups=_groups(network, features),
            memory_bytes=memory_bytes,
            state_file=state_file,
        )
    after = judge(network, judged, judging)
    return Distilled(
        model=to_onnx(network),
        objective=objective,
        matching=matching,
        record=record,
        before=before,
        after=after,
        labelled=labelled,
        held_out=held_out.samples if held_out is not None else 0,
        pairs=tuple((pair.student.name, pair.teacher.name) for pair in pairs),
    )


def _nothing_to_learn(options: TrainOptions) -> TrainRecord:
    note = (
        "The student already answers as its teacher does, and there are no labels: it was left as it is. "
        "Name a better teacher."
    )
    return TrainRecord(options, 0, stopped="nothing-to-learn", notes=[note])


def _chosen(objective: str, spec: OutputSpec) -> str:
    if objective == "auto":
        return "soft-labels" if spec.task == "classification" else "detection"
    fits = {"soft-labels": "classification", "detection": "detection"}
    if fits.get(objective, spec.task) != spec.task or objective == "ultralytics":
        raise EngineError(
            "DISTILL_OBJECTIVE_UNFIT",
            f"The objective {objective} does not fit this {spec.task} graph: choose auto, features, or "
            f"{'soft-labels' if spec.task == 'classification' else 'detection'}.",
        )
    return objective


def _answer_terms(
    network: GraphNetwork,
    input_spec: InputSpec,
    output_spec: OutputSpec,
    teacher: Teacher,
    options: DistillOptions,
) -> tuple[str, AnswerTerms]:
    """Return how the answers are compared, in a word, and the terms."""
    place = place_of(output_spec, network)
    theirs = graph_outputs(teacher.model)
    name = teacher.output_spec.name or next(iter(theirs))
    if output_spec.task == "classification":
        return "soft-labels", soft_labels(output_spec, teacher.output_spec, name, place, options)
    ours = graph_outputs(network.graph)
    known = output_spec.head in SPLIT_HEADS and teacher.output_spec.head in SPLIT_HEADS
    if known and _alike(network, input_spec, output_spec, teacher, place, name):
        return "raw candidates", raw_candidates(output_spec, teacher.output_spec, input_spec, name, place)
    if output_spec.head in SPLIT_HEADS:
        return _DECODED, decoded_boxes(output_spec, input_spec, place)
    shapes = [[shape for shape, _ in found.values()] for found in (ours, theirs)]
    if shapes[0] == shapes[1] and output_spec.head == teacher.output_spec.head:
        return "raw outputs", raw_outputs(tuple(theirs))
    raise EngineError(
        "DISTILL_OUTPUTS_DIFFER",
        f"A head {output_spec.head} learns from a teacher with the same head and outputs of the same shapes; "
        f"the student's are {shapes[0]}, the teacher's ({teacher.output_spec.head}) {shapes[1]}. Name such a "
        "teacher.",
    )


def _alike(
    network: GraphNetwork,
    input_spec: InputSpec,
    output_spec: OutputSpec,
    teacher: Teacher,
    place: int,
    name: str,
) -> bool:
    """Tell whether a student's candidate and the teacher's of the same number mean the same place."""
    ours = list(graph_outputs(network.graph).values())[place][0]
    theirs = graph_outputs(teacher.model)[name][0]
    sizes = [(spec.height, spec.width, spec.resize) for spec in (input_spec, teacher.input_spec)]
    heads = [output_spec.head, teacher.output_spec.head]
    return (
        ours[1:] == theirs[1:]
        and sizes[0] == sizes[1]
        and heads[0] == heads[1]
        and "yolo-end2end" not in heads
    )


def _labelled(batches: ImageBatches, source: Source, spec: OutputSpec) -> int:
    """Count the class labels of a classifier's samples, and refuse classes that it does not know."""
    if spec.task != "classification":
        return 0
    known = [label for label in source.labels() if label is not None]
    if len(known) == len(source) and known:
        batches.class_counts(spec.num_classes)
    elif known and max(known) >= spec.num_classes:
        raise EngineError(
            "LABELS_DO_NOT_FIT",
            f"A sample has class {max(known)}, and the model knows 0 to {spec.num_classes - 1}.",
        )
    return len(known)


def _indices(count: int, limit: int | None) -> list[int]:
    wanted = min(count, limit or count)
    return [number * count // wanted for number in range(wanted)]


def _groups(network: GraphNetwork, features: FeatureMatching | None) -> list[dict[str, Any]] | None:
    if features is None or not len(features.adapters):
        return None
    return [
        {"params": [parameter for parameter in network.parameters() if parameter.requires_grad]},
        {"params": list(features.adapters), "rate_factor": 10.0},
    ]
