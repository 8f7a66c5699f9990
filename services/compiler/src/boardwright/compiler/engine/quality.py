"""Whether outputs still tell inputs apart: a model may be small, fast, and blind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from boardwright.compiler.engine.errors import InformationLost
from boardwright.model import Classification, Detections

_FEW_SAMPLES = 8
CONFIDENT = 0.25
"""From this score on a model counts as sure of an object that it detects."""
_CONSTANT_SPREAD = 1e-6


_QUANTIZING_TO_BLAME = (
    "The file would be smaller and useless. Look at the pass's record for the nodes it quantized, exclude "
    "the tail, or calibrate with samples like those of the field."
)
_CHECKPOINT_TO_BLAME = (
    "The checkpoint itself answers so: check the input spec's scaling and the output spec, and whether it "
    "was trained."
)
_NOT_KNOWN = (
    "Check the input spec's scaling and the output spec, and whether the model was trained; of a model that "
    "was made smaller, its float baseline beside it tells whether the checkpoint answers so too."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``lost`` is empty when the outputs carry information, else a sentence that says what is wrong.

    ``advice`` is what to do then; it depends on whether the baseline's own outputs carry any.
    """

    lost: str = ""
    advice: str = _QUANTIZING_TO_BLAME

    def describe(self) -> dict[str, Any]:
        """Return the verdict as JSON-able values."""
        return {"kept": not self.lost, "finding": self.lost}

    def require(self) -> None:
        """Raise when information was lost.

        Raises:
            InformationLost: INFORMATION_LOST.
        """
        if self.lost:
            raise InformationLost("INFORMATION_LOST", f"{self.lost} {self.advice}")


class InformationMeter:
    """Counts what a model answers over samples; one meter per model."""

    def __init__(self, task: str) -> None:
        self._task = task
        self.samples = 0
        self._classes: Counter[int] = Counter()
        self._lowest = float("inf")
        self._highest = float("-inf")
        self._not_finite = 0
        self._sure: Counter[int] = Counter()
        self._detections = 0

    def add(self, answer: Classification | Detections) -> None:
        """Add a decoded answer."""
        import numpy as np

        self.samples += 1
        if not bool(np.isfinite(answer.scores).all()):
            self._not_finite += 1
            return
        if isinstance(answer, Classification):
            self._classes[int(answer.top(1)[0])] += 1
        else:
            self._detections += len(answer.scores)
            self._sure.update(int(index) for index in answer.classes[answer.scores >= CONFIDENT])
        self._lowest = min(self._lowest, float(answer.scores.min(initial=np.inf)))
        self._highest = max(self._highest, float(answer.scores.max(initial=-np.inf)))

    def add_not_finite(self) -> None:
        """Count a sample whose raw outputs hold NaN, whatever is decoded from them."""
        self.samples += 1
        self._not_finite += 1

    @property
    def _confident(self) -> int:
        """How many objects the model is sure of."""
        return self._sure.total()

    @property
    def _scores_are_equal(self) -> bool:
        return self._highest - self._lowest < _CONSTANT_SPREAD

    @property
    def distinct_classes(self) -> int:
        """How many different classes were answered."""
        return len(self._classes)

    def verdict(self, reference: InformationMeter | None, objects: int = 0) -> Verdict:
        """Judge this model, beside ``reference`` (the baseline on the same samples) where there is one.

        Without a reference only what no working model does is found. ``objects`` is how many the labels name.
        """
        found = self._verdict(reference, objects)
        if reference is None:
            return replace(found, advice=_NOT_KNOWN)
        if reference._verdict(None, objects).lost:
            return replace(found, advice=_CHECKPOINT_TO_BLAME)
        return found

    def _verdict(self, reference: InformationMeter | None, objects: int) -> Verdict:
        if self._not_finite:
            return Verdict(f"{self._not_finite} of {self.samples} answers hold NaN or infinity.")
        if self._task == "classification":
            return self._classification_verdict(reference)
        if (
            not self._detections
            and objects >= _FEW_SAMPLES
            and (reference is None or not reference._confident)
        ):
            return Verdict(
                f"Nothing is detected in {self.samples} samples, whose labels name {objects} objects."
            )
        return self._detection_verdict(reference)

    def _classification_verdict(self, reference: InformationMeter | None) -> Verdict:
        if self.samples and self._scores_are_equal:
            return Verdict(f"All class scores are {self._highest:.4g} on all {self.samples} samples.")
        varied = reference is not None and reference.distinct_classes > 1
        if varied and self.samples >= _FEW_SAMPLES and self.distinct_classes == 1:
            (only,) = self._classes
            return Verdict(
                f"Every one of {self.samples} samples is answered with class {only}; the baseline answers "
                "with "
                f"{reference.distinct_classes if reference else 0} classes."
            )
        return Verdict()

    def _detection_verdict(self, reference: InformationMeter | None) -> Verdict:
        if reference is None or not reference._confident:
            return Verdict()
        if self._detections == 0:
            return Verdict(
                f"Nothing is detected in {self.samples} samples, where the baseline is sure of "
                f"{reference._confident} objects: all scores are near 0."
            )
        if self._detections >= _FEW_SAMPLES and self._scores_are_equal and not reference._scores_are_equal:
            return Verdict(f"All {self._detections} detections have the score {self._highest:.4g}.")
        if reference._confident < _FEW_SAMPLES:
            return Verdict()
        if self._confident * 10 < reference._confident:
            return Verdict(
                f"Of {reference._confident} objects that the baseline is sure of, {self._confident} are left."
            )
        if len(self._sure) == 1:
            (only,) = self._sure
            others = reference._confident - reference._sure[only]
            if others >= _FEW_SAMPLES:
                return Verdict(
                    f"Every object that is left is of class {only}; the baseline is sure of {others} objects "
                    "of other classes."
                )
        return Verdict()
