"""Which accuracy stands in a table of variants."""

from __future__ import annotations

from boardwright.api.registry.v1.registry_pb2 import Measurement
from boardwright.cli.report import _accuracies, _shared_conditions


def accuracy(variant: str, top1: float, samples: float, dataset: str = "d/1") -> Measurement:
    name = f"v/variants/{variant}/measurements/{top1}"
    return Measurement(name=name, kind="accuracy", values={"top1": top1, "samples": samples}, dataset=dataset)


def test_only_figures_of_the_same_samples_stand_side_by_side() -> None:
    newest_first = [
        accuracy("int8", 1.0, 10),
        accuracy("baseline", 0.5, 500, "other/1"),
        accuracy("int8", 0.98, 500),
        accuracy("baseline", 0.99, 500),
    ]
    judged_on = _shared_conditions(newest_first)
    assert judged_on == ("d/1", 500)
    shown = {
        name: _accuracies([m for m in newest_first if f"/{name}/" in m.name], judged_on)
        for name in ("int8", "baseline", "dynamic")
    }
    assert shown == {"int8": {"top1": 0.98}, "baseline": {"top1": 0.99}, "dynamic": {}}
    assert _shared_conditions([]) is None
