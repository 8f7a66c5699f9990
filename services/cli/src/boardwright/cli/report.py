"""The comparison of a version's variants: every figure with where it was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from boardwright.cli.output import print_notes, print_table, size

if TYPE_CHECKING:
    from boardwright.api.registry.v1.registry_pb2 import Artifact, Measurement
    from boardwright.client import Client

_ACCURACIES = ("top1", "map50_95", "map50", "top5")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One artifact (or a variant that was not built yet).

    Attributes:
        variant: its id: "baseline", "int8".
        board: whom it was built for, "" when it was not.
        accuracies: figures by name, fractions of 1, on the evaluation dataset.
        size_bytes: of the files that the runtime loads.
        p50_ms, p95_ms: single-thread latency; None where nothing was measured.
        measured_on: the board that ran it, and "emulated" where that is another one.
        warnings: what the run that measured it had to say, such as that the host was busy.
    """

    variant: str
    board: str
    toolchain: str
    accuracies: dict[str, float]
    size_bytes: int
    p50_ms: float | None
    p95_ms: float | None
    peak_rss_bytes: float | None
    measured_on: str
    warnings: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def collect(client: Client, version: str) -> list[ReportRow]:
    """One row for each variant, board and toolchain, the baseline first; of several builds the newest.

    Raises:
        NotFound: VERSION_NOT_FOUND.
    """
    name = client.models.version(version).name
    measurements = list(client.models.measurements(name))
    rows = []
    judged_on = _shared_conditions(measurements)
    variants = sorted(
        client.models.variants(name), key=lambda v: (v.name.rpartition("/")[2] != "baseline", v.name)
    )
    for variant in variants:
        own = [m for m in measurements if m.name.startswith(variant.name + "/measurements/")]
        accuracies = _accuracies(own, judged_on)
        newest: dict[tuple[str, str], Artifact] = {}
        for artifact in client.models.artifacts(variant.name):
            newest.setdefault((artifact.pin.board, artifact.toolchain), artifact)
        label = variant.name.rpartition("/")[2]
        if not newest:
            rows.append(ReportRow(label, "", "", accuracies, variant.graph.size_bytes, None, None, None, ""))
        for _, artifact in sorted(newest.items(), key=lambda item: item[0]):
            below = [m for m in measurements if m.name.startswith(artifact.name + "/measurements/")]
            rows.append(_row(label, artifact, accuracies, below))
    return rows


def _conditions(accuracy: Measurement) -> tuple[str, float]:
    return accuracy.dataset, accuracy.values.get("samples", 0.0)


def _shared_conditions(measurements: list[Measurement]) -> tuple[str, float] | None:
    """The dataset, and of how many of its samples, that most variants were judged on; of equals the newest.

    Figures of other samples are no comparison, so a table shows those of one condition alone.
    """
    variants: dict[tuple[str, float], set[str]] = {}
    for found in measurements:
        if found.kind == "accuracy":
            variants.setdefault(_conditions(found), set()).add(found.name.partition("/measurements/")[0])
    return max(variants, key=lambda conditions: len(variants[conditions]), default=None)


def _accuracies(measurements: list[Measurement], judged_on: tuple[str, float] | None) -> dict[str, float]:
    """The newest accuracy figures under these conditions (a list is newest first)."""
    for found in measurements:
        if found.kind == "accuracy" and _conditions(found) == judged_on:
            return {key: found.values[key] for key in _ACCURACIES if key in found.values}
    return {}


def _row(
    variant: str, artifact: Artifact, accuracies: dict[str, float], measurements: list[Measurement]
) -> ReportRow:
    from boardwright.api.types.v1.types_pb2 import ORIGIN_EMULATED
    from boardwright.client.board_figures import size_to_load, warnings_of

    latencies = [m for m in measurements if m.kind == "latency"]
    latency = next((m for m in latencies if m.threads == 1), latencies[0] if latencies else None)
    memory = next((m for m in measurements if m.kind == "memory"), None)
    where = ""
    if latency is not None:
        where = latency.host.board or latency.board
        if latency.origin == ORIGIN_EMULATED:
            where = f"emulated on {where}"
    peak = memory.values.get("peak_rss_bytes") if memory is not None else None
    return ReportRow(
        variant,
        artifact.pin.board,
        artifact.toolchain,
        accuracies,
        size_to_load(artifact),
        latency.values.get("p50_ms") if latency is not None else None,
        latency.values.get("p95_ms") if latency is not None else None,
        peak,
        where,
        tuple(warnings_of(latency)) if latency is not None else (),
    )


def print_report(rows: list[ReportRow], *, title: str = "") -> None:
    """Print the comparison."""
    shown = ("top1",) if any("top1" in row.accuracies for row in rows) else ("map50_95", "map50")
    metrics = [name for name in shown if any(name in row.accuracies for row in rows)]
    accuracy_columns = (f">{name} %" for name in metrics)
    contested = {
        row.board for row in rows if len({other.toolchain for other in rows if other.board == row.board}) > 1
    }
    print_table(
        ("variant", "built for", *accuracy_columns, ">size", ">p50 ms", ">p95 ms", "measured on"),
        [
            (
                row.variant,
                _built_for(row, contested),
                *(f"{100 * row.accuracies[name]:.2f}" if name in row.accuracies else "–" for name in metrics),
                size(row.size_bytes),
                _milliseconds(row.p50_ms),
                _milliseconds(row.p95_ms),
                row.measured_on or "not measured",
            )
            for row in rows
        ],
        title=title,
    )
    warned: dict[str, list[str]] = {}
    for row in rows:
        for text in row.warnings:
            warned.setdefault(text, []).append(row.variant)
    print_notes({", ".join(dict.fromkeys(names)): text for text, names in warned.items()})


def _built_for(row: ReportRow, contested: set[str]) -> str:
    """The board, and by which toolchain where several built for it."""
    if not row.board:
        return "not built yet"
    return f"{row.board} {row.toolchain}" if row.board in contested else row.board


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"
