"""What passes found out about a graph: where it is sensitive, how far it reaches, what it costs where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boardwright.compiler.engine.report import plots
from boardwright.compiler.engine.report.content import Section, Table
from boardwright.compiler.engine.report.data import MadeVariant, ReportData
from boardwright.compiler.engine.report.wording import (
    METRICS,
    NONE,
    count,
    milliseconds,
    percent,
    points,
    size,
    times,
)

_SHOWN = 20


def sensitivity(data: ReportData) -> Section | None:
    """Which layers lose most when they are quantized alone."""
    for variant, document in _documents(data, "protection.json", "sensitivity.json"):
        entries = [entry for entry in _list(document.get("sensitivity")) if _finite(entry.get("sqnr_db"))]
        if not entries:
            continue
        worst = sorted(entries, key=lambda entry: float(entry["sqnr_db"]))[:_SHOWN]
        metric = _metric_of(document)  # without one, a column of dashes would tell nothing
        rows = [
            (
                str(number),
                str(entry.get("node", "")),
                str(entry.get("operator", "")),
                f"{float(entry['sqnr_db']):.1f}",
                *([percent(_number(entry.get("metric_drop")))] if metric else []),
                "measured" if entry.get("measured", True) else "estimated",
            )
            for number, entry in enumerate(worst, start=1)
        ]
        lost = (">points lost",) if metric else ()
        columns = (">", "layer", "operator", ">SQNR dB", *lost, "how")
        bars = [(str(entry.get("node", "")), float(entry["sqnr_db"])) for entry in worst]
        told = (
            f"The {len(worst)} of {len(entries)} layers of {variant} whose quantization alone costs the "
            "outputs most. SQNR is the outputs' signal over the noise that the layer adds: lower is worse."
            + (f" Points lost are of {metric}, each layer quantized alone." if metric else "")
        )
        plot = plots.bars("sensitivity", "Output SQNR per layer, dB (lower is worse)", bars, "dB")
        return Section("Sensitivity of layers", [told], [Table(columns, rows)], [plot])
    return None


def _metric_of(document: Mapping[str, Any]) -> str:
    method = document.get("sensitivity_method")
    return str(method.get("metric") or "") if isinstance(method, Mapping) else ""


def activation_ranges(data: ReportData) -> Section | None:
    """How far activations reach."""
    for variant, document in _documents(data, "calibration-record.json"):
        ranges = document.get("ranges")
        if not isinstance(ranges, Mapping):
            continue
        found = [
            (str(name), float(low), float(high))
            for name, (low, high) in ranges.items()
            if _finite(low) and _finite(high)
        ]
        if not found:
            continue
        widest = sorted(found, key=lambda entry: entry[1] - entry[2])[:_SHOWN]
        rows = [(name, f"{low:.4g}", f"{high:.4g}", f"{high - low:.4g}") for name, low, high in widest]
        told = (
            f"The {len(widest)} widest of {len(found)} activations of {variant}, by "
            f"{document.get('method', '?')} over {document.get('samples', '?')} samples. One 8-bit scale "
            "resolves a 255th of its width."
        )
        plot = plots.ranges("activation-ranges", "Activation ranges", widest)
        return Section(
            "Activation ranges", [told], [Table(("activation", ">low", ">high", ">width"), rows)], [plot]
        )
    return None


def ablation(data: ReportData) -> Section | None:
    """What each factor does alone, and all together."""
    for _, document in _documents(data, "ablation.json"):
        metric = str(document.get("metric", ""))
        entries = [
            (entry, 100 * value)
            for entry in _list(document.get("rows"))
            if isinstance(held := entry.get("accuracy"), Mapping)
            and (value := _number(held.get(metric))) is not None
        ]
        if len(entries) < 2:
            continue
        base = entries[0][1]
        rows = [
            (
                _ablated(entry),
                percent(value),
                points(base - value),
                count(entry.get("parameters")),
                milliseconds(_number(entry.get("latency_ms"))),
                times(1 / ratio if (ratio := _number(entry.get("latency_ratio"))) else None),
                size(_number(entry.get("size_bytes"))),
            )
            for entry, value in entries
        ]
        columns = (
            "combination", f">{METRICS.get(metric, metric)} %", ">change", ">parameters", ">p50 ms", ">speed",
            ">size",
        )  # fmt: skip
        changes = [(_ablated(entry), value - base) for entry, value in entries[1:]]
        drawn = []  # bars of no length would show nothing
        if any(points(change) != points(0.0) for _, change in changes):
            drawn.append(plots.bars("ablation", "Change against the baseline, points", changes, "points"))
        told = "One factor at a time and all together, from one baseline, timed side by side."
        return Section(
            "Ablation", [told, *_texts(document.get("interactions"))], [Table(columns, rows)], drawn
        )
    return None


def diagnosis(data: ReportData) -> Section | None:
    """What really ran, with one thread and with all, and what to try next."""
    told, causes, timings = [], [], []
    for variant, document in _documents(data, "diagnosis.json"):
        if not document.get("verdict"):
            continue
        told.append(f"{variant}: {document['verdict']} Next: {document.get('next') or 'nothing'}")
        causes += [
            (
                variant,
                str(found.get("about", "")),
                str(found.get("sentence", "")),
                str(found.get("advice", "")),
            )
            for found in _list(document.get("findings"))
        ]
        for pair in _list(document.get("latency")):
            for name, side in (
                (data.baseline.name if data.baseline else "baseline", "baseline"),
                (variant, "variant"),
            ):
                figures = pair.get(side)
                if isinstance(figures, Mapping):
                    timings.append(_timing(name, figures))
    if not told:
        return None
    columns = ("variant", "threads", ">mean ms", ">std ms", ">CV", ">p95 ms", ">IQR ms")
    tables = [Table(("variant", "about", "found", "to try"), causes)] if causes else []
    tables += [Table(columns, list(dict.fromkeys(timings)))] if timings else []
    return Section("Diagnosis", told, tables)


def _threads(count: object) -> str:
    if count == 0:
        return "default threads"
    return "1 thread" if count == 1 else f"{count} threads"


def _timing(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        _threads(figures.get("threads")),
        *(milliseconds(_number(figures.get(key))) for key in ("mean_ms", "std_ms")),
        NONE if (cv := _number(figures.get("cv"))) is None else f"{cv:.3f}",
        *(milliseconds(_number(figures.get(key))) for key in ("p95_ms", "iqr_ms")),
    )


def costly_layers(data: ReportData) -> Section | None:
    """Where the time goes."""
    for variant, document in _documents(data, "profile.json"):
        layers = [entry for entry in _list(document.get("layers")) if _finite(entry.get("ms"))]
        if not layers:
            continue
        top = sorted(layers, key=lambda entry: -float(entry["ms"]))[:_SHOWN]
        rows = [
            (
                str(entry.get("name", "")),
                str(entry.get("operator", "")),
                milliseconds(float(entry["ms"])),
                f"{100 * float(entry.get('share') or 0):.1f}",
                count(entry.get("macs")),
                size(_number(entry.get("output_bytes"))),
            )
            for entry in top
        ]
        told = (
            f"{variant}: {milliseconds(_number(document.get('run_ms')))} ms a run, "
            f"{_threads(document.get('threads'))}, on the machine that profiled it; "
            f"{count(document.get('macs'))} multiplications, "
            f"{count(document.get('parameters'))} parameters."
        )
        plot = plots.bars(
            "costly-layers",
            "Time per layer, ms",
            [(str(entry.get("name", "")), float(entry["ms"])) for entry in top],
            "ms",
        )
        columns = ("layer", "operator", ">ms", ">% of all", ">MACs", ">output")
        return Section("Costliest layers", [told], [Table(columns, rows)], [plot])
    return None


def kept_in_float(data: ReportData) -> Section | None:
    """What was not quantized, and why."""
    rows = [
        (variant.name, str(reason))
        for variant in data.variants
        for reason in _texts(variant.values.get("exclusions"))
    ]
    if not rows:
        return None
    return Section(
        "What stayed in floating point",
        ["Each of these was left out of quantization for the reason it names."],
        [Table(("variant", "why"), rows)],
    )


def warnings(data: ReportData) -> Section | None:
    """What the steps warned of."""
    rows = [
        (variant.name, str(text))
        for variant in data.variants
        for text in _texts(variant.values.get("warnings"))
    ]
    if not rows:
        return None
    return Section("Warnings of the steps", (), [Table(("variant", "says"), rows)])


def _documents(data: ReportData, *names: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Documents of these names, those of the baseline's own graph first."""

    def order(variant: MadeVariant) -> bool:
        return data.baseline is not None and variant.digest != data.baseline.digest

    for variant in sorted(data.variants, key=order):
        for name in names:
            if name in variant.documents:
                yield variant.name, variant.documents[name]
    for name in names:
        if name in data.documents:
            yield data.version, data.documents[name]


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, Sequence) else []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] if isinstance(value, str) and value else []
    return [entry if isinstance(entry, str) else str(entry.get("sentence", entry)) for entry in value]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> float | None:
    return float(value) if _finite(value) else None


def _ablated(entry: Mapping[str, Any]) -> str:
    name, factors = str(entry.get("name", "")), _texts(entry.get("factors"))
    return name if factors in ([], [name]) else f"{name} ({' + '.join(factors)})"
