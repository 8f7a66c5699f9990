"""Detection heads as exporters write them, on raw maps of any backbone; graphs of several kinds, built small.

Nothing here is a trained network: a seeded backbone with realistic magnitudes feeds decodes whose structure
is that of the families in the field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CLASSES, ANCHORS, BINS = 6, 2, 8


@dataclass
class Builder:
    """Nodes and constants of a graph under way; ``style`` is how its exporter names nodes."""

    opset: int = 17
    style: str = "torch"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"const_{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        number = len(self.nodes)
        made = [f"t{number}_{index}" for index in range(outputs)]
        name = {
            "torch": f"/head/{operator}_{number}",
            "keras": f"StatefulPartitionedCall/model/{operator.lower()}_{number}",
            "number": str(number),
            "none": "",
        }[self.style]
        self.nodes.append(helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def split(self, tensor: str, sizes: list[int], axis: int) -> list[str]:
        if self.opset < 13:
            return self.add("Split", tensor, outputs=len(sizes), axis=axis, split=sizes)
        return self.add("Split", tensor, self.constant(sizes, np.int64), outputs=len(sizes), axis=axis)

    def reshape(self, tensor: str, *shape: int) -> str:
        return self.add("Reshape", tensor, self.constant(shape, np.int64))

    def unsqueeze(self, tensor: str, axis: int) -> str:
        if self.opset < 13:
            return self.add("Unsqueeze", tensor, axes=[axis])
        return self.add("Unsqueeze", tensor, self.constant([axis], np.int64))

    def reduce(self, operator: str, tensor: str, axis: int, keepdims: int = 0) -> str:
        if self.opset < (13 if operator == "ReduceSum" else 18):
            return self.add(operator, tensor, axes=[axis], keepdims=keepdims)
        return self.add(operator, tensor, self.constant([axis], np.int64), keepdims=keepdims)

    def softmax(self, tensor: str, axis: int) -> str:
        """Before opset 13 a Softmax runs over all axes from its own on; exporters move it to the end."""
        if self.opset >= 13:
            return self.add("Softmax", tensor, axis=axis)
        order = [0, 3, 2, 1]
        last = self.add("Softmax", self.add("Transpose", tensor, perm=order), axis=3)
        return self.add("Transpose", last, perm=order)

    def conv(self, tensor: str, weight: np.ndarray, bias: Any = 0.0, stride: int = 1) -> str:
        side = weight.shape[2] // 2
        shift = np.broadcast_to(np.asarray(bias, np.float32), weight.shape[:1]).copy()
        return self.add(
            "Conv", tensor, self.constant(weight), self.constant(shift), pads=[side] * 4, strides=[stride] * 2
        )

    def silu(self, tensor: str) -> str:
        return self.add("Mul", tensor, self.add("Sigmoid", tensor))

    def model(self, given: dict[str, list[int]], made: dict[str, int]) -> onnx.ModelProto:
        """``made`` maps tensor names to element types."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in given.items()],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in made.items()],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        version = 7 if self.opset < 15 else 9
        made_model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=version
        )
        return onnx.shape_inference.infer_shapes(made_model)


@dataclass(frozen=True)
class Map:
    """A raw map of a head: tensor name, side and stride in pixels."""

    tensor: str
    side: int
    stride: int


def grid(side: int) -> np.ndarray:
    """Return (side, side, 2) cell coordinates, x first."""
    rows, columns = np.mgrid[0:side, 0:side]
    return np.stack([columns, rows], axis=-1).astype(np.float32)


def anchored(builder: Builder, maps: list[Map], classes: int, anchors: np.ndarray) -> list[str]:
    """One Concat per level joins pixels with scores, (1, N, 5 + C): YOLOv5. ``anchors`` (levels, A, 2)."""
    levels = []
    for number, found in enumerate(maps):
        count = anchors.shape[1]
        rows = builder.reshape(found.tensor, 1, count, 5 + classes, found.side, found.side)
        chance = builder.add("Sigmoid", builder.add("Transpose", rows, perm=[0, 1, 3, 4, 2]))
        centre, size, scores = builder.split(chance, [2, 2, 1 + classes], 4)
        centre = builder.add("Mul", centre, builder.constant(2))
        centre = builder.add("Add", centre, builder.constant(grid(found.side)[None, None] - 0.5))
        centre = builder.add("Mul", centre, builder.constant(found.stride))
        size = builder.add("Mul", size, builder.constant(2))
        size = builder.add("Pow", size, builder.constant(2))
        size = builder.add("Mul", size, builder.constant(anchors[number].reshape(1, count, 1, 1, 2)))
        joined = builder.add("Concat", centre, size, scores, axis=4)
        levels.append(builder.reshape(joined, 1, -1, 5 + classes))
    return [builder.add("Concat", *levels, axis=1)]


