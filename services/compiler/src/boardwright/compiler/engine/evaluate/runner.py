"""A graph as a function from views of an image to decoded answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.evaluate.merging import merge
from boardwright.compiler.engine.evaluate.views import Merge, View, Views, with_free_axes
from boardwright.compiler.engine.graph.narrowed import holds_float16, rounding
from boardwright.compiler.engine.graph.session import open_session
from boardwright.model import (
    Classification,
    Detections,
    InputSpec,
    OutputSpec,
    Placement,
    decode,
    preprocess,
    used_outputs,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]
    Prepared = tuple[View, Array, Placement]

_MOST_REMEMBERED_BYTES = 1 << 30
"""Of raw outputs in memory; what comes later is asked for again. YOLOv5n at 640 px: 125 images."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model says to one image.

    ``outputs`` are the plain view's raw arrays that the OutputSpec speaks of. ``answer`` is merged from the
    views of the augmentation, ``by_scale`` has one per scale that is judged by itself.
    """

    outputs: dict[str, Array]
    answer: Classification | Detections
    by_scale: dict[float, Classification | Detections]

    @property
    def is_finite(self) -> bool:
        """Whether no raw output holds NaN."""
        import numpy as np

        floats = [out for out in self.outputs.values() if out.dtype.kind == "f" and out.size]
        return not any(np.isnan(out.min()) for out in floats)  # NaN spreads through a minimum


class Runner:
    """A model as a function from an image to its decoded answer."""

    def __init__(
        self,
        model: onnx.ModelProto,
        input_spec: InputSpec,
        output_spec: OutputSpec,
        *,
        threads: int = 0,
        free_axes: bool = False,
    ) -> None:
        self.input_spec = input_spec
        self.output_spec = output_spec.for_evaluation()
        graph = with_free_axes(model, input_spec) if free_axes else model
        if holds_float16(graph):
            graph = rounding(graph)
        self._session = open_session(graph, threads=threads)
        self._names = [value.name for value in self._session.get_outputs()]
        self._used = used_outputs(self._names, output_spec)
        axis = next(v.shape[0] for v in self._session.get_inputs() if v.name == input_spec.name)
        self._batch = axis if isinstance(axis, int) else 1

    def prepare(self, image: Any) -> tuple[Array, Placement]:
        """Return the tensor of one image and where the image lies in it."""
        return preprocess(image, self.input_spec)

    def run(self, tensor: Array) -> dict[str, Array]:
        """Return the outputs that the OutputSpec speaks of for a prepared tensor, of one image only."""
        import numpy as np

        if self._batch > 1:
            tensor = np.repeat(tensor, self._batch, axis=0)
        try:
            outputs = self._session.run(list(self._used), {self.input_spec.name: tensor})
        except Exception as error:  # the runtime's exceptions share no base class of their own
            text = str(error).strip().splitlines()
            raise EngineError(
                "MODEL_FAILED",
                f"The graph fails on an input of shape {list(tensor.shape)}: "
                f"{text[0][:300] if text else type(error).__name__}. At another scale than its own, a graph "
                "with sizes in constants does that: evaluate it without scales, or export it with free axes.",
            ) from error
        if self._batch > 1:
            outputs = [out[:1] if out.ndim and len(out) == self._batch else out for out in outputs]
        return dict(zip(self._used, outputs, strict=True))

    def read(
        self, outputs: Mapping[str, Array], placement: Placement, input_spec: InputSpec | None = None
    ) -> Classification | Detections:
        """Decode outputs that ``run`` gave; ``input_spec`` is the view's where it is not the plain one."""
        return decode(outputs, self.output_spec, placement, input_spec or self.input_spec)

    def answer(self, prepared: list[Prepared], views: Views, how: Merge) -> Answers:
        """Show the model every view of one image."""
        plain: dict[str, Array] = {}
        found: list[Classification | Detections] = []
        for view, tensor, placement in prepared:
            outputs = self.run(tensor)
            answer = self.read(outputs, placement, view.input_spec)
            found.append(view.unflip(answer, placement) if isinstance(answer, Detections) else answer)
            plain = plain or outputs
        return Answers(
            plain,
            merge([found[index] for index in views.merged], self.output_spec, how),
            {scale: found[index] for scale, index in views.by_scale.items()},
        )


class RememberingRunner(Runner):
    """A Runner that asks its graph once for each tensor: for a baseline that many are judged beside."""

    def __init__(self, model: onnx.ModelProto, input_spec: InputSpec, output_spec: OutputSpec) -> None:
        super().__init__(model, input_spec, output_spec)
        self._known: dict[bytes, dict[str, Array]] = {}
        self._left_bytes = _MOST_REMEMBERED_BYTES

    def run(self, tensor: Array) -> dict[str, Array]:
        """Return what the graph gives, or gave, for ``tensor``."""
        import numpy as np

        key = hashlib.blake2b(np.ascontiguousarray(tensor).data).digest()
        if key in self._known:
            return self._known[key]
        outputs = super().run(tensor)
        self._left_bytes -= sum(out.nbytes for out in outputs.values())
        if self._left_bytes >= 0:
            self._known[key] = outputs
        return outputs
