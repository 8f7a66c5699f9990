"""Fine-tuning gives a damaged graph back what it lost, from labels or from the baseline's answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.fine_tune import fine_tune
from boardwright.compiler.engine.pruning import sparsify
from boardwright.compiler.engine.training.data import ImageBatches, SampleList
from boardwright.compiler.engine.training.objectives import chosen
from boardwright.compiler.engine.training.options import DataOptions, ObjectiveOptions, TrainOptions


@pytest.fixture
def damaged(digits) -> onnx.ModelProto:
    """The classifier with half of its last layer's inputs gone, as after pruning."""
    model = onnx.ModelProto()
    model.CopyFrom(digits.model)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == gemm.input[1])
    weight = np.array(numpy_helper.to_array(tensor))
    weight[:, :16] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


def tuned(digits, model, options, objective="self-distilled", **more):
    batches = ImageBatches(SampleList(digits.learnt[:300]), digits.input_spec, DataOptions(batch_size=30))
    make = chosen(ObjectiveOptions(objective=objective, **more), digits.output_spec, batches.class_counts(10))
    return fine_tune(model, batches, make, options, teacher=digits.model)


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("self-distilled", {}),
        ("labels", {"label_smoothing": 0.1}),
        ("auto", {"loss": "focal", "class_weights": "median-frequency"}),
    ],
)
def test_a_damaged_classifier_recovers(objective, more, digits, damaged):
    done = tuned(digits, damaged, TrainOptions(epochs=6, learning_rate=3e-3), objective, **more)
    assert digits.top1(damaged) < 0.8
    assert digits.top1(done.model) > digits.top1(damaged) + 0.1
    assert done.after < done.before
    assert done.notes == ()
    assert [tensor.name for tensor in done.model.graph.input] == ["input"]
    assert done.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_inner_activations_can_be_matched_as_well(digits, damaged):
    pooled = next(n for n in digits.model.graph.node if n.op_type == "GlobalAveragePool").output[0]
    done = tuned(digits, damaged, TrainOptions(steps=3), features=(pooled,))
    assert set(done.record.terms) == {"soft-labels", f"feature {pooled}"}
    with pytest.raises(EngineError, match="no tensor 'nowhere'"):
        tuned(digits, damaged, TrainOptions(steps=3), features=("nowhere",))


def test_training_that_diverges_gives_no_graph(digits, damaged):
    options = TrainOptions(epochs=4, learning_rate=1e4, optimizer="sgd", gradient_clip=0, warm_up=0.0)
    with pytest.raises(EngineError, match="Set learning_rate to") as caught:
        tuned(digits, damaged, options, "labels")
    assert caught.value.reason == "TRAINING_DIVERGED"


def test_labels_are_needed_for_the_objective_labels(digits):
    with pytest.raises(EngineError, match="set objective to self-distilled") as caught:
        chosen(ObjectiveOptions(objective="labels"), digits.output_spec, None)
    assert caught.value.reason == "OBJECTIVE_UNFIT"


@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_weights_that_were_pruned_one_by_one_stay_zero(digits, pattern):
    sparse = sparsify(digits.model, 0.5, pattern=pattern)
    done = tuned(digits, sparse.model, TrainOptions(steps=12, learning_rate=3e-3, average=0.9))
    assert "stayed zero" in done.notes[0]
    zeros = {name: value == 0 for name, value in constants(sparse.model).items() if value.ndim > 1}
    trained = constants(done.model)
    kept = {name for name, zero in zeros.items() if zero.mean() > 0.3}
    assert len(kept) >= 3
    for name in kept:
        assert not trained[name][zeros[name]].any()
        assert (trained[name] != 0).sum() == (~zeros[name]).sum()
    assert digits.top1(done.model) > digits.top1(sparse.model) - 0.02


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
