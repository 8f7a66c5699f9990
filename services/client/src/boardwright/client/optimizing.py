"""`client.optimize`: recipes tried from cheap to dear, each compiled, built and measured.

The decision is `boardwright.selection`'s; here are its hands. Nothing is kept in between: each call asks the
services again, which answer from their caches, so an interrupted search goes on where it was and a finished
one is nearly free. A recipe that failed is not run again until `retry`: the caches remember what fails
deterministically, and a step that crashed or ran out of time is found among the earlier jobs.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.client.board_figures import BoardFigures
from boardwright.client.catalogue import read_recipe
from boardwright.client.jobs import JobFailed
from boardwright.client.progress import Progress, silent
from boardwright.rpc.errors import BoardwrightError, InvalidArgument
from boardwright.selection import Attempt, Candidate, Constraints, Failure, Figures, Selection, search

if TYPE_CHECKING:
    from boardwright.client.client import Client

BASELINE = "baseline"
_AFTER_ALL = 1_000_000
_OWN_FAULT = ("STEP_CRASHED", "TIME_LIMIT_EXCEEDED")
"""Failures that are not remembered by the cache and yet say more of the recipe than of the worker's luck."""
_REFUSALS = ("FAILED_PRECONDITION", "INVALID_ARGUMENT")
_LOOKED_BACK = 20
_BUDGET = re.compile(r"^(\s+budget:\s*\n\s+max_drop:[ \t]*)([0-9.]+)", re.MULTILINE)
"""The budget of the pass `protect`, in points, as recipes write it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A candidate with how to make it: the name or the YAML text of its recipe."""

    candidate: Candidate
    recipe: str


def plan_candidates(
    shipped: Sequence[compiler_pb2.Recipe],
    own: Sequence[tuple[str, str, compiler_pb2.Recipe]],
    roles: Iterable[str],
    max_drop_points: float | None = None,
) -> list[Plan]:
    """Return what may be tried, cheapest first.

    Args:
        shipped: the recipes that come with the compiler; those with a rung are tried.
        own: recipes that are tried instead (beside the baseline): name, what `compile` takes, and the recipe.
        roles: of the datasets that are given.
        max_drop_points: what may be lost at most: shipped recipes that spend a budget of loss get this one. A
            caller's own recipes stay as they are.
    """
    given = set(roles)
    entries = [
        (_id(recipe), _with_budget(recipe, max_drop_points), recipe)
        for recipe in shipped
        if recipe.HasField("rung") and (not own or list(recipe.variants) == [BASELINE])
    ]
    known = {name for name, _, _ in entries}
    entries += [entry for entry in own if entry[0] not in known]
    plans = []
    for number, (name, source, recipe) in enumerate(entries):
        missing = sorted(set(recipe.datasets) - given)
        order = recipe.rung.order if recipe.HasField("rung") else _AFTER_ALL + number
        candidate = Candidate(
            name,
            order,
            recipe.description,
            tuple(recipe.rung.no_lighter_than),
            tuple(recipe.rung.no_more_accurate_than),
            f"needs a {' and a '.join(missing)} dataset" if missing else "",
            is_baseline=list(recipe.variants) == [BASELINE],
        )
        plans.append(Plan(candidate, source))
    return sorted(plans, key=lambda plan: plan.candidate.order)


def _with_budget(recipe: compiler_pb2.Recipe, max_drop_points: float | None) -> str:
    """Return what `compile` takes: the recipe's name, or its text with the loss that is asked for."""
    if max_drop_points is None:
        return _id(recipe)
    text = _BUDGET.sub(rf"\g<1>{max_drop_points:g}", recipe.yaml)
    same = all(float(own) == max_drop_points for _, own in _BUDGET.findall(recipe.yaml))
    return _id(recipe) if same else text


def _id(recipe: compiler_pb2.Recipe) -> str:
    return recipe.name.removeprefix("recipes/")


