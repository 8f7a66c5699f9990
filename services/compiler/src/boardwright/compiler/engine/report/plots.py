"""Plots as SVG, each an element of its own that needs nothing from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import DependencyMissing
from boardwright.compiler.engine.report.content import Plot
from boardwright.compiler.engine.report.data import IMPORT, MadeVariant, ReportData
from boardwright.compiler.engine.report.wording import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES = 7.2
_MOST_LETTERS = 38
_WIDE = 6
_INK, _GRID, _MAIN, _LOW, _GOOD = "#1f2933", "#d5dbe1", "#2f6fab", "#c2563d", "#3a8f62"
_STYLE = {
    "svg.hashsalt": "boardwright",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
}


def pareto(data: ReportData) -> Plot | None:
    """Accuracy over latency on the board, or over size where nothing was measured; the front is joined."""
    judged = [
        (variant, accuracy) for variant in data.variants if (accuracy := data.accuracy(variant)) is not None
    ]
    timed = [(v, latency, a) for v, a in judged if (latency := _latency(data, v)) is not None]
    by_latency = len(timed) > 1
    points = timed if by_latency else [(v, v.size_bytes / 1e6, a) for v, a in judged if v.size_bytes]
    if len(points) < 2:
        return None
    front = sorted(
        (cost, accuracy)
        for variant, cost, accuracy in points
        if not any((c <= cost and a >= accuracy) and (c, a) != (cost, accuracy) for _, c, a in points)
    )
    what = f"p50 on {data.board}, one thread, ms" if by_latency else "size, MB"
    with _figure(3.9) as (figure, axes):
        axes.plot([x for x, _ in front], [y for _, y in front], color=_GOOD, linewidth=1.2, zorder=1)
        for variant, cost, accuracy in points:
            best = (cost, accuracy) in front
            color = _INK if variant.kind == IMPORT else _GOOD if best else _LOW
            axes.scatter([cost], [accuracy], color=color, s=32, zorder=3 if best else 2)
        axes.margins(x=0.12)
        _cost_scale(axes, [cost for _, cost, _ in points])
        _accuracy_limits(axes, [accuracy for _, _, accuracy in points])
        _label(axes, points)
        axes.grid(True)
        axes.set_xlabel(what)
        axes.set_ylabel(f"{metric_name(data)}, %")
        axes.set_title("Accuracy and cost: nothing beats what lies on the line")
        return Plot("pareto", f"{metric_name(data)} of each variant over {what}", _svg(figure))


def bars(name: str, title: str, entries: Sequence[tuple[str, float]], unit: str) -> Plot:
    """Horizontal bars in the given order, the first on top."""
    with _figure(1.0 + 0.21 * len(entries)) as (figure, axes):
        places = range(len(entries))
        values = [value for _, value in entries]
        axes.barh(places, values, color=[_LOW if value < 0 else _MAIN for value in values], height=0.68)
        axes.set_yticks(places, [_short(label) for label, _ in entries])
        axes.invert_yaxis()
        axes.grid(True, axis="x")
        axes.set_xlabel(unit)
        axes.set_title(title)
        return Plot(name, title, _svg(figure))


def ranges(name: str, title: str, entries: Sequence[tuple[str, float, float]]) -> Plot:
    """From low to high, on a scale that is linear around 0 and logarithmic beyond 1."""
    with _figure(1.0 + 0.21 * len(entries)) as (figure, axes):
        places = range(len(entries))
        axes.barh(
            places,
            [high - low for _, low, high in entries],
            left=[low for _, low, _ in entries],
            color=_MAIN,
            height=0.68,
        )
        if max((max(abs(low), abs(high)) for _, low, high in entries), default=0) > 50:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_yticks(places, [_short(label) for label, _, _ in entries])
        axes.invert_yaxis()
        axes.grid(True, axis="x")
        axes.set_title(title)
        return Plot(name, f"{title}: smallest to largest value", _svg(figure))


def calibration_curve(data: ReportData, series: Sequence[tuple[float, MadeVariant]]) -> Plot | None:
    """Accuracy over the number of calibration samples, with the baseline's as a line."""
    return _curve(
        data, "calibration-size", "Accuracy and calibration size", "calibration samples", series, True
    )


