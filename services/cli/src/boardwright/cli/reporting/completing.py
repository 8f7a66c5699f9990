"""`boardwright report --full`: the variants that the comparisons need, made, built and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from boardwright.cli.output import say
from boardwright.rpc.errors import FailedPrecondition

if TYPE_CHECKING:
    from boardwright.client import Client

RECIPE = "comparison"
BASELINE = "baseline"
_AT_ONCE = 8
"""Artifacts that the builder measures side by side, the baseline among them."""


def make_all(
    client: Client,
    version: str,
    board: str,
    datasets: Mapping[str, str],
    *,
    recipe: str = RECIPE,
    runs: int = 0,
    progress: Callable[[int, int, str], None],
) -> bool:
    """Run the recipe, then build and measure every variant that suits the board, beside the baseline.

    What ran before comes from the cache. What fails is told, and what there is stays.

    Returns:
        Whether all of it was made and measured.

    Raises:
        FailedPrecondition: DATASET_MISSING.
        NotFound: VERSION_NOT_FOUND, BOARD_NOT_FOUND, DATASET_NOT_FOUND.
    """
    from boardwright.client import JobFailed

    entry = client.boards.get(board or "host")
    board = entry.name.removeprefix("boards/")
    job = client.compile(version, recipe, datasets=datasets, boards=[board])
    done = True
    try:
        client.jobs.wait(job.name, progress=progress)
    except JobFailed as error:
        say(f"{recipe}: {error.message} [{error.reason}]")
        done = False
    profile = entry.quantization_profile.name
    variants = [
        held.name for held in client.models.variants(version) if held.quantization_profile in ("", profile)
    ]
    golden = datasets.get("calibration") or datasets.get("evaluation", "")
    built = _build(client, sorted(variants, key=_baseline_last), board, golden, progress)
    measured = _measure(client, built, board, runs, progress)
    return done and measured and len(built) == len(variants)


def _baseline_last(name: str) -> tuple[bool, str]:
    return name.endswith(f"/{BASELINE}"), name


def _build(
    client: Client, variants: list[str], board: str, golden: str, progress: Callable[[int, int, str], None]
) -> list[str]:
    built = []
    for variant in variants:
        label = variant.rpartition("/")[2]
        try:
            job = client.build(variant, board, golden_dataset=golden)
            done = client.jobs.wait(job.name, progress=progress)
        except FailedPrecondition as error:
            say(f"{label} was not built for {board}: {error.message} [{error.reason}]")
            continue
        built.append(next(name for name in done.results if "/artifacts/" in name))
    return built


def _measure(
    client: Client, artifacts: list[str], board: str, runs: int, progress: Callable[[int, int, str], None]
) -> bool:
    """Measure in groups that each hold the baseline, so that every ratio comes from one run."""
    baseline = [name for name in artifacts if f"/variants/{BASELINE}/" in name]
    others = [name for name in artifacts if name not in baseline]
    size = _AT_ONCE - len(baseline)
    groups = [baseline + others[start : start + size] for start in range(0, len(others), size)] or [baseline]
    for group in filter(None, groups):
        try:
            job = client.measure(group, board=board, runs=runs)
            client.jobs.wait(job.name, progress=progress)
        except FailedPrecondition as error:
            say(f"nothing was measured on {board}: {error.message} [{error.reason}]")
            return False
    return True
