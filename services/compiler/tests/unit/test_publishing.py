"""Which figures of a step become Measurements."""

from __future__ import annotations

from types import SimpleNamespace

from boardwright.compiler.publishing import measurements


def test_what_was_judged_with_several_views_is_not_a_variants_accuracy() -> None:
    values = {"accuracy": {"top1": 0.9}, "parity": {"top1_agreement": 0.95}, "samples": 20}
    found = measurements(("accuracy", "parity"), "d/1", SimpleNamespace(values=values, record="r"))  # type: ignore[arg-type]
    assert [(held.kind, held.values["samples"]) for held in found] == [("accuracy", 20.0), ("parity", 20.0)]
    augmented = {**values, "augmentation": {"merge": "nms", "views": [{}, {}]}}
    assert measurements(("accuracy",), "d/1", SimpleNamespace(values=augmented, record="r")) == []  # type: ignore[arg-type]
