"""What passes found out about a graph: where it is sensitive, how far it reaches, what it costs where."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boardwright.compiler.engine.report import plots
from boardwright.compiler.engine.report.content import Section, Table
from boardwright.compiler.engine.report.data import MadeVariant, ReportData
from boardwright.compiler.engine.report.wording import NONE, milliseconds, percent, size

_SHOWN = 20


def sensitivity(data: ReportData) -> Section | None:
    """Which layers lose most when they are quantized alone."""
    for variant, document in _documents(data, "protection.json", "sensitivity.json"):
        entries = [entry for entry in _list(document.get("sensitivity")) if _finite(entry.get("sqnr_db"))]
        if not entries:
            continue
        worst = sorted(entries, key=lambda entry: float(entry["sqnr_db"]))[:_SHOWN]
        rows = [
            (
                str(number),
                str(entry.get("node", "")),
                str(entry.get("operator", "")),
                f"{float(entry['sqnr_db']):.1f}",
                percent(entry.get("metric_drop")) if _finite(entry.get("metric_drop")) else NONE,
                "measured" if entry.get("measured", True) else "estimated",
            )
            for number, entry in enumerate(worst, start=1)
        ]
        columns = (">", "layer", "operator", ">SQNR dB", ">points lost", "how")
        bars = [(str(entry.get("node", "")), float(entry["sqnr_db"])) for entry in worst]
        told = (
            f"The {len(worst)} of {len(entries)} layers of {variant} whose quantization alone costs the "
            "outputs most. SQNR is the outputs' signal over the noise that the layer adds: lower is worse."
        )
        plot = plots.bars("sensitivity", "Output SQNR per layer, dB (lower is worse)", bars, "dB")
        return Section("Sensitivity of layers", [told], [Table(columns, rows)], [plot])
    return None


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
    for variant, document in _documents(data, "ablation.json"):
        entries = [
            entry
            for entry in _list(document.get("rows") or document.get("experiments") or document.get("entries"))
            if isinstance(entry.get("metrics") or entry.get("accuracy"), Mapping)
        ]
        if not entries:
            continue
        metric = data.metric
        figures = [(_ablated(entry), _metric(entry, metric)) for entry in entries]
        base = next((value for _, value in figures if value is not None), None)
        rows = [
            (
                name,
                percent(value),
                NONE if value is None or base is None else f"{value - base:+.2f}".replace("-", "−"),
                _count(entry.get("parameters")),
                size(entry.get("size_bytes")),
                milliseconds(entry.get("latency_ms")) if _finite(entry.get("latency_ms")) else NONE,
            )
            for (name, value), entry in zip(figures, entries, strict=True)
        ]
        columns = ("combination", f">{metric} %", ">change", ">parameters", ">size", ">ms")
        changes = [(name, value - base) for name, value in figures if value is not None and base is not None]
        plot = plots.bars("ablation", "Change against the baseline, points", changes, "points")
        notes = [str(note) for note in _texts(document.get("interactions"))]
        return Section(
            "Ablation", [f"One factor at a time from {variant}.", *notes], [Table(columns, rows)], [plot]
        )
    return None


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
                _count(entry.get("macs")),
                size(entry.get("output_bytes")),
            )
            for entry in top
        ]
        told = (
            f"{variant}: {milliseconds(document.get('run_ms'))} ms a run with {document.get('threads', '?')} "
            f"thread(s) on the machine that profiled it, {_count(document.get('macs'))} multiplications, "
            f"{_count(document.get('parameters'))} parameters."
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


def _ablated(entry: Mapping[str, Any]) -> str:
    return str(entry.get("label") or entry.get("name") or " + ".join(map(str, entry.get("factors", ()))))


def _metric(entry: Mapping[str, Any], metric: str) -> float | None:
    held = entry.get("metrics") or entry.get("accuracy") or {}
    value: Any = held.get(metric)
    return 100 * float(value) if _finite(value) else None


def _count(value: Any) -> str:
    if not _finite(value):
        return NONE
    number = float(value)
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"
