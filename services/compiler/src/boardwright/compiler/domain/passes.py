"""The passes a recipe may name: what each takes, makes, and is called as a step.

A pass that makes a model makes a Variant; the passes after it work on that Variant until the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CHECKPOINT = "checkpoint"
CALIBRATION = "calibration"
EVALUATION = "evaluation"
BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class PassKind:
    """One kind of pass.

    ``step_kind`` runs it. ``datasets`` names the datasets it reads. ``makes_variant`` is the default name
    of the Variant it makes, empty for passes that only judge.
    """

    name: str
    step_kind: str
    datasets: tuple[str, ...] = ()
    makes_variant: str = ""


PASSES: Mapping[str, PassKind] = {
    kind.name: kind
    for kind in (
        PassKind("import", "compile/import", makes_variant=BASELINE),
        PassKind("quantize", "compile/quantize", datasets=(CALIBRATION,), makes_variant="int8"),
        PassKind("evaluate", "compile/evaluate", datasets=(EVALUATION,)),
    )
}
