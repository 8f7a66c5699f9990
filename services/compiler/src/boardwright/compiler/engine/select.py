"""Pass ``select``: the cheapest way to a graph that is good, fast and small enough, without any server.

The rules are ``boardwright.selection``'s: candidates from cheap to dear, early stop, what cannot help is left
out, each with its reason. Here they are tried in this process: made, judged on samples, and timed beside the
baseline on this machine, which is the only board whose latency can be told here. For other boards, several at
once, and with the cache: ``boardwright optimize``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.selection import (
    Attempt,
    Candidate,
    Constraints,
    Failure,
    Figures,
    Outcome,
    Selection,
    Verdict,
    search,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.model import InputSpec, OutputSpec

__all__ = ["HERE", "Candidate", "Constraints", "Maker", "Outcome", "Selection", "Verdict", "select"]

HERE = "this machine"
BASELINE = Candidate("baseline", description="The graph as it is.", is_baseline=True)


@dataclass(frozen=True, slots=True)
class Maker:
    """A candidate and how to make its graph from the baseline's; ``make`` may raise EngineError."""

    candidate: Candidate
    make: Callable[[onnx.ModelProto], onnx.ModelProto]


def select(
    baseline: onnx.ModelProto,
    makers: Sequence[Maker],
    samples: Callable[[], Iterable[Sample]],
    input_spec: InputSpec,
    output_spec: OutputSpec,
    constraint_sets: Sequence[Constraints],
    *,
    runs: int = 100,
    exhaustive: bool = False,
    on_attempt: Callable[[Attempt], None] = lambda _: None,
) -> tuple[Selection, Mapping[str, onnx.ModelProto]]:
    """Try makers by their candidates' order; return what was found and the graphs that were made, by name.

    ``samples`` gives the labelled samples anew at each call. Peak memory is not measured in a process that
    holds several graphs: a set that bounds it stays undecided.

    Raises:
        DatasetUnfit: the samples do not fit the model; EngineError: the baseline does not run.
    """
    graphs: dict[str, onnx.ModelProto] = {}
    trial = _Trial(baseline, samples, input_spec, output_spec, runs)
    by_name = {maker.candidate.name: maker for maker in makers}

    def attempt(candidate: Candidate) -> Attempt:
        if candidate.is_baseline:
            graphs[candidate.name] = baseline
            return Attempt(candidate, {HERE: trial.figures(baseline)})
        try:
            graphs[candidate.name] = by_name[candidate.name].make(baseline)
            return Attempt(candidate, {HERE: trial.figures(graphs[candidate.name])})
        except EngineError as error:
            return Attempt(candidate, failure=Failure(candidate.name, error.reason, error.message))

    candidates = [BASELINE, *(maker.candidate for maker in makers)]
    found = search(candidates, [HERE], constraint_sets, attempt, exhaustive=exhaustive, on_attempt=on_attempt)
    return found, graphs


class _Trial:
    """Judges graphs on the same samples and times them on the same input, the baseline first."""

    def __init__(
        self,
        baseline: onnx.ModelProto,
        samples: Callable[[], Iterable[Sample]],
        input_spec: InputSpec,
        output_spec: OutputSpec,
        runs: int,
    ) -> None:
        from boardwright.compiler.engine.evaluate import RememberingRunner

        self._baseline = baseline
        self._runner = RememberingRunner(baseline, input_spec, output_spec)
        self._samples = samples
        self._specs = (input_spec, output_spec)
        self._runs = runs
        self._reference: float | None = None

    def figures(self, model: onnx.ModelProto) -> Figures:
        """Return what is known of a graph here. Raises: EngineError."""
        from boardwright.compiler.engine.evaluate import evaluate, headline

        if model is self._baseline:
            judged = evaluate(self._runner, self._samples(), *self._specs)
        else:
            judged = evaluate(model, self._samples(), *self._specs, baseline=self._runner)
        judged.information.require()
        metric = headline(judged.accuracy)
        accuracy = judged.accuracy.get(metric)
        if model is self._baseline:
            self._reference = accuracy
        missing = {"memory": "a process that holds several graphs cannot tell it; boardwright optimize does"}
        if accuracy is None:
            missing["accuracy"] = "the samples have no labels"
        return Figures(
            metric=metric,
            accuracy=accuracy,
            baseline_accuracy=self._reference,
            latencies_ms={threads: self._latency(model, threads) for threads in (1, 0)},
            size_bytes=float(model.ByteSize()),
            parity=judged.parity,
            missing=missing,
        )

    def _latency(self, model: onnx.ModelProto, threads: int) -> dict[str, float]:
        from boardwright.compiler.engine.diagnose.timing import measure_both

        before, after = measure_both(self._baseline, model, self._feed(), threads=threads, runs=self._runs)
        return {"p50_ms": after.p50_ms, "p95_ms": after.p95_ms, "speedup": before.p50_ms / after.p50_ms}

    def _feed(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Return one sample as the graph takes it."""
        from boardwright.compiler.engine.feeds import batch_of, feed_of

        spec = self._specs[0]
        return feed_of(next(iter(self._samples())).image, spec, batch_of(self._baseline, spec))
