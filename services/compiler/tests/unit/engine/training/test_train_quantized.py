"""Quantization-aware training gives back what per-tensor rounding took, with labels or without."""

from __future__ import annotations

import onnx
import pytest

from boardwright.compiler.engine.calibrated import Calibrated
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.quantize import quantize, quantize_calibrated
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.scheme import PROFILES, QuantizationScheme
from boardwright.compiler.engine.train_quantized import train_quantized
from boardwright.compiler.engine.training.data import ImageBatches, SampleList
from boardwright.compiler.engine.training.objectives import chosen
from boardwright.compiler.engine.training.options import DataOptions, ObjectiveOptions, TrainOptions

PER_TENSOR = QuantizationScheme(activation_type="int8", activation_symmetric=True, per_channel=False)


def trained(digits, objective, options, scheme=PER_TENSOR, **more):
    batches = ImageBatches(
        SampleList(digits.learnt[:400]), digits.input_spec, DataOptions(batch_size=20), seed=0
    )
    make = chosen(ObjectiveOptions(objective=objective), digits.output_spec, batches.class_counts(10))
    return train_quantized(digits.model, batches, scheme, make, options, feeds=digits.feeds(), **more)


@pytest.mark.parametrize("objective", ["self-distilled", "labels"])
def test_training_beats_plain_rounding_where_one_scale_is_too_few(objective, digits):
    plain = quantize(digits.model, digits.feeds(), PER_TENSOR, protect_automatically=False)
    done = trained(digits, objective, TrainOptions(epochs=6, learning_rate=3e-3))
    lost, left = digits.top1(plain.model), digits.top1(done.quantized.model)
    assert digits.top1(digits.model) > 0.95
    assert lost < 0.7
    assert left > lost + 0.15
    assert done.after < done.before / 2
    assert not done.quantized.exclusions
    assert done.quantized.record.method == "trained"
    assert len(done.record.losses) == 6
    assert not any("did not help" in note for note in done.quantized.notes)


def test_training_heals_scales_that_are_powers_of_two(digits, other_scales):
    scheme = PROFILES["tidl-mma1"]
    plain = quantize(digits.model, digits.feeds(), scheme, protect_automatically=False)
    done = trained(digits, "self-distilled", TrainOptions(steps=40, learning_rate=3e-3), scheme=scheme)
    assert not done.quantized.exclusions
    assert other_scales(plain.model) == other_scales(done.quantized.model) == []
    lost, left = digits.top1(plain.model), digits.top1(done.quantized.model)
    assert lost < 0.7 and left > lost + 0.1
    assert done.after < done.before


def test_scales_that_are_powers_of_two_answer_as_the_float_graph_once_recovered(digits, other_scales):
    scheme = PROFILES["tidl-mma1"]
    options = RecoverOptions(methods=("equalization", "ranges", "bias-correction"), threads=1)
    found = recover(digits.model, lambda: digits.feeds(30), scheme, options, exclusions=())
    done = quantize(digits.model, (), scheme, record=found.record, recovered=found.file(), exclusions=())
    assert other_scales(done.model) == []
    assert digits.top1(done.model) > digits.top1(digits.model) - 0.02
    ranges = next(method for method in found.methods if method.method == "ranges")
    assert ranges.applied and ranges.after < 0.8 * ranges.before  # where the lower neighbour is better


def test_the_same_seed_gives_the_same_bytes(digits):
    options = TrainOptions(steps=3, learning_rate=1e-3)
    first, second = (trained(digits, "self-distilled", options) for _ in range(2))
    assert first.quantized.model.SerializeToString(deterministic=True) == (
        second.quantized.model.SerializeToString(deterministic=True)
    )
    assert first.describe() == second.describe()


def test_the_float_weights_quantize_to_the_same_graph_again(digits):
    done = trained(digits, "self-distilled", TrainOptions(steps=5, learning_rate=1e-3))
    assert not any(node.op_type == "QuantizeLinear" for node in done.trained.graph.node)
    record = done.quantized.record
    again = quantize_calibrated(Calibrated(prepare_graph(done.trained), record, ()), PER_TENSOR)
    assert again.model == done.quantized.model


def test_training_that_does_not_help_says_so(digits):
    options = TrainOptions(steps=4, learning_rate=0.2, warm_up=0.0, gradient_clip=0)
    done = trained(digits, "self-distilled", options, scheme=PROFILES["x86"])
    assert any("did not help" in note for note in done.quantized.notes)


def test_excluded_nodes_and_unknown_ranges(digits):
    graph = digits.model.graph
    name = next(node.name for node in graph.node if node.op_type == "Gemm")
    done = trained(digits, "self-distilled", TrainOptions(steps=2), exclude=[name])
    assert [found.rule for found in done.quantized.exclusions] == ["requested"]
    with pytest.raises(EngineError, match="choose one of learned, moving-average"):
        trained(digits, "self-distilled", TrainOptions(steps=2), ranges="fixed")


def test_a_detector_is_trained_without_labels(detector, noise):
    """The join of boxes and scores stays in floats; what the last layer says is matched."""
    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.model import InputSpec, OutputSpec

    input_spec = InputSpec(name="images", height=16, width=16, batch=1, resize="none")
    output_spec = OutputSpec(task="detection", head="yolov8", num_classes=2)
    images = [(noise(16, 16, 3) * 255).astype("uint8") for _ in range(16)]
    source = SampleList([Sample(str(n), image) for n, image in enumerate(images)])
    batches = ImageBatches(source, input_spec, DataOptions(batch_size=4))
    feeds = ({"images": noise(1, 3, 16, 16)} for _ in range(4))
    make = chosen(ObjectiveOptions(), output_spec, None)
    done = train_quantized(
        detector, batches, PER_TENSOR, make, TrainOptions(epochs=3, learning_rate=1e-3), feeds=feeds
    )
    assert {found.rule for found in done.quantized.exclusions} & {"join", "decode"}
    assert list(done.record.terms) == ["raw"]
    onnx.checker.check_model(done.quantized.model)
    with pytest.raises(EngineError, match="holds no loss for its labels") as caught:
        train_quantized(
            detector, batches, PER_TENSOR, chosen(ObjectiveOptions(objective="labels"), output_spec, [1, 1]),
            TrainOptions(), feeds=[{"images": noise(1, 3, 16, 16)}],
        )  # fmt: skip
    assert caught.value.reason == "OBJECTIVE_UNFIT"
