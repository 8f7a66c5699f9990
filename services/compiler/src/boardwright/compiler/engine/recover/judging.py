"""The error of a quantized graph against its float original, where its layers end.

Judged are the last layers' outputs, not what a decode makes of them: pixels of boxes would drown scores. Each
is judged behind the function that reads it, relative to its own spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import dequantized_names, with_outputs
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.recover.functions import function_behind
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


class Judge:
    """Runs the float graph once over held-out samples, and any number of quantized graphs beside it."""

    def __init__(
        self,
        model: onnx.ModelProto,
        samples: Sequence[Feed],
        scheme: QuantizationScheme,
        excluded: set[str],
        threads: int = 0,
    ) -> None:
        topology = Topology(model.graph)
        self.count = len(samples)
        self._samples, self._scheme, self._excluded, self._threads = samples, scheme, excluded, threads
        self._tensors = last_outputs(topology)
        self._functions = {name: function_behind(topology, name) for name in self._tensors}
        session = open_session(with_outputs(model, self._tensors), threads=threads)
        self._expected = [self._behind(session.run(self._tensors, feed)) for feed in samples]
        self._spread = [
            sum(float(found[place].var()) for found in self._expected) / max(len(samples), 1)
            for place in range(len(self._tensors))
        ]

    def error(self, model: onnx.ModelProto, record: CalibrationRecord) -> float:
        """Return the noise of ``model`` quantized with ``record``; 1 is as large as the signal.

        Infinite where an output is not finite, the float graph's own among them.
        """
        import math

        from boardwright.compiler.engine.quantize import insert_quantization

        quantized = insert_quantization(model, record, self._scheme, self._excluded)
        behind = dequantized_names(quantized)
        made = {name: behind.get(name, name) for name in self._tensors}
        session = open_session(with_outputs(quantized, made.values()), threads=self._threads)
        sums = [0.0] * len(self._tensors)
        for feed, expected in zip(self._samples, self._expected, strict=True):
            found = self._behind(session.run([made[name] for name in self._tensors], feed))
            for place, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
                sums[place] += float(((ours - theirs) ** 2).mean())
        relative = [
            total / len(self._samples) / spread
            for total, spread in zip(sums, self._spread, strict=True)
            if spread != 0
        ]
        error = sum(relative) / len(relative) if relative else 0.0
        return error if math.isfinite(error) else math.inf

    def _behind(self, values: Sequence[Array]) -> list[Array]:
        found = []
        for name, value in zip(self._tensors, values, strict=True):
            function = self._functions[name]
            exact = value.astype("float64")
            found.append(function(exact) if function else exact)
        return found


def last_outputs(topology: Topology) -> list[str]:
    """Return what the last layers make, behind activations that are fused into them; else the outputs."""
    found = []
    for index in topology.last_layers:
        readers = topology.readers(topology.nodes[index].output[0])
        fused = len(readers) == 1 and topology.nodes[readers[0]].op_type in ("Relu", "Clip")
        found.append(topology.nodes[readers[0] if fused else index].output[0])
    return found or sorted(topology.outputs)
