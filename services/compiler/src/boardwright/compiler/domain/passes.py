"""The passes a recipe may name: what each takes, makes, and is called as a step.

A pass that makes a model makes a Variant; the passes after it work on that Variant until the next one. A pass
may also give a file (a calibration record, say) to the passes after it that take such a file: it stays with
the graph it was made from, so the next Variant starts without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CHECKPOINT = "checkpoint"
CALIBRATION = "calibration"
EVALUATION = "evaluation"
TRAINING = "training"
BASELINE = "baseline"

CALIBRATION_RECORD = "calibration-record.json"
PROTECTION = "protection.json"
RECOVERED_MODEL = "recovered.onnx"
PROFILE = "profile.json"
DIAGNOSIS = "diagnosis.json"
EVALUATION_REPORT = "evaluation.json"
ABLATION = "ablation.json"


@dataclass(frozen=True, slots=True)
class PassKind:
    """One kind of pass.

    ``step_kind`` runs it. ``datasets`` names the datasets it reads, ``optional_datasets`` those it reads
    where the job has them; of ``needs_one_of``, which are optional ones, it needs any one. ``makes_variant``
    is the default name of the Variant it makes, empty for passes that make none. ``measures`` names the kinds
    of Measurement among its values. ``gives`` are outputs that later passes on the same graph may take,
    ``takes`` those it takes where they are there. ``for_profile`` says that its result depends on the board's
    quantization profile (the parameter ``profile``), ``quantized`` that the Variant it makes serves that
    profile alone. ``beside_baseline`` gives it the baseline's graph. ``trains`` says that it takes the latest
    checkpoint and gives a new one, ``compares`` that it takes the Variants of its parameter ``experiments``
    with their evaluations.
    """

    name: str
    step_kind: str
    datasets: tuple[str, ...] = ()
    optional_datasets: tuple[str, ...] = ()
    needs_one_of: tuple[str, ...] = ()
    makes_variant: str = ""
    measures: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    for_profile: bool = False
    quantized: bool = False
    beside_baseline: bool = False
    trains: bool = False
    compares: bool = False


PASSES: Mapping[str, PassKind] = {
    kind.name: kind
    for kind in (
        PassKind("import", "compile/import", makes_variant=BASELINE),
        PassKind("observe", "compile/observe", datasets=(CALIBRATION,), gives=(CALIBRATION_RECORD,)),
        PassKind(
            "protect",
            "compile/protect",
            datasets=(CALIBRATION,),
            optional_datasets=(EVALUATION,),
            gives=(PROTECTION,),
            takes=(CALIBRATION_RECORD, PROFILE),
            for_profile=True,
        ),
        PassKind(
            "recover",
            "compile/recover",
            datasets=(CALIBRATION,),
            gives=(RECOVERED_MODEL,),
            takes=(CALIBRATION_RECORD, PROTECTION),
            for_profile=True,
        ),
        PassKind(
            "quantize",
            "compile/quantize",
            datasets=(CALIBRATION,),
            makes_variant="int8",
            takes=(CALIBRATION_RECORD, PROTECTION, RECOVERED_MODEL),
            for_profile=True,
            quantized=True,
        ),
        PassKind(
            "quantize-dynamic",
            "compile/quantize-dynamic",
            optional_datasets=(CALIBRATION,),
            makes_variant="int8-dynamic",
            for_profile=True,
            quantized=True,
        ),
        PassKind(
            "quantize-weights",
            "compile/quantize-weights",
            optional_datasets=(CALIBRATION,),
            makes_variant="packed",
        ),
        PassKind(
            "convert-float16",
            "compile/convert-float16",
            optional_datasets=(CALIBRATION,),
            makes_variant="fp16",
            takes=(CALIBRATION_RECORD,),
            for_profile=True,
        ),
        PassKind(
            "diagnose",
            "compile/diagnose",
            datasets=(CALIBRATION,),
            gives=(DIAGNOSIS,),
            beside_baseline=True,
        ),
        PassKind("profile", "compile/profile", optional_datasets=(CALIBRATION,), gives=(PROFILE,)),
        PassKind(
            "train-quantized",
            "compile/train-quantized",
            datasets=(CALIBRATION,),
            optional_datasets=(TRAINING,),
            makes_variant="int8-qat",
            takes=(CALIBRATION_RECORD, PROTECTION, RECOVERED_MODEL),
            for_profile=True,
            quantized=True,
        ),
        PassKind(
            "prune",
            "compile/prune",
            datasets=(CALIBRATION,),
            makes_variant="pruned",
            trains=True,
        ),
        PassKind(
            "fine-tune",
            "compile/fine-tune",
            optional_datasets=(TRAINING, CALIBRATION),
            needs_one_of=(TRAINING, CALIBRATION),
            makes_variant="fine-tuned",
            beside_baseline=True,
            trains=True,
        ),
        PassKind(
            "distill",
            "compile/distill",
            optional_datasets=(TRAINING, CALIBRATION),
            needs_one_of=(TRAINING, CALIBRATION),
            makes_variant="distilled",
            beside_baseline=True,
            trains=True,
        ),
        PassKind(
            "evaluate",
            "compile/evaluate",
            datasets=(EVALUATION,),
            measures=("accuracy", "parity"),
            gives=(EVALUATION_REPORT,),
            beside_baseline=True,
        ),
        PassKind(
            "ablate", "compile/ablate", optional_datasets=(CALIBRATION,), gives=(ABLATION,), compares=True
        ),
    )
}
