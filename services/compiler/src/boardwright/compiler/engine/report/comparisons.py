"""The tables that people compare by, of the variants that differ in just that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from boardwright.compiler.engine.report import plots
from boardwright.compiler.engine.report.content import Section, Table
from boardwright.compiler.engine.report.data import (
    CALIBRATION_RECORD,
    CONVERT_FLOAT16,
    IMPORT,
    PRUNE,
    QUANTIZE,
    QUANTIZE_DYNAMIC,
    QUANTIZE_WEIGHTS,
    MadeVariant,
    ReportData,
)
from boardwright.compiler.engine.report.wording import (
    NONE,
    interval,
    metric_name,
    milliseconds,
    percent,
    points,
    precision,
    share,
    size,
    times,
)

_SMALLER = (CONVERT_FLOAT16, QUANTIZE, QUANTIZE_DYNAMIC, QUANTIZE_WEIGHTS)
_SLOWER = 0.95
_SIDE_BY_SIDE = "Speeds are measured beside the baseline in the same run, with one thread, on {board}."


def overview(data: ReportData) -> Section:
    """Every variant, and the Pareto scatter."""
    rows = []
    sure = any(data.lost_interval(variant) is not None for variant in data.variants)
    for variant in data.variants:
        cost = data.cost(variant)
        rows.append(
            (
                variant.name,
                precision(variant),
                percent(data.accuracy(variant)),
                points(data.lost(variant)),
                *([interval(data.lost_interval(variant))] if sure else []),
                percent(_agreement(variant)),
                size(variant.size_bytes),
                milliseconds(cost.figure("p50_ms") if cost else None),
                milliseconds(cost.figure("p95_ms") if cost else None),
                _times(data, variant),
            )
        )
    metric = metric_name(data)
    columns = (
        "variant", "precision", f">{metric} %", ">change", *([">95 % interval"] if sure else []),
        ">answers kept %", ">size", ">p50 ms", ">p95 ms", ">speed",
    )  # fmt: skip
    where = _SIDE_BY_SIDE.format(board=data.board) if data.board else ""
    told = [f"{data.samples} samples of {data.dataset}." if data.dataset else "", where]
    scatter = plots.pareto(data)
    return Section(
        "All variants",
        [
            sentence
            for sentence in [
                " ".join(filter(None, told)),
                "Answers kept is the share of samples that are answered as the baseline answers them, right "
                "or wrong (of a detector: mAP50 with the baseline's sure boxes as the truth).",
            ]
            if sentence
        ],
        [Table(columns, rows)],
        [scatter] if scatter else [],
    )


def precisions(data: ReportData) -> Section | None:
    """FP32 against the FP16 and quantized variants that were made straight from it."""
    chosen = [best for kind in _SMALLER if (best := _usual(data, kind)) is not None]
    if data.baseline is None or not chosen:
        return None
    rows = [
        (
            precision(variant),
            variant.name,
            share(variant.size_bytes, data.baseline.size_bytes),
            _times(data, variant),
            points(data.lost(variant)) if variant.kind != IMPORT else "0.00",
        )
        for variant in [data.baseline, *chosen]
    ]
    columns = ("precision", "variant", ">storage", ">speed", f">change of {metric_name(data)}")
    told = [_where(data)]
    half = next((variant for variant in chosen if variant.kind == CONVERT_FLOAT16), None)
    if half is not None and not half.values.get("faster_kernels", True):
        told.append(f"{_board(data)} has no kernels that get faster by FP16; its gain there is the size.")
    return Section("Precisions", told, [Table(columns, rows)])


def _board(data: ReportData) -> str:
    return data.board or "The board"


def dynamic_and_static(data: ReportData) -> Section | None:
    """Ranges at run time against ranges from calibration."""
    dynamic, static = _usual(data, QUANTIZE_DYNAMIC), _usual(data, QUANTIZE)
    if dynamic is None or static is None:
        return None
    rows = [
        (
            word,
            calibration,
            "INT8",
            activations,
            times(_speed(data, variant)),
            percent(data.accuracy(variant)),
            points(data.lost(variant)),
        )
        for word, variant, calibration, activations in (
            ("dynamic", dynamic, "none", "FP32, rounded at run time"),
            ("static", static, f"{static.values.get('calibration_samples', '?')} samples", "INT8"),
        )
    ]
    columns = (
        "method", "calibration data", "weights", "activations", ">speed", f">{metric_name(data)} %",
        ">change",
    )  # fmt: skip
    return Section("Dynamic and static quantization", [_where(data), *_verdict(data)], [Table(columns, rows)])


def _verdict(data: ReportData) -> Iterator[str]:
    """A sentence where the board tells that one of them is no gain."""
    for kind in (QUANTIZE_DYNAMIC, QUANTIZE):
        variant = _usual(data, kind)
        speed = _speed(data, variant) if variant is not None else None
        if variant is not None and speed is not None and speed < _SLOWER:
            yield (
                f"{precision(variant)} is slower than FP32 on {data.board}: {1 / speed:.1f} times. "
                f"`boardwright compile` with the pass diagnose says which kernels ran."
            )


def granularity(data: ReportData) -> Section | None:
    """One scale per tensor against one per output channel, all else equal."""
    groups: dict[str, dict[str, MadeVariant]] = {}
    for variant in _straight(data, QUANTIZE):
        kept = _settings(variant, "granularity", "profile")
        way = "per-channel" if "per-channel" in str(variant.values.get("scheme", "")) else "per-tensor"
        groups.setdefault(json.dumps([variant.profile, kept], sort_keys=True), {})[way] = variant
    pair = next((group for group in groups.values() if len(group) > 1), None)
    if pair is None:
        return None
    rows = [
        (
            way,
            pair[way].name,
            {"per-tensor": "one scale a tensor", "per-channel": "one scale an output channel"}[way],
            percent(data.accuracy(pair[way])),
            points(data.lost(pair[way])),
            percent(_agreement(pair[way])),
            times(_speed(data, pair[way])),
        )
        for way in ("per-tensor", "per-channel")
    ]
    columns = (
        "method", "variant", "weights", f">{metric_name(data)} %", ">change", ">answers kept %", ">speed",
    )  # fmt: skip
    return Section("Per tensor and per channel", [_where(data)], [Table(columns, rows)])


def calibration_sizes(data: ReportData) -> Section | None:
    """The same quantization from more and more samples, with a curve."""
    groups: dict[str, dict[int, MadeVariant]] = {}
    for variant in _straight(data, QUANTIZE):
        kept = _settings(variant, "samples")
        count = int(variant.values.get("calibration_samples", 0) or 0)
        if count:
            groups.setdefault(json.dumps([variant.profile, kept], sort_keys=True), {})[count] = variant
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:
        return None
    series = sorted(largest.items())
    rows = [
        (
            str(count),
            percent(data.accuracy(variant)),
            points(data.lost(variant)),
            percent(_agreement(variant)),
            _decibels(variant),
            milliseconds(cost.figure("p50_ms") if (cost := data.cost(variant)) else None),
            times(_speed(data, variant)),
        )
        for count, variant in series
    ]
    columns = (
        ">samples", f">{metric_name(data)} %", ">change", ">answers kept %", ">SQNR dB", ">p50 ms", ">speed",
    )  # fmt: skip
    curve = plots.calibration_curve(data, series)
    return Section("Calibration size", [_where(data)], [Table(columns, rows)], [curve] if curve else [])


def pruning_ratios(data: ReportData) -> Section | None:
    """How much was taken out, what was done then, and what it cost."""
    pruned = [
        (removed, variant, then)
        for variant in data.variants
        if (found := _pruned_by(data, variant)) is not None
        for removed, then in [found]
    ]
    if not pruned or data.baseline is None:
        return None
    rows = [
        (
            variant.name,
            then,
            _part(removed.get("macs")),
            _part(removed.get("parameters")),
            share(variant.size_bytes, data.baseline.size_bytes),
            percent(data.accuracy(variant)),
            points(data.lost(variant)),
            times(_speed(data, variant)),
        )
        for removed, variant, then in sorted(pruned, key=lambda held: held[0].get("macs", 0.0))
    ]
    columns = (
        "variant", "then", ">MACs removed", ">parameters removed", ">size of baseline",
        f">{metric_name(data)} %", ">change", ">speed",
    )  # fmt: skip
    channels = [  # single weights that are zero remove no multiplication: they have no place on the curve
        (100 * removed["macs"], variant)
        for removed, variant, then in pruned
        if not then and "macs" in removed
    ]
    curve = plots.pruning_curve(data, channels)
    return Section(
        "Pruning ratio and accuracy", [_where(data)], [Table(columns, rows)], [curve] if curve else []
    )


def _pruned_by(data: ReportData, variant: MadeVariant) -> tuple[Mapping[str, float], str] | None:
    """What pruning removed on the way from the baseline, and the passes after it; None without pruning."""
    by_digest = {held.digest: held for held in data.variants}
    after: list[str] = []
    held: MadeVariant | None = variant
    for _ in range(len(data.variants)):
        if held is None:
            return None
        if held.kind == PRUNE:
            removed = held.values.get("removed")
            kept = {k: float(v) for k, v in removed.items()} if isinstance(removed, Mapping) else {}
            return kept, ", ".join(reversed(after))
        after.append(precision(held))
        held = by_digest.get(held.source)
    return None


def _part(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def deployment(data: ReportData) -> Section | None:
    """Every variant on every board it was built for."""
    rows = []
    warned: dict[str, list[str]] = {}
    for variant in data.variants:
        for cost in variant.costs:
            for text in cost.warnings:
                warned.setdefault(text, []).append(f"{variant.name} on {cost.board}")
            p50 = cost.figure("p50_ms")
            rows.append(
                (
                    f"{variant.name} ({precision(variant)})",
                    cost.board,
                    cost.toolchain,
                    milliseconds(p50),
                    milliseconds(cost.figure("p95_ms")),
                    NONE if not p50 else f"{1000 / p50:.0f}",
                    milliseconds(cost.figure("p50_ms", 0)),
                    size(cost.memory_bytes),
                    size(cost.size_bytes),
                    cost.measured_on or "not measured",
                )
            )
    if not rows:
        return None
    columns = (
        "solution", "board", "toolchain", ">p50 ms", ">p95 ms", ">images/s", ">p50 ms, all threads",
        ">memory", ">size", "measured on",
    )  # fmt: skip
    return Section(
        "Deployment",
        ["Latencies are of one thread unless the column says otherwise. A board that is not here is not "
         "measured here: its figures come from its own agent or stay open.",
         *(f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in warned.items())],
        [Table(columns, rows)],
    )  # fmt: skip


def _settings(variant: MadeVariant, *but: str) -> dict[str, object]:
    """What a graph follows from, without the parameters that are compared."""
    kept = {k: v for k, v in variant.parameters.items() if k not in (*but, "fail_if_information_lost")}
    return {**kept, "given": sorted(set(variant.given) - {CALIBRATION_RECORD})}


def _straight(data: ReportData, kind: str) -> list[MadeVariant]:
    """Variants of a kind that were made from the baseline itself, for the profile of the report's board."""
    if data.baseline is None:
        return []
    found = [held for held in data.variants if held.kind == kind and held.source == data.baseline.digest]
    profiles = {variant.profile for variant in found}
    measured = {variant.profile for variant in found if data.cost(variant) is not None}
    wanted = next(iter(sorted(measured or profiles)), "")
    return [variant for variant in found if variant.profile == wanted]


