"""Graphs learn from teachers of other widths, input sizes and scalings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.distill.graphs import distill_graph
from boardwright.compiler.engine.distill.options import DistillOptions, read_distill_options
from boardwright.compiler.engine.distill.teacher import Teacher
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.importing import count_parameters
from boardwright.compiler.engine.training.data import SampleList
from boardwright.compiler.engine.training.options import DataOptions, TrainOptions
from boardwright.model import InputSpec, OutputSpec

DIGITS = InputSpec(height=8, width=8, color="GRAY", channels=1, scale=1 / 255, batch=1)
LARGER = InputSpec(
    height=16, width=16, color="GRAY", channels=1, scale=1 / 255, mean=(0.3,), std=(0.4,), batch=1
)
LOGITS = OutputSpec(task="classification", head="logits", num_classes=10)
BOXES = OutputSpec(task="detection", head="yolov8", num_classes=2)
QUICK = TrainOptions(epochs=6, learning_rate=3e-3)


def learn(student, teacher, samples, options=None, training=QUICK, data=None, **specs):
    return distill_graph(
        student,
        specs.get("spec", DIGITS),
        specs.get("output", LOGITS),
        Teacher(teacher, specs.get("teacher_spec", LARGER), specs.get("teacher_output", LOGITS)),
        SampleList(samples),
        options or DistillOptions(),
        training,
        data or DataOptions(batch_size=32),
    )


def top1(model, samples):
    return evaluate(model, samples, DIGITS, LOGITS).accuracy["top1"]


def test_a_teacher_of_another_size_makes_a_student_of_few_labels_better(student, teacher, digits):
    held_out = digits(1000, 1400)
    done = learn(student, teacher, digits(0, 1000, labels=False))
    assert top1(student, held_out) < 0.9
    assert top1(done.model, held_out) > top1(student, held_out) + 0.05
    assert count_parameters(done.model) == count_parameters(student)
    assert (done.objective, done.labelled) == ("soft-labels", 0)
    assert list(done.record.terms) == ["soft-labels"]


def test_held_out_samples_judge_and_the_best_weights_are_kept(student, teacher, digits):
    """Features are learnt beside the answers, and answers alone judge: adapters begin at random."""
    held_out = DataOptions(batch_size=32, held_out=0.25)
    features = DistillOptions(objective="features")
    done = learn(student, teacher, digits(0, 200, labels=False), features, data=held_out)
    told = done.describe()["training"]
    assert done.describe()["held_out_samples"] == 50
    assert len(told["judged"]) == QUICK.epochs + 1
    assert told["kept_epoch"] == told["judged"].index(min(told["judged"])) > 0
    assert (done.before, done.after) == (pytest.approx(done.record.judged[0]), min(done.record.judged))
    ruinous = TrainOptions(epochs=1, learning_rate=0.5, diverged_factor=1e9)
    kept = learn(student, teacher, digits(0, 200, labels=False), training=ruinous, data=held_out)
    assert kept.record.kept_epoch == 0 and kept.after == kept.before
    assert "weights before training, which are kept" in " ".join(kept.notes)


def test_too_few_samples_hold_none_out(student, teacher, digits):
    done = learn(student, teacher, digits(0, 120), data=DataOptions(batch_size=32, held_out=0.25),
                 training=TrainOptions(epochs=1))  # fmt: skip
    assert done.describe()["held_out_samples"] == 0
    assert done.record.samples == 120 and done.record.judged == []


def test_without_samples_it_is_told(student, teacher):
    with pytest.raises(EngineError, match="no sample to train with") as caught:
        learn(student, teacher, [])
    assert caught.value.reason == "TRAINING_EMPTY"


def test_a_student_that_is_its_own_teacher_is_left_as_it_is(student, digits):
    done = learn(student, student, digits(0, 8, labels=False), teacher_spec=DIGITS)
    assert (done.record.stopped, done.record.steps) == ("nothing-to-learn", 0)
    assert any("already answers as its teacher" in note for note in done.notes)
    assert top1(done.model, digits(1000, 1100)) == top1(student, digits(1000, 1100))


def test_class_labels_are_learnt_beside_the_teacher(student, teacher, digits):
    done = learn(student, teacher, digits(0, 64), training=replace(QUICK, epochs=1))
    assert set(done.record.terms) == {"soft-labels", "labels"}
    assert done.labelled == 64


@pytest.mark.parametrize("feature_loss", ["match", "attention"])
def test_features_are_paired_by_stride_and_come_nearer(student, teacher, digits, feature_loss):
    options = DistillOptions(objective="features", feature_loss=feature_loss)
    few = learn(student, teacher, digits(0, 320), options, replace(QUICK, steps=1))
    more = learn(student, teacher, digits(0, 320), options)
    assert more.pairs == (("/1/Relu_output_0", "/1/Relu_output_0"), ("/4/Relu_output_0", "/4/Relu_output_0"))
    name = "feature /4/Relu_output_0"
    assert more.record.terms[name] < 0.8 * few.record.terms[name]
    assert count_parameters(more.model) == count_parameters(student)  # no adapter is left


def test_named_layers_must_exist(student, teacher, digits):
    options = read_distill_options({"objective": "features", "layers": [["/1/Relu_output_0", "nowhere"]]})
    with pytest.raises(EngineError, match="teacher's graph has no feature map 'nowhere'") as caught:
        learn(student, teacher, digits(0, 8), options)
    assert caught.value.reason == "DISTILL_LAYERS_UNKNOWN"


def test_augmented_images_are_shown_to_both(student, teacher, digits):
    done = learn(
        student, teacher, digits(0, 96), training=replace(QUICK, epochs=2),
        data=DataOptions(batch_size=32, scale_jitter=0.1),
    )  # fmt: skip
    assert np.isfinite(done.record.losses).all()


def test_the_same_seed_gives_the_same_student(student, teacher, digits):
    training = replace(QUICK, epochs=1)
    first = learn(student, teacher, digits(0, 64), training=training)
    assert first.model == learn(student, teacher, digits(0, 64), training=training).model


@pytest.mark.parametrize(
    ("teacher_output", "reason", "words"),
    [
        (replace(LOGITS, num_classes=12), "DISTILL_CLASSES_DIFFER", "knows 10 classes and the teacher 12"),
        (
            replace(LOGITS, labels=tuple("jabcdefghi")),
            "DISTILL_CLASSES_DIFFER",
            "class 0 is 'a' to the student and 'j' to the teacher (the same names in another order)",
        ),
        (BOXES, "DISTILL_TASKS_DIFFER", "does classification and the teacher detection"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(student, teacher, digits, teacher_output, reason, words):
    output = replace(LOGITS, labels=tuple("abcdefghij"))
    with pytest.raises(EngineError) as caught:
        learn(student, teacher, digits(0, 8), output=output, teacher_output=teacher_output)
    assert caught.value.reason == reason
    assert words in caught.value.message


def test_labels_beyond_the_classes_are_refused(student, teacher, digits):
    samples = [replace(sample, class_index=10) for sample in digits(0, 4)]
    with pytest.raises(EngineError, match="class 10, and the model knows 0 to 9"):
        learn(student, teacher, samples)


@pytest.mark.parametrize(("size", "matching"), [(32, "raw candidates"), (48, "decoded boxes")])
def test_a_detector_finds_more_of_its_teachers_boxes(detectors, size, matching):
    spec = InputSpec(height=32, width=32, name="images", batch=1)
    teacher_spec = replace(spec, height=size, width=size)
    rng = np.random.default_rng(0)
    samples = [Sample(str(n), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for n in range(24)]
    student, teacher = detectors(4, 32, 1), detectors(8, size, 0)
    training = TrainOptions(epochs=12, learning_rate=1e-2)
    specs = {"spec": spec, "teacher_spec": teacher_spec, "output": BOXES, "teacher_output": BOXES}
    options = DistillOptions(score_threshold=0.2)
    done = learn(student, teacher, samples, options, training, DataOptions(batch_size=8), **specs)
    assert (done.objective, done.matching) == ("detection", matching)
    assert done.record.losses[-1] < 0.7 * done.record.losses[0]
    if matching == "raw candidates":
        before, after = (
            evaluate(model, samples, spec, BOXES, baseline=teacher).parity["map50_against_baseline"]
            for model in (student, done.model)
        )
        assert after > before


def test_an_objective_of_another_task_is_refused(student, teacher, digits):
    with pytest.raises(EngineError, match="choose auto, features, or soft-labels") as caught:
        learn(student, teacher, digits(0, 4), DistillOptions(objective="detection"))
    assert caught.value.reason == "DISTILL_OBJECTIVE_UNFIT"


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"alpha": 1.5}, {"objective": "all"}, {"feature_loss": "l2"}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(EngineError) as caught:
        read_distill_options(wrong)
    assert caught.value.reason == "DISTILL_OPTIONS_UNFIT"


def test_labels_of_the_samples_that_have_one_are_learnt_where_others_have_none(student, teacher, digits):
    """A teacher that knows nothing: what the student learns of a few labels, no whole batch has."""
    samples = [
        sample if place % 4 == 0 else replace(sample, class_index=None)
        for place, sample in enumerate(digits(0, 128))
    ]
    training = replace(QUICK, epochs=2)
    done = learn(student, teacher, samples, DistillOptions(alpha=0.5), training)
    assert done.labelled == 32
    assert set(done.record.terms) == {"soft-labels", "labels"}
    none = learn(student, teacher, digits(0, 128, labels=False), DistillOptions(alpha=0.5), training)
    assert set(none.record.terms) == {"soft-labels"}
    assert done.model != none.model


def test_the_expectation_over_box_edges_is_no_weight_to_learn():
    """A Conv of 0, 1, 2… over a Softmax (DFL) stays what it is, as in every other training pass."""
    spec = InputSpec(height=8, width=8, name="images", batch=1)
    output = OutputSpec(task="detection", head="dense", num_classes=2)
    rng = np.random.default_rng(0)

    def network(seed: int) -> onnx.ModelProto:
        weights = np.random.default_rng(seed).normal(size=(8, 3, 3, 3)).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["images", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Softmax", ["c"], ["s"], name="softmax", axis=1),
            helper.make_node("Conv", ["s", "edges"], ["distance"], name="dfl"),
        ]
        graph = helper.make_graph(
            nodes, "net",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("distance", TensorProto.FLOAT, [1, 1, 8, 8])],
            [
                numpy_helper.from_array(weights, "w"),
                numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1), "edges"),
            ],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    samples = [Sample(str(n), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for n in range(8)]
    specs = {"spec": spec, "teacher_spec": spec, "output": output, "teacher_output": output}
    done = learn(network(0), network(1), samples, training=replace(QUICK, epochs=2), **specs)
    kept = {t.name: numpy_helper.to_array(t) for t in done.model.graph.initializer}
    np.testing.assert_array_equal(kept["edges"].reshape(-1), np.arange(8))
    assert done.after < done.before