class Optimizer:
    """One search on one version; see `Client.optimize`, which makes it."""

    def __init__(
        self,
        client: Client,
        version: pb.ModelVersion,
        boards: Sequence[builder_pb2.Board],
        datasets: Mapping[str, str],
        *,
        toolchains: Mapping[str, Sequence[str]] | None = None,
        runs: int = 0,
        retry: bool = False,
        time_limit_seconds: float = math.inf,
        progress: Progress = silent,
    ) -> None:
        self._client = client
        self._deadline = time.monotonic() + time_limit_seconds
        self._limit = time_limit_seconds
        self._version = version
        self._boards = {board.name.removeprefix("boards/"): board for board in boards}
        self._datasets = dict(datasets)
        self._retry = retry
        self._progress = progress
        self._plans: dict[str, Plan] = {}
        self._baseline_accuracy: float | None = None
        golden = self._datasets.get("calibration") or self._datasets.get("evaluation", "")
        self._measuring = BoardFigures(client, golden, toolchains=toolchains, runs=runs, retry=retry)

    def run(
        self,
        plans: Sequence[Plan],
        constraint_sets: Sequence[Constraints],
        *,
        exhaustive: bool = False,
        on_attempt: Callable[[Attempt], None] = lambda _: None,
    ) -> Selection:
        """Search. Raises: JobFailed: the baseline itself could not be made, so nothing can be judged."""
        self._plans = {plan.candidate.name: plan for plan in plans}
        candidates = [plan.candidate for plan in plans]
        done: dict[str, Attempt] = {}
        while True:
            known = set(done)

            def attempt(candidate: Candidate) -> Attempt:
                if candidate.name not in done:
                    done[candidate.name] = self.attempt(candidate)
                return done[candidate.name]

            def tell(made: Attempt, known: set[str] = known) -> None:
                if made.candidate.name not in known and (not made.skipped or not known):
                    on_attempt(made)

            found = search(
                candidates,
                list(self._boards),
                constraint_sets,
                attempt,
                exhaustive=exhaustive,
                on_attempt=tell,
            )
            if set(done) == known:
                return found
            self._renew_baseline(done)

    def _renew_baseline(self, done: dict[str, Attempt]) -> None:
        """Take the baseline's newest latencies, made beside other candidates, as the next call will."""
        for name, attempt in done.items():
            if attempt.candidate.is_baseline:
                boards = {
                    board: replace(found, latencies_ms=self._measuring.latencies(found.artifact, board))
                    if isinstance(found, Figures) and found.artifact
                    else found
                    for board, found in attempt.boards.items()
                }
                done[name] = replace(attempt, boards=boards)

    def attempt(self, candidate: Candidate) -> Attempt:
        """Compile a candidate, build it for each board, measure it where that can be done.

        Raises:
            JobFailed: for the baseline; of other candidates a failure is a result.
        """
        if time.monotonic() > self._deadline and not candidate.is_baseline:
            return Attempt(candidate, skipped=f"the {self._minutes} are used up")
        plan = self._plans[candidate.name]
        progress = self._told(candidate)
        known = None if self._retry else self._known_failure(plan)
        if known is not None:
            return Attempt(candidate, failure=known, cached=True)
        try:
            job = self._client.compile(
                self._version.name,
                plan.recipe,
                datasets=self._datasets,
                boards=self._boards,
                retry_failed=self._retry,
            )
        except BoardwrightError as error:
            # What is not found is the recipe's own, a teacher: version and datasets served the baseline.
            if candidate.is_baseline or error.code not in (*_REFUSALS, "NOT_FOUND"):
                raise
            return Attempt(candidate, failure=Failure("recipe", error.reason, error.message))
        with self._bounded(job, candidate) as time_is_up:
            try:
                job = self._client.jobs.wait(job.name, progress=progress)
            except JobFailed as error:
                cancelled = error.job.state == jobs_pb2.Job.STATE_CANCELLED
                if cancelled and time_is_up.is_set():
                    told = f"stopped after {self._minutes}; what it has finished is found again next time"
                    return Attempt(candidate, skipped=told, job=job.name)
                if candidate.is_baseline or cancelled:
                    raise
                return Attempt(candidate, failure=_failure(error), job=error.job.name)
        made = made_by(job)
        cached = all(step.cached for step in job.steps)
        boards: dict[str, Figures | Failure] = {}
        for name, board in self._boards.items():
            boards[name] = self._on_board(job, made, name, board, candidate, progress)
        return Attempt(candidate, boards, cached=cached, job=job.name)

    def _on_board(
        self,
        job: jobs_pb2.Job,
        made: Sequence[tuple[str, str]],
        name: str,
        board: builder_pb2.Board,
        candidate: Candidate,
        progress: Progress,
    ) -> Figures | Failure:
        profile = board.quantization_profile.name
        variant = next((held for held, serves in reversed(made) if serves in ("", profile)), "")
        if not variant:
            return Failure("", "NO_VARIANT", f"the recipe makes no variant that suits {name}")
        measured = {held.name: held for held in self._client.models.measurements(variant)}
        own = [measured[held] for held in job.results if held in measured]
        if candidate.is_baseline:
            self._baseline_accuracy = _accuracy(own)[1]
        try:
            figures = self._measuring.of(variant, name, is_baseline=candidate.is_baseline, progress=progress)
        except JobFailed as error:
            return _failure(error)
        except BoardwrightError as error:
            if error.code not in _REFUSALS:
                raise
            return Failure("build", error.reason, error.message)
        metric, accuracy = _accuracy(own)
        missing = dict(figures.missing)
        if accuracy is None:
            missing["accuracy"] = "the evaluation dataset has no labels, or the recipe does not evaluate"
        return Figures(
            metric=metric,
            accuracy=accuracy,
            baseline_accuracy=self._baseline_accuracy,
            latencies_ms=figures.latencies_ms,
            size_bytes=figures.size_bytes,
            memory_bytes=figures.memory_bytes,
            parity=next((dict(held.values) for held in own if held.kind == "parity"), {}),
            missing=missing,
            variant=variant,
            artifact=figures.artifact,
            toolchain=figures.toolchain,
        )

    def _known_failure(self, plan: Plan) -> Failure | None:
        """What an earlier job of the very same steps came to, where the recipe itself is to blame."""
        planned: jobs_pb2.Job | None = None
        where = f'state = "STATE_FAILED" AND title = {json.dumps(self._title(plan))}'
        for job in self._client.jobs.list(kind="compile", where=where, limit=_LOOKED_BACK):
            failed = next((step for step in job.steps if step.state == jobs_pb2.Step.STATE_FAILED), None)
            if failed is None or failed.failure.reason not in _OWN_FAULT:
                continue
            planned = planned or self._client.compile(
                self._version.name,
                plan.recipe,
                datasets=self._datasets,
                boards=self._boards,
                validate_only=True,
            )
            same = next((step for step in planned.steps if step.cache_key == failed.cache_key), None)
            if failed.cache_key and same is not None and not same.cached:
                return Failure(failed.step, failed.failure.reason, failed.failure.message, known=True)
        return None

    @property
    def _minutes(self) -> str:
        return f"{self._limit / 60:g} minutes"

    @contextlib.contextmanager
    def _bounded(self, job: jobs_pb2.Job, candidate: Candidate) -> Iterator[threading.Event]:
        """Cancel the job when the time is up, also one that waits for a worker or tells of no progress."""
        time_is_up = threading.Event()

        def cancel() -> None:
            time_is_up.set()
            with contextlib.suppress(BoardwrightError):  # it has just ended
                self._client.jobs.cancel(job.name, f"optimize was given {self._minutes}")

        if candidate.is_baseline or math.isinf(self._deadline):
            yield time_is_up
            return
        left = min(max(0.0, self._deadline - time.monotonic()), threading.TIMEOUT_MAX)
        timer = threading.Timer(left, cancel)
        timer.daemon = True
        timer.start()
        try:
            yield time_is_up
        finally:
            timer.cancel()

    def _title(self, plan: Plan) -> str:
        _, _, model, _, number = self._version.name.split("/")[1:6]
        return f"{model}@{number} by {plan.candidate.name}"

    def _told(self, candidate: Candidate) -> Progress:
        number = list(self._plans).index(candidate.name) + 1

        def told(done: int, total: int, what: str) -> None:
            self._progress(done, total, f"{candidate.name} ({number} of {len(self._plans)}): {what}")

        return told