def _usual(data: ReportData, kind: str) -> MadeVariant | None:
    """The variant that stands for a kind: as the recipes' defaults make it, from the most samples."""

    def unusual(variant: MadeVariant) -> tuple[int, int]:
        odd = variant.parameters.get("granularity") == "per-tensor" or not variant.parameters.get(
            "protect", True
        )
        odd = odd or not variant.parameters.get("correct_bias", True)
        return int(odd), -int(variant.values.get("calibration_samples", 0) or 0)

    return min(_straight(data, kind), key=unusual, default=None)


def _speed(data: ReportData, variant: MadeVariant) -> float | None:
    cost = data.cost(variant)
    return cost.figure("speedup") if cost else None


def _times(data: ReportData, variant: MadeVariant) -> str:
    """How many times as fast as the baseline, which is as fast as itself."""
    measured = data.cost(variant) is not None
    return times(1.0 if variant.kind == IMPORT and measured else _speed(data, variant))


def _agreement(variant: MadeVariant) -> float | None:
    for name in ("top1_agreement", "map50_against_baseline"):
        if name in variant.parity:
            return 100 * variant.parity[name]
    return None


def _decibels(variant: MadeVariant) -> str:
    value = variant.parity.get("sqnr_db")
    return NONE if value is None else f"{value:.1f}"


def _where(data: ReportData) -> str:
    return _SIDE_BY_SIDE.format(board=data.board) if data.board else "No speed was measured."
