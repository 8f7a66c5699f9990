"""The compiler's step kinds and what each result depends on; light enough for the service to declare."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from boardwright.jobs.step_api import Determinism, Requirements, StepKind

GIB = 1 << 30
_INTEGER_FEATURES = ("avx512_vnni", "avx_vnni")


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def integer_arithmetic() -> str:
    """Return how this CPU multiplies 8-bit integers: figures of a quantized model depend on it.

    U8S8 products saturate at 16 bits on x86 without VNNI.
    """
    machine = platform.machine()
    if machine not in ("x86_64", "AMD64"):
        return machine
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return f"{machine} unknown"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return f"{machine} vnni" if any(name in flags for name in _INTEGER_FEATURES) else machine


def _import_environment() -> Mapping[str, str]:
    return _versions("onnx", "torch", "ultralytics")


def _graph_environment() -> Mapping[str, str]:
    return {**_versions("onnx", "onnxruntime"), "integer-arithmetic": integer_arithmetic()}


def _training_environment() -> Mapping[str, str]:
    return {**_graph_environment(), **_versions("torch")}


def _checkpoint_training_environment() -> Mapping[str, str]:
    return {**_training_environment(), **_versions("ultralytics")}


IMPORT = StepKind(
    "compile/import",
    version="8",
    determinism=Determinism.PURE,
    defaults={
        "format": None,
        "task": "",
        "input_spec": None,
        "output_spec": None,
        "builder": "build_network",
        "builder_arguments": {},
        "opset": 17,
    },
    requires=Requirements(memory_bytes=6 * GIB, time_limit_seconds=1800),
    environment=_import_environment,
)
OBSERVE = StepKind(
    "compile/observe",
    version="8",
    determinism=Determinism.PURE,
    defaults={
        "method": "min-max",
        "samples": 300,
        "sampling": "sampled",
        "percentile": 99.99,
        "per_channel": True,
        "exports": [],
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=3600),
    environment=_graph_environment,
)
QUANTIZE = StepKind(
    "compile/quantize",
    version="16",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "granularity": "profile",
        "samples": 300,
        "protect": True,
        "correct_bias": True,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=3600),
    environment=_graph_environment,
)
RECOVER = StepKind(
    "compile/recover",
    version="16",
    determinism=Determinism.SEEDED,
    defaults={
        "profile": "x86-vnni",
        "granularity": "profile",
        "samples": 300,
        "protect": True,
        "exclude": [],
        "methods": ["equalization", "ranges", "bias-correction", "reconstruction"],
        "learn_samples": 16,
        "held_out_samples": 8,
        "work": 3e10,
        "layers_per_block": 10,
        "dense_heads": False,
        "seed": 0,
    },
    requires=Requirements(memory_bytes=6 * GIB, time_limit_seconds=7200),
    environment=_training_environment,
)
PROTECT = StepKind(
    "compile/protect",
    version="14",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "samples": 300,
        "rules": [
            "join", "tail", "answer", "sum", "selection", "attention", "normalization", "weights", "pocket",
            "first", "last", "gate", "scores",
        ],
        "exclude": [],
        "sensitivity": True,
        "sensitivity_samples": 4,
        "metric_layers": 0,
        "measured_units": 24,
        "budget": {"max_drop": None, "max_latency_ms": None},
        "budget_samples": 64,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=7200),
    environment=_graph_environment,
)  # fmt: skip
QUANTIZE_DYNAMIC = StepKind(
    "compile/quantize-dynamic",
    version="8",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "convolutions": False,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
CONVERT_FLOAT16 = StepKind(
    "compile/convert-float16",
    version="7",
    determinism=Determinism.PURE,
    defaults={
        "profile": "x86-vnni",
        "inputs_outputs": "profile",
        "samples": 32,
        "protect": True,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
QUANTIZE_WEIGHTS = StepKind(
    "compile/quantize-weights",
    version="6",
    determinism=Determinism.PURE,
    defaults={
        "bits": 4,
        "block_size": 32,
        "algorithm": "rtn",
        "symmetric": False,
        "integer_compute": False,
        "samples": 32,
        "exclude": [],
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=6 * GIB, time_limit_seconds=3600),
    environment=_graph_environment,
)
PROFILE = StepKind(
    "compile/profile",
    version="1",
    determinism=Determinism.OBSERVED,
    defaults={"threads": 1, "runs": 20, "torch": True},
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
DISTILL = StepKind(
    "compile/distill",
    version="5",
    determinism=Determinism.SEEDED,
    defaults={
        "teacher": None,
        "teacher_import": None,
        "objective": "auto",
        "temperature": 4.0,
        "alpha": 0.9,
        "layers": [],
        "feature_loss": "match",
        "feature_weight": 1.0,
        "score_threshold": 0.05,
        "teacher_weight": 6.0,
        "augment": True,
        "training_samples": None,
        "epochs": 10,
        "steps": None,
        "batch_size": 16,
        "learning_rate": None,
        "optimizer": "adamw",
        "weight_decay": None,
        "gradient_clip": 10.0,
        "average": 0.0,
        "flip": False,
        "scale_jitter": 0.0,
        "color_jitter": 0.0,
        "multi_scale": 0.0,
        "resampling": "none",
        "patience": 0,
        "time_limit_seconds": None,
        "held_out": 0.1,
        "seed": 0,
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=8 * GIB, time_limit_seconds=8 * 3600),
    environment=_checkpoint_training_environment,
)
DIAGNOSE = StepKind(
    "compile/diagnose",
    version="5",
    determinism=Determinism.OBSERVED,
    defaults={"samples": 4, "runs": 30},
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
_TRAINING: Mapping[str, Any] = {
    "objective": "auto",
    "loss": "cross-entropy",
    "focal_gamma": 2.0,
    "class_weights": "none",
    "label_smoothing": 0.0,
    "temperature": 4.0,
    "features": [],
    "training_samples": None,
    "epochs": 5,
    "steps": None,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "optimizer": "adamw",
    "weight_decay": 0.0,
    "gradient_clip": 10.0,
    "average": 0.0,
    "patience": 0,
    "time_limit_seconds": None,
    "flip": False,
    "scale_jitter": 0.0,
    "color_jitter": 0.0,
    "multi_scale": 0.0,
    "resampling": "none",
    "held_out": 0.1,
    "seed": 0,
    "fail_if_information_lost": True,
}
TRAIN_QUANTIZED = StepKind(
    "compile/train-quantized",
    version="12",
    determinism=Determinism.SEEDED,
    defaults={
        "profile": "x86-vnni",
        "samples": 300,
        "protect": True,
        "exclude": [],
        "ranges": "learned",
        "scale_rate": 1.0,
        **_TRAINING,
        "learning_rate": 1e-3,
    },
    requires=Requirements(memory_bytes=8 * GIB, time_limit_seconds=8 * 3600),
    environment=_training_environment,
)
FINE_TUNE = StepKind(
    "compile/fine-tune",
    version="4",
    determinism=Determinism.SEEDED,
    defaults=_TRAINING,
    requires=Requirements(memory_bytes=8 * GIB, time_limit_seconds=8 * 3600),
    environment=_checkpoint_training_environment,
)
PRUNE = StepKind(
    "compile/prune",
    version="7",
    determinism=Determinism.SEEDED,
    defaults={
        "structure": "channels",
        "amount": 0.3,
        "measure": "macs",
        "scope": "global",
        "importance": "auto",
        "layers": {},
        "exclude": [],
        "heads": True,
        "max_ratio": 0.8,
        "round_to": 8,
        "rounds": 3,
        "compensation": "least-squares",
        "pattern": "",
        "samples": 64,
        "seed": 0,
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=8 * GIB, time_limit_seconds=2 * 3600),
    environment=_training_environment,
)
ABLATE = StepKind(
    "compile/ablate",
    version="3",
    determinism=Determinism.OBSERVED,
    defaults={"experiments": {}, "runs": 30},
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=1800),
    environment=_graph_environment,
)
EVALUATE = StepKind(
    "compile/evaluate",
    version="6",
    determinism=Determinism.PURE,
    defaults={
        "samples": None,
        "scales": [],
        "augment_flip": False,
        "augment_scales": [],
        "augment_merge": "nms",
        "fail_if_information_lost": True,
    },
    requires=Requirements(memory_bytes=4 * GIB, time_limit_seconds=7200),
    environment=_graph_environment,
)

KINDS: Mapping[str, StepKind] = {
    kind.name: kind
    for kind in (
        IMPORT,
        OBSERVE,
        PROTECT,
        RECOVER,
        QUANTIZE,
        QUANTIZE_DYNAMIC,
        QUANTIZE_WEIGHTS,
        CONVERT_FLOAT16,
        PROFILE,
        ABLATE,
        DIAGNOSE,
        EVALUATE,
        DISTILL,
        TRAIN_QUANTIZED,
        FINE_TUNE,
        PRUNE,
    )
}