def written_in_place(builder: Builder, maps: list[Map], classes: int, anchors: np.ndarray) -> list[str]:
    """The same decode, written into slices (``y[..., 0:2] = …``): ScatterND on a tensor of chances."""
    levels = []
    for number, found in enumerate(maps):
        count, side = anchors.shape[1], found.side
        rows = builder.reshape(found.tensor, 1, count, 5 + classes, side, side)
        chance = builder.add("Sigmoid", builder.add("Transpose", rows, perm=[0, 1, 3, 4, 2]))
        centre, size, _ = builder.split(chance, [2, 2, 1 + classes], 4)
        centre = builder.add("Add", builder.add("Add", centre, centre), builder.constant(grid(side) - 0.5))
        centre = builder.add("Mul", centre, builder.constant(found.stride))
        size = builder.add("Mul", builder.add("Mul", size, size), builder.constant(4 * anchors[number].max()))
        places = np.stack(
            np.meshgrid([0], range(count), range(side), range(side), range(4), indexing="ij"), axis=-1
        )
        for part, values in ((places[..., :2, :], centre), (places[..., 2:, :], size)):
            chance = builder.add("ScatterND", chance, builder.constant(part, np.int64), values)
        levels.append(builder.reshape(chance, 1, -1, 5 + classes))
    return [builder.add("Concat", *levels, axis=1)]


def expected(builder: Builder, maps: list[Map], classes: int, bins: int = BINS) -> list[str]:
    """Box edges as expectations over bins (DFL), boxes beside scores, (1, 4 + C, N): YOLOv8 and later."""
    flat = [builder.reshape(found.tensor, 1, 4 * bins + classes, found.side**2) for found in maps]
    boxes, scores = builder.split(builder.add("Concat", *flat, axis=2), [4 * bins, classes], 1)
    total = sum(found.side**2 for found in maps)
    bars = builder.add("Transpose", builder.reshape(boxes, 1, 4, bins, total), perm=[0, 2, 1, 3])
    weights = builder.constant(np.arange(bins).reshape(1, bins, 1, 1))
    edges = builder.add("Conv", builder.softmax(bars, 1), weights)
    left, right = builder.split(builder.reshape(edges, 1, 4, total), [2, 2], 1)
    points = np.concatenate([grid(found.side).reshape(-1, 2) + 0.5 for found in maps]).T[None]
    strides = np.concatenate([np.full(found.side**2, found.stride) for found in maps])[None, None]
    low = builder.add("Sub", builder.constant(points), left)
    high = builder.add("Add", builder.constant(points), right)
    centre = builder.add("Div", builder.add("Add", low, high), builder.constant(2))
    pair = builder.add("Concat", centre, builder.add("Sub", high, low), axis=1)
    pixels = builder.add("Mul", pair, builder.constant(strides))
    return [builder.add("Concat", pixels, builder.add("Sigmoid", scores), axis=1)]


def exponential(builder: Builder, maps: list[Map], classes: int) -> list[str]:
    """Scores joined with raw boxes per level, decoded by exp at the end: YOLOX."""
    flat = []
    for found in maps:
        boxes, rest = builder.split(found.tensor, [4, 1 + classes], 1)
        joined = builder.add("Concat", boxes, builder.add("Sigmoid", rest), axis=1)
        flat.append(builder.reshape(joined, 1, 5 + classes, found.side**2))
    rows = builder.add("Transpose", builder.add("Concat", *flat, axis=2), perm=[0, 2, 1])
    centre, size, scores = builder.split(rows, [2, 2, 1 + classes], 2)
    points = np.concatenate([grid(found.side).reshape(-1, 2) for found in maps])[None]
    strides = np.concatenate([np.full(found.side**2, found.stride) for found in maps])[None, :, None]
    centre = builder.add("Add", centre, builder.constant(points))
    centre = builder.add("Mul", centre, builder.constant(strides))
    size = builder.add("Mul", builder.add("Exp", size), builder.constant(strides))
    return [builder.add("Concat", centre, size, scores, axis=2)]


def undecoded(builder: Builder, maps: list[Map], classes: int, bins: int = BINS) -> list[str]:
    """Chances of 0 to 1 joined with raw distributions, nothing decoded, (1, N, C + 4 bins): NanoDet, GFL."""
    flat = []
    for found in maps:
        boxes, scores = builder.split(found.tensor, [4 * bins, classes], 1)
        joined = builder.add("Concat", builder.add("Sigmoid", scores), boxes, axis=1)
        flat.append(builder.reshape(joined, 1, classes + 4 * bins, found.side**2))
    return [builder.add("Transpose", builder.add("Concat", *flat, axis=2), perm=[0, 2, 1])]