def made_by(job: jobs_pb2.Job) -> list[tuple[str, str]]:
    """The variants that a finished compile job made, in order: name, and the profile each serves."""
    variants = [name for name in job.results if name.split("/")[-2] == "variants"]
    plan: list[dict[str, Any]] = [
        entry for entry in json.loads(job.spec_json)["plan"] if entry["makes_variant"]
    ]
    return [(name, str(entry["profile"])) for name, entry in zip(variants, plan, strict=True)]


def wished_toolchains(
    client: Client, boards: Iterable[builder_pb2.Board], wished: Sequence[str]
) -> dict[str, Sequence[str]]:
    """Per board the toolchains to build by: those wished for that it has; "all" is every one that runs here.

    Raises:
        InvalidArgument: TOOLCHAIN_UNKNOWN, a board has none of them.
    """
    if not wished:
        return {}
    here = {held.name.removeprefix("toolchains/") for held in client.boards.toolchains() if held.available}
    found: dict[str, Sequence[str]] = {}
    for board in boards:
        name = board.name.removeprefix("boards/")
        chosen = [held for held in board.toolchains if held in wished or ("all" in wished and held in here)]
        if not chosen and "all" not in wished:
            has = ", ".join(board.toolchains)
            raise InvalidArgument(
                "TOOLCHAIN_UNKNOWN", f"{name} is built for by {has}: name one of them, or all"
            )
        found[name] = chosen or ("",)
    return found


def own_recipes(client: Client, recipes: Iterable[str | Path]) -> list[tuple[str, str, compiler_pb2.Recipe]]:
    """Recipes that a caller names: those that ship, or YAML files. Raises: InvalidArgument RECIPE_INVALID."""
    shipped = {_id(recipe): recipe for recipe in client.recipes.list()}
    found = []
    for recipe in recipes:
        name, text = read_recipe(recipe)
        if name and name not in shipped:
            raise InvalidArgument("RECIPE_INVALID", f"there is no recipe {name!r}: {', '.join(shipped)}")
        message = shipped[name] if name else client.recipes.validate(text)
        called = name or next(
            (
                line.partition(":")[2].strip()
                for line in message.yaml.splitlines()
                if line.startswith("name:")
            ),
            "",
        )
        found.append((called, text or name, message))
    return found


def _accuracy(measurements: Sequence[pb.Measurement]) -> tuple[str, float | None]:
    """The task's metric and its value, of the measurements of one job."""
    values = next((dict(held.values) for held in measurements if held.kind == "accuracy"), {})
    metric = next((name for name in ("top1", "map50_95") if name in values), "")
    return metric, values.get(metric)


def _failure(error: JobFailed) -> Failure:
    failed = next((step for step in error.job.steps if step.state == jobs_pb2.Step.STATE_FAILED), None)
    if failed is None:
        return Failure("", error.reason, error.job.failure.message or error.message)
    return Failure(failed.step, failed.failure.reason, failed.failure.message, known=failed.cached)