def pruning_curve(data: ReportData, series: Sequence[tuple[float, MadeVariant]]) -> Plot | None:
    """Accuracy over what pruning removed, with the baseline's as a line."""
    title, across = "Accuracy and pruning, before any training", "multiplications removed, %"
    return _curve(data, "pruning-ratio", title, across, series, False)


def _curve(
    data: ReportData,
    name: str,
    title: str,
    across: str,
    series: Sequence[tuple[float, MadeVariant]],
    logarithmic: bool,
) -> Plot | None:
    places = sorted((x, value) for x, variant in series if (value := data.accuracy(variant)) is not None)
    if len(places) < 2:
        return None
    with _figure(3.2) as (figure, axes):
        axes.plot([x for x, _ in places], [y for _, y in places], "o-", color=_MAIN, markersize=5)
        base = data.accuracy(data.baseline) if data.baseline is not None else None
        if base is not None:
            axes.axhline(base, color=_INK, linewidth=1, linestyle="--")
            lower = 2 * base > max(y for _, y in places) + min(y for _, y in places)  # the title is above
            axes.annotate(
                "baseline",
                (places[-1][0], base),
                xytext=(0, -4 if lower else 4),
                textcoords="offset points",
                ha="right",
                va="top" if lower else "bottom",
            )
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks([x for x, _ in places], [f"{x:.3g}" if x < 1000 else f"{x:.0f}" for x, _ in places])
        axes.minorticks_off()
        axes.margins(x=0.08)
        _accuracy_limits(axes, [y for _, y in places] + ([base] if base is not None else []))
        axes.grid(True)
        axes.set_xlabel(across)
        axes.set_ylabel(f"{metric_name(data)}, %")
        axes.set_title(title)
        return Plot(name, f"{title}: {metric_name(data)} over {across}", _svg(figure))


def _latency(data: ReportData, variant: MadeVariant) -> float | None:
    cost = data.cost(variant)
    return cost.figure("p50_ms") if cost is not None else None


def _accuracy_limits(axes: Axes, values: Sequence[float]) -> None:
    """At least one point from bottom to top, and no more than 100 %: what differs by nothing looks alike."""
    low, high = min(values), max(values)
    room = max(0.18 * (high - low), (1 - (high - low)) / 2)
    axes.set_ylim(low - room, min(high + room, 100 + 0.2 * room))


def _cost_scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where one is so dear that the others would lie on one another."""
    if min(values) > 0 and max(values) > _WIDE * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")


def _label(axes: Axes, points: Sequence[tuple[MadeVariant, float, float]]) -> None:
    """Names beside the points; those of points that lie together are stacked."""
    from matplotlib.patheffects import withStroke

    to_axes = (axes.transData + axes.transAxes.inverted()).transform
    taken: list[tuple[float, float]] = []
    for variant, x, y in sorted(points, key=lambda held: (-held[2], held[1])):
        across, up = (float(value) for value in to_axes((x, y)))
        while any(abs(across - a) < 0.2 and abs(up - b) < 0.045 for a, b in taken):
            up -= 0.045
        taken.append((across, up))
        axes.annotate(
            _short(variant.name),
            (across + 0.012, up + 0.012),
            xycoords="axes fraction",
            fontsize=8,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


@contextmanager
def _figure(height_inches: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the report's style; nothing global is changed."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyMissing(
            "DEPENDENCY_MISSING", "Plots need matplotlib: pip install 'boardwright-compiler[report]'."
        ) from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    return text[text.index("<svg") :].strip()


def _short(label: str) -> str:
    """A label that fits: the end of a layer's path tells more than its beginning; control characters go."""
    clean = "".join(letter if letter.isprintable() else "·" for letter in label)
    return clean if len(clean) <= _MOST_LETTERS else "…" + clean[1 - _MOST_LETTERS :]