def prior_boxes(builder: Builder, maps: list[Map], classes: int) -> list[str]:
    """Offsets of priors and a softmax with background, boxes of 0 to 1 and scores apart: SSD."""
    places, scores = [], []
    for found in maps:
        box, score = builder.split(found.tensor, [4, 1 + classes], 1)
        for part, size, into in ((box, 4, places), (score, 1 + classes, scores)):
            into.append(builder.reshape(builder.add("Transpose", part, perm=[0, 2, 3, 1]), 1, -1, size))
    place = builder.add("Concat", *places, axis=1)
    score = builder.add("Concat", *scores, axis=1)
    chance = builder.add("Softmax", score, axis=2)
    centres = np.concatenate([(grid(found.side).reshape(-1, 2) + 0.5) / found.side for found in maps])[None]
    sizes = np.concatenate([np.full((found.side**2, 2), 1 / found.side) for found in maps])[None]
    shift, growth = builder.split(place, [2, 2], 2)
    shift = builder.add("Mul", builder.add("Mul", shift, builder.constant(0.1)), builder.constant(sizes))
    centre = builder.add("Add", shift, builder.constant(centres))
    growth = builder.add("Exp", builder.add("Mul", growth, builder.constant(0.2)))
    half = builder.add("Div", builder.add("Mul", growth, builder.constant(sizes)), builder.constant(2))
    corners = [builder.add("Sub", centre, half), builder.add("Add", centre, half)]
    return [builder.add("Concat", *corners, axis=2), chance]


def rows_of_answers(builder: Builder, maps: list[Map], classes: int) -> list[str]:
    """Corners stacked with the best score and the class's number, (1, N, 6): heads exported end to end."""
    boxes, scores = prior_boxes(builder, maps, classes)
    pixels = builder.add("Mul", boxes, builder.constant(640))
    best = builder.reduce("ReduceMax", scores, 2)
    index = builder.add("ArgMax", scores, axis=2, keepdims=0)
    number = builder.add("Cast", index, to=TensorProto.FLOAT)
    columns = [builder.unsqueeze(best, 2), builder.unsqueeze(number, 2)]
    return [builder.add("Concat", pixels, *columns, axis=2)]


HEADS: dict[str, tuple[Callable[..., list[str]], int]] = {
    "anchored": (anchored, ANCHORS * (5 + CLASSES)),
    "written in place": (written_in_place, ANCHORS * (5 + CLASSES)),
    "expected": (expected, 4 * BINS + CLASSES),
    "exponential": (exponential, 5 + CLASSES),
    "undecoded": (undecoded, 4 * BINS + CLASSES),
    "prior boxes": (prior_boxes, 5 + CLASSES),
    "rows of answers": (rows_of_answers, 5 + CLASSES),
}
"""Heads by their structure, with how many channels their raw maps have."""


@pytest.fixture
def builder() -> type[Builder]:
    """The class that graphs of these tests are built with."""
    return Builder


@pytest.fixture
def heads() -> set[str]:
    """The names of all heads there are."""
    return set(HEADS)


@pytest.fixture
def detector_with() -> Callable[..., onnx.ModelProto]:
    """Return ``detector_with(head, opset, style)``: a small detector with a head written as exporters do."""
    return _detector


@pytest.fixture
def images() -> list[dict[str, np.ndarray]]:
    """Eight seeded inputs of the small detectors."""
    rng = np.random.default_rng(1)
    return [{"images": rng.random((1, 3, 32, 32), dtype=np.float32)} for _ in range(8)]


def _detector(head: str, opset: int = 17, style: str = "torch") -> onnx.ModelProto:
    """Return a small detector over (1, 3, 32, 32) ``images`` with two levels and one of ``HEADS``."""
    rng = np.random.default_rng(0)
    builder = Builder(opset, style)
    decode, channels = HEADS[head]

    def weight(outputs: int, inputs: int, side: int, gain: float = 1.7) -> np.ndarray:
        spread = gain / np.sqrt(inputs * side * side)
        return rng.normal(size=(outputs, inputs, side, side)).astype(np.float32) * np.float32(spread)

    features = builder.silu(builder.conv("images", weight(12, 3, 3, 4), stride=2))
    features = builder.add("Relu", builder.conv(features, weight(16, 12, 3), stride=2))
    small = builder.silu(builder.conv(features, weight(16, 16, 3), stride=2))
    maps = []
    for tensor, side, stride in ((features, 8, 4), (small, 4, 8)):
        raw = builder.conv(tensor, weight(channels, 16, 1, 3))
        maps.append(Map(raw, side, stride * 20))  # strides as of an image of 640 px
    extra = (np.array([[[20, 30], [90, 60]], [[200, 160], [320, 373]]], np.float32),)
    arguments = extra if head in ("anchored", "written in place") else ()
    outputs = decode(builder, maps, CLASSES, *arguments)
    return builder.model({"images": [1, 3, 32, 32]}, dict.fromkeys(outputs, TensorProto.FLOAT))
