"""The selector as a library: graphs are made, judged and timed in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from boardwright.compiler.engine.errors import QuantizationFailed
from boardwright.compiler.engine.evaluate import Runner, Sample
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.compiler.engine.select import HERE, Candidate, Constraints, Maker, Verdict, select
from boardwright.model import InputSpec, OutputSpec, preprocess

INPUT = InputSpec(height=16, width=16, name="input", resize="stretch")
OUTPUT = OutputSpec(task="classification", head="logits", num_classes=3, name="logits")


def samples() -> Iterator[Sample]:
    """Images whose strongest colour channel is their class."""
    random = np.random.default_rng(5)
    for number in range(24):
        image = random.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        image[..., number % 3] += 100
        yield Sample(str(number), image, class_index=number % 3)


def static(model: onnx.ModelProto) -> onnx.ModelProto:
    feeds = ({"input": preprocess(sample.image, INPUT)[0]} for sample in samples())
    return quantize(model, feeds, PROFILES["x86"]).model


def blind(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that answers the same to everything."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weight = next(held for held in made.graph.initializer if held.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((3, 3), np.float32), "weight"))
    return made


def refused(model: onnx.ModelProto) -> onnx.ModelProto:
    raise QuantizationFailed("SCHEME_UNKNOWN", "There is no such scheme.")


MAKERS = [
    Maker(Candidate("refused", 10), refused),
    Maker(Candidate("blind", 20), blind),
    Maker(Candidate("static", 30), static),
    Maker(Candidate("dearer", 40, no_more_accurate_than=("static",)), static),
]


def run(classifier: Any, *texts: str) -> Any:
    return select(
        classifier,
        MAKERS,
        samples,
        INPUT,
        OUTPUT,
        [Constraints.parse(text) for text in texts],
        runs=10,
    )


def test_the_first_graph_that_keeps_its_answers_is_chosen(classifier: onnx.ModelProto) -> None:
    found, graphs = run(classifier, "max-drop=5")
    (outcome,) = found.outcomes
    assert (outcome.board, outcome.choice) == (HERE, "static")
    told = {held.candidate: held for held in outcome.judgements}
    assert told["refused"].reason == "refused failed: There is no such scheme. [SCHEME_UNKNOWN]"
    assert told["blind"].verdict is Verdict.FAILED and "INFORMATION_LOST" in told["blind"].reason
    assert told["dearer"].verdict is Verdict.NOT_TRIED
    assert set(graphs) == {"baseline", "blind", "static"}
    figures = found.attempt("static").figures(HERE)
    assert figures is not None and figures.accuracy == figures.baseline_accuracy == 1.0
    assert figures.latency_ms("p95", 1) > 0 and figures.latencies_ms[0]["speedup"] > 0


def test_the_baseline_answers_each_sample_once(
    classifier: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}
    run_graph = Runner.run

    def counted(self: Runner, tensor: Any) -> Any:
        asked[type(self).__name__] = asked.get(type(self).__name__, 0) + 1
        return run_graph(self, tensor)

    monkeypatch.setattr(Runner, "run", counted)
    found, graphs = run(classifier, "max-drop=5")
    assert found.outcomes[0].choice == "static" and set(graphs) == {"baseline", "blind", "static"}
    assert asked == {"RememberingRunner": 24, "Runner": 48}


def test_memory_cannot_be_told_here_and_is_not_guessed(classifier: onnx.ModelProto) -> None:
    found, _ = run(classifier, "max-drop=5,max-memory-mb=1000")
    assert (found.outcomes[0].choice, found.outcomes[0].undecided) == ("", "static")
    assert "boardwright optimize" in found.outcomes[0].reason
