"""What an evaluation gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boardwright.compiler.engine.quality import Verdict

Figures = dict[str, float]
Interval = tuple[float, float]

HEADLINES = ("top1", "map50_95")
"""The figure that a task's accuracy is told by."""


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """The figures of one task's meter. ``details`` are tables for the report, by name."""

    accuracy: Figures
    parity: Figures
    per_class: dict[str, Figures]
    intervals: dict[str, Interval]
    baseline_accuracy: Figures = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by name. ``accuracy`` is empty without labels, ``parity`` without a baseline.

    ``intervals`` hold 95 % for the figures of both that they are named after. ``by_scale`` has the accuracy
    at other input sizes, by scale. ``augmentation`` says with which views ``accuracy`` was measured.
    """

    samples: int
    labelled: int
    accuracy: Figures = field(default_factory=dict)
    parity: Figures = field(default_factory=dict)
    per_class: dict[str, Figures] = field(default_factory=dict)
    information: Verdict = field(default_factory=Verdict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    baseline_accuracy: Figures = field(default_factory=dict)
    by_scale: dict[str, Figures] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {**self.summary(), "per_class": self.per_class, **self.details}

    def summary(self) -> dict[str, Any]:
        """Return the record without its tables, which grow with the number of classes."""
        return {
            "samples": self.samples,
            "labelled": self.labelled,
            "accuracy": self.accuracy,
            "parity": self.parity,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "baseline_accuracy": self.baseline_accuracy,
            "by_scale": self.by_scale,
            "augmentation": self.augmentation,
            "information": self.information.describe(),
        }


def headline(accuracy: Mapping[str, float]) -> str:
    """Return the name of the figure that an accuracy is told by, "" where it has none."""
    return next((name for name in HEADLINES if name in accuracy), "")


def view_note(evaluation: Evaluation) -> str:
    """Return a sentence where several views were merged, so that nobody compares it with one view."""
    views = evaluation.augmentation.get("views", ())
    if not views:
        return ""
    return (
        f"Judged with {len(views)} views of each image, merged: these figures stand in evaluation.json and "
        "are not recorded as the variant's accuracy, which is that of one view."
    )


def label_note(evaluation: Evaluation) -> str:
    """Return a sentence when samples had no label, so that nobody takes a missing figure for a good one."""
    if evaluation.labelled == evaluation.samples:
        return ""
    if evaluation.labelled:
        return (
            f"Accuracy is over the {evaluation.labelled} of {evaluation.samples} samples that have a label."
        )
    beside = "only parity with the baseline is" if evaluation.parity else "nothing is"
    return f"None of the {evaluation.samples} samples has a label: accuracy is not measured, {beside}."
