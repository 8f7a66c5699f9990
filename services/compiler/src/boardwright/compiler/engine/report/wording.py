"""Figures as people read them."""

from __future__ import annotations

from boardwright.compiler.engine.report.data import (
    CONVERT_FLOAT16,
    IMPORT,
    PRUNE,
    QUANTIZE,
    QUANTIZE_DYNAMIC,
    QUANTIZE_WEIGHTS,
    RECOVERED_MODEL,
    MadeVariant,
    ReportData,
)

NONE = "–"
METRICS = {"top1": "top-1", "top5": "top-5", "map50_95": "mAP50-95", "map50": "mAP50"}


def metric_name(data: ReportData) -> str:
    """What the accuracy is called."""
    return METRICS.get(data.metric, data.metric or "accuracy")


def percent(value: float | None) -> str:
    """Two decimals."""
    return NONE if value is None else f"{value:.2f}"


def points(value: float | None) -> str:
    """Points lost, with a sign; nothing lost is 0.00."""
    if value is None:
        return NONE
    return "0.00" if abs(value) < 5e-3 else f"{-value:+.2f}".replace("-", "−")


def interval(lost: tuple[float, float] | None) -> str:
    """An interval of points lost as one of the change: "−1.2 … +0.4"."""
    if lost is None:
        return NONE
    return " … ".join(f"{-value:+.1f}".replace("-", "−") for value in reversed(lost))


def milliseconds(value: float | None) -> str:
    """Three digits, so that a column of them stays readable: 0.331, 8.35, 19.4, 208."""
    if value is None:
        return NONE
    places = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{places}f}"


def size(size_bytes: float | None) -> str:
    """In the unit that suits."""
    if not size_bytes:
        return NONE
    value = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def count(value: object) -> str:
    """A large number in short: "4.2 M"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f}"


def times(value: float | None) -> str:
    """A factor: "1.37×"."""
    return NONE if value is None else f"{value:.2f}×"


def share(part: float | None, whole: float | None) -> str:
    """A part of a whole in percent."""
    return NONE if not part or not whole else f"{100 * part / whole:.0f} %"


def precision(variant: MadeVariant) -> str:
    """What a variant's numbers are: "INT8 static", "FP32"."""
    if variant.kind == QUANTIZE:
        return "INT8 static, recovered" if RECOVERED_MODEL in variant.given else "INT8 static"
    if variant.kind == CONVERT_FLOAT16:
        return "FP16"
    if variant.kind == QUANTIZE_DYNAMIC:
        return "INT8 dynamic"
    if variant.kind == QUANTIZE_WEIGHTS:
        return f"INT{variant.parameters.get('bits', '4 or 8')} weights"
    if variant.kind == IMPORT:
        return "FP32"
    if variant.kind == PRUNE:
        return "pruned"
    return variant.kind.removeprefix("compile/")
