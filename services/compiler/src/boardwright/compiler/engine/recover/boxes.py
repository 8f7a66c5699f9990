"""The error of a quantized detector, told by its boxes.

A detector answers for every cell of an image, and nearly all cells show nothing: an error over all of them is
that of the background. Here both graphs' outputs are decoded, and what differs counts by its score. No label
is needed: the float graph's own boxes are what should be found.

On YOLOv5n the least error over all cells kept 89 to 93 % of the boxes in six runs, the least over boxes 91 to
93 %: docs/benchmarks.md has the figures.
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
from boardwright.model import Detections, InputSpec, OutputSpec, Placement, decode_batch, used_outputs

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime

    Array = np.ndarray[Any, Any]

SAMPLES = 48
"""How many judge; each is run once for every choice."""

_SEEN = 0.05  # from this score on a box counts
_LEAST_WEIGHT = 1.0  # that of one box of score 1


class BoxJudge:
    """Runs the float graph once over samples, and any number of quantized graphs beside it.

    ``samples`` is called once for each graph, and its first ``SAMPLES`` are taken: none is kept in memory.
    ``count`` is how many images there are. ``can_tell`` is False where the float graph sees less than one
    object in all of them (a faint box or two are noise), and where its own outputs are no numbers.
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
        self._whole = Placement(self._input.width, self._input.height, 1.0, 1.0, 0.0, 0.0)
        answers = list(self._answers(open_session(model, threads=threads)))
        self._expected = [boxes for boxes, _ in answers]
        self.count = len(answers)
        self._weight = sum(_square(boxes.scores) for boxes in self._expected)
        self.can_tell = self._weight >= _LEAST_WEIGHT and all(are_numbers for _, are_numbers in answers)

    def error(self, model: onnx.ModelProto, record: CalibrationRecord) -> float:
        """Return how much of the boxes differs once ``model`` is quantized with ``record``.

        0: the same boxes; 1: as much as if none were found. Infinite where an output holds NaN, or a score is
        infinite.
        """
        from boardwright.compiler.engine.quantize import insert_quantization

        quantized = insert_quantization(model, record, self._scheme, self._excluded)
        session = open_session(quantized, threads=self._threads)
        total = 0.0
        for expected, (found, are_numbers) in zip(self._expected, self._answers(session), strict=True):
            if not are_numbers:
                return math.inf
            total += distance(expected, found)
        return total / self._weight

    def _answers(self, session: onnxruntime.InferenceSession) -> Iterator[tuple[Detections, bool]]:
        """Give the boxes of each image, and whether numbers gave them: decoding drops NaN."""
        import numpy as np

        names = used_outputs([value.name for value in session.get_outputs()], self._output)
        wanted = [value.name for value in session.get_inputs()]
        for feed in islice(self._samples(), SAMPLES):
            arrays = session.run(list(names), {name: feed[name] for name in wanted})
            outputs = dict(zip(names, arrays, strict=True))
            are_numbers = not any(np.isnan(array).any() for array in arrays if array.dtype.kind == "f")
            placements = [self._whole] * len(feed[self._input.name])
            for answer in decode_batch(outputs, self._output, placements, self._input):
                assert isinstance(answer, Detections)
                yield answer, are_numbers and bool(np.isfinite(answer.scores).all())


def distance(expected: Detections, found: Detections) -> float:
    """Return how far apart two sets of boxes of one image are, in squares of scores.

    That is |a|² + |b|² - 2 ab, where boxes are vectors as long as their scores, and the cosine between two of
    a class is their overlap (IoU). Each box is set against at most one of the other set, and those two that
    agree most come first: a box that was missed takes none from another.
    """
    import numpy as np

    from boardwright.model.boxes import iou_matrix

    agreement = iou_matrix(expected.boxes.astype(np.float64), found.boxes.astype(np.float64))
    agreement *= np.outer(expected.scores.astype(np.float64), found.scores)
    agreement[expected.classes[:, np.newaxis] != found.classes[np.newaxis]] = 0.0
    common = 0.0
    while (most := float(agreement.max(initial=0.0))) > 0:
        row, column = np.unravel_index(agreement.argmax(), agreement.shape)
        common += most
        agreement[row], agreement[:, column] = 0.0, 0.0
    return _square(expected.scores) + _square(found.scores) - 2 * common


def _square(scores: Array) -> float:
    return float((scores.astype("float64") ** 2).sum())
