"""All sections in order, and a line for each that has no data."""

from __future__ import annotations

from collections.abc import Callable

from boardwright.compiler.engine.report import comparisons, findings
from boardwright.compiler.engine.report.content import Report, Section
from boardwright.compiler.engine.report.data import ReportData

_FULL = "boardwright report {version} --full --calibration DATASET --evaluation DATASET"
_RECIPE_WITH = "boardwright compile {version} --recipe YOURS.yaml, with the pass {name}"

_SECTIONS: tuple[tuple[str, Callable[[ReportData], Section | None], str], ...] = (
    ("precisions", comparisons.precisions, _FULL),
    ("dynamic and static quantization", comparisons.dynamic_and_static, _FULL),
    ("per tensor and per channel", comparisons.granularity, _FULL),
    ("calibration size", comparisons.calibration_sizes, _FULL),
    (
        "pruning ratio and accuracy",
        comparisons.pruning_ratios,
        _FULL.replace("--full", "--full --recipe pruning-ratios"),
    ),
    ("deployment", comparisons.deployment, "boardwright build {version}/VARIANT, then boardwright measure"),
    ("sensitivity of layers", findings.sensitivity, _RECIPE_WITH.replace("{name}", "protect")),
    ("activation ranges", findings.activation_ranges, "boardwright compile {version} --calibration DATASET"),
    ("what stayed in floating point", findings.kept_in_float, ""),
    ("diagnosis", findings.diagnosis, _RECIPE_WITH.replace("{name}", "diagnose")),
    ("ablation", findings.ablation, _RECIPE_WITH.replace("{name}", "ablate")),
    ("costliest layers", findings.costly_layers, _RECIPE_WITH.replace("{name}", "profile")),
    ("warnings", findings.warnings, ""),
)


def compose(data: ReportData) -> Report:
    """Return the report of what is known.

    Raises:
        DependencyMissing: there is something to plot, and matplotlib is not installed.
    """
    sections, absent = [comparisons.overview(data)] if data.variants else [], []
    for title, make, command in _SECTIONS:
        made = make(data)
        if made is not None:
            sections.append(made)
        elif command:
            absent.append((title, command.format(version=data.version)))
    subtitle = ", ".join(
        filter(
            None,
            [
                data.task,
                f"{len(data.variants)} variant{'s' if len(data.variants) != 1 else ''}",
                f"judged on {data.samples} samples of {data.dataset}" if data.dataset else "not judged",
                f"speeds of {data.board}" if data.board else "",
            ],
        )
    )
    return Report(f"Report on {data.version}", subtitle, tuple(sections), tuple(absent))
