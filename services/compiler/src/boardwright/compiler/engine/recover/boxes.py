"""The error of a quantized detector, told by its boxes.

A detector answers for every cell of an image, and nearly all cells show nothing: an error over all of them is
that of the background. Here both graphs' outputs are decoded, and what differs counts by its score. No label
is needed: the float graph's own boxes are what should be found.

On YOLOv5n the least error over all cells took a worse choice (of norms for ranges, and whether to correct
biases) than the least over boxes in three of six runs, and the same in the others: docs/benchmarks.md has the
figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.model import Detections, InputSpec, OutputSpec, Placement, decode_batch

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime

    Array = np.ndarray[Any, Any]

SAMPLES = 48
"""How many judge; each is run once for every choice."""

_SEEN = 0.05  # from this score on a box counts


class BoxJudge:
    """Runs the float graph once over samples, and any number of quantized graphs beside it.

    ``samples`` is called once for each graph, and its first ``SAMPLES`` are taken: none is kept in memory.
    ``found_anything`` is False where the float graph sees no object in them: nothing can be judged then.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        samples: Callable[[], Iterable[Feed]],
        scheme: QuantizationScheme,
        excluded: set[str],
        specs: tuple[InputSpec, OutputSpec],
        threads: int = 0,
    ) -> None:
        self._samples, self._scheme, self._excluded, self._threads = samples, scheme, excluded, threads
        self._input = specs[0]
        self._output = replace(specs[1].for_evaluation(), score_threshold=_SEEN)
        size = float(self._input.width), float(self._input.height)
        self._whole = Placement(int(size[0]), int(size[1]), 1.0, 1.0, 0.0, 0.0)
        self._expected = list(self._boxes(open_session(model, threads=threads)))
        self._weight = sum(_square(boxes.scores) for boxes in self._expected)

    @property
    def found_anything(self) -> bool:
        """Whether the float graph sees an object in any of the samples."""
        return self._weight > 0

    def error(self, model: onnx.ModelProto, record: CalibrationRecord) -> float:
        """Return how much of the boxes differs once ``model`` is quantized with ``record``.

        0: the same boxes; 1: as much as if none were found. Infinite where an output is not finite.
        """
        from boardwright.compiler.engine.quantize import insert_quantization

        quantized = insert_quantization(model, record, self._scheme, self._excluded)
        found = self._boxes(open_session(quantized, threads=self._threads))
        total = sum(map(distance, self._expected, found))
        return total / self._weight if math.isfinite(total) else math.inf

    def _boxes(self, session: onnxruntime.InferenceSession) -> Iterator[Detections]:
        names = [value.name for value in session.get_outputs()]
        wanted = [value.name for value in session.get_inputs()]
        for feed in islice(self._samples(), SAMPLES):
            arrays = session.run(names, {name: feed[name] for name in wanted})
            placements = [self._whole] * len(feed[self._input.name])
            outputs = dict(zip(names, arrays, strict=True))
            for answer in decode_batch(outputs, self._output, placements, self._input):
                assert isinstance(answer, Detections)
                yield answer


def distance(expected: Detections, found: Detections) -> float:
    """Return how far apart two sets of boxes of one image are, in squares of scores.

    That is |a|² + |b|² - 2 ab, where boxes are vectors as long as their scores, and the cosine between two of
    a class is their overlap (IoU). Each expected box, the surest first, is set against one found: the one
    that overlaps it most.
    """
    import numpy as np

    from boardwright.model.boxes import iou_matrix

    common = 0.0
    if len(expected) and len(found):
        overlaps = iou_matrix(expected.boxes.astype(np.float64), found.boxes.astype(np.float64))
        overlaps[expected.classes[:, np.newaxis] != found.classes[np.newaxis]] = 0.0
        for row in np.argsort(-expected.scores, kind="stable"):
            place = int(overlaps[row].argmax())
            common += float(expected.scores[row]) * float(found.scores[place]) * float(overlaps[row, place])
            overlaps[:, place] = 0.0
    return _square(expected.scores) + _square(found.scores) - 2 * common


def _square(scores: Array) -> float:
    return float((scores.astype("float64") ** 2).sum())
