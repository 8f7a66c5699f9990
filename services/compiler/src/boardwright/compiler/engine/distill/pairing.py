"""Which activation of the student learns from which of the teacher: by stride, the deepest of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import onnx

    from boardwright.model import InputSpec

_POINTWISE = frozenset(
    {
        "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu",
        "Gelu", "Mul", "Add", "BatchNormalization", "LayerNormalization", "Softplus", "Mish",
    }
)  # fmt: skip
_MOST_PAIRS = 3
_FEWEST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Feature:
    """An activation: (C, H, W) for images, (C, T) for tokens. ``place`` says where, alike in both graphs:
    how many input pixels one cell spans, or how many tokens there are."""

    name: str
    shape: tuple[int, ...]
    place: tuple[str, int, int]
    channels_last: bool = False

    @property
    def channels(self) -> int:
        """The length of its channel axis."""
        return self.shape[0]


@dataclass(frozen=True, slots=True)
class FeaturePair:
    """The student's activation and the teacher's."""

    student: Feature
    teacher: Feature


def pair_features(
    student: onnx.ModelProto,
    teacher: onnx.ModelProto,
    student_spec: InputSpec,
    teacher_spec: InputSpec,
    named: Sequence[tuple[str, str]] = (),
) -> tuple[FeaturePair, ...]:
    """Pair activations at the same stride, the deepest at each, of at most three strides near the end.

    Raises:
        EngineError: DISTILL_LAYERS_UNKNOWN for named tensors that are not there or no feature maps;
            DISTILL_LAYERS_DIFFER when no two activations stand at the same place.
    """
    ours, our_shapes = _features(student, student_spec)
    theirs, their_shapes = _features(teacher, teacher_spec)
    if named:
        return tuple(
            FeaturePair(
                _named(one, our_shapes, student_spec, "student"),
                _named(other, their_shapes, teacher_spec, "teacher"),
            )
            for one, other in named
        )
    last_ours = {feature.place: feature for feature in ours if feature.channels >= _FEWEST_CHANNELS}
    last_theirs = {feature.place: feature for feature in theirs if feature.channels >= _FEWEST_CHANNELS}
    order = {feature.name: number for number, feature in enumerate(ours)}
    shared = [place for place in last_ours if place in last_theirs]
    shared.sort(key=lambda place: order[last_ours[place].name])
    if not shared:
        raise EngineError(
            "DISTILL_LAYERS_DIFFER",
            "No activations of student and teacher stand at the same place (pixels per cell, or tokens). "
            "Name pairs with layers: [[student tensor, teacher tensor], ...], or choose another objective.",
        )
    return tuple(FeaturePair(last_ours[place], last_theirs[place]) for place in shared[-_MOST_PAIRS:])


def _features(model: onnx.ModelProto, spec: InputSpec) -> tuple[list[Feature], dict[str, tuple[int, ...]]]:
    """Return the activations behind layers, each after the pointwise nodes that follow, and all shapes."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    topology = Topology(graph)
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    found: dict[str, Feature] = {}
    for index, node in enumerate(topology.nodes):
        # The last layers give answers, which are matched as such.
        if index in topology.layers and topology.reaches_layer[index]:
            name = _behind(topology, str(node.output[0]), shapes)
            feature = _feature(name, shapes.get(name, ()), spec)
            if feature is not None and name not in topology.outputs:
                found[name] = feature
    return list(found.values()), shapes


def _behind(topology: Topology, name: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the tensor behind the pointwise nodes that alone read ``name`` (x * sigmoid(x) is one)."""
    while readers := topology.readers(name):
        nodes = [topology.nodes[reader] for reader in readers]
        if any(node.op_type not in _POINTWISE for node in nodes):
            break
        joined = [node for node in nodes if node.op_type == "Mul"] if len(nodes) == 2 else nodes
        if len(joined) != 1 or shapes.get(joined[0].output[0]) != shapes.get(name):
            break
        name = str(joined[0].output[0])
    return name


def _feature(name: str, shape: tuple[int, ...], spec: InputSpec) -> Feature | None:
    if len(shape) == 4 and min(shape) > 0 and shape[2] * shape[3] >= 1:
        strides = round(spec.height / shape[2]), round(spec.width / shape[3])
        return Feature(name, shape[1:], ("pixels", *strides))
    if len(shape) == 3 and min(shape) > 0:
        return Feature(name, (shape[2], shape[1]), ("tokens", shape[1], 1), channels_last=True)
    return None


def _named(name: str, shapes: dict[str, tuple[int, ...]], spec: InputSpec, owner: str) -> Feature:
    feature = _feature(name, shapes.get(name, ()), spec)
    if feature is None:
        near_end = ", ".join([known for known, shape in shapes.items() if len(shape) in (3, 4)][-8:])
        raise EngineError(
            "DISTILL_LAYERS_UNKNOWN",
            f"The {owner}'s graph has no feature map {name!r} (of 3 or 4 axes). Some it has: {near_end}.",
        )
    return feature
