"""build/measure: artifacts side by side in one run, so that their ratios hold on a noisy host.

Inputs: ``model-N`` and ``golden-N`` for each artifact, ``weights-N`` where its runtime has a second file.
Parameters: ``subjects`` (a list of {name, pin, runtime_settings, toolchain}), ``baseline`` (index of the one
that others are compared with, -1 for none), ``runs``, ``warm_up_runs``, ``block``, ``threads`` (0 is the
runtime's default), ``max_seconds``, ``allow_emulated``. Output: ``runs.json`` with every single time. Values:
the figures.

Protocol: every artifact is opened for every thread count and warmed up. Then they take turns of ``block``
runs, one uncounted run first (caches, thread wake-up), the order rotating. A time is one run of one image
from a prepared input to outputs in memory, by the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boardwright.builder.domain.latency import Block, compare, interleaved, summarize
from boardwright.builder.domain.pinning import host_pin, why_emulated
from boardwright.builder.steps.host_noise import busy_warning, governor, noise_between, read_noise
from boardwright.builder.steps.kinds import MEASURE, RUNS_FILE, golden_input, model_input, weights_input
from boardwright.builder.steps.peak_memory import MemoryUnknown, measure_peak_memory
from boardwright.content import canonical_json
from boardwright.jobs.step_api import OutputFile, Progress, StepError, StepRequest, StepResult, implements
from boardwright.model.errors import ModelError
from boardwright.model.golden import GoldenSamples
from boardwright.model.host import Host, detect_host
from boardwright.model.pins import HardwarePin
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.port import Session
from boardwright.toolchains.runtimes import OPENED_HERE, open_model

RUNS_MEDIA_TYPE = "application/vnd.boardwright.runs.v1+json"
_MIN_RUNS = 10


@dataclass(frozen=True, slots=True)
class _Subject:
    number: int
    name: str
    pin: HardwarePin
    settings: Mapping[str, Any]
    golden: GoldenSamples
    model: Path
    weights: Path | None
    emulated_because: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.model, self.weights) if path)


@dataclass(frozen=True, slots=True)
class _Lane:
    """One artifact at one thread count; ``rounds`` holds the milliseconds of each of its turns."""

    subject: _Subject
    threads: int
    run: Callable[[], Sequence[Any]]
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def times(self) -> list[float]:
        return [value for block in self.rounds for value in block]


@implements(MEASURE)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Measure.

    Raises:
        StepError: BOARD_NEEDS_AGENT where this machine is not the artifact's board and emulated figures were
            not asked for; RUNTIME_UNSUPPORTED; GOLDEN_SAMPLES_FAILED; the reasons of ``ToolchainError``.
    """
    host = detect_host()
    subjects = _subjects(request, host)
    try:
        lanes = _lanes(request, subjects, progress)
        before = read_noise()
        warnings = _take_turns(lanes, request.parameters, progress)
        noise = noise_between(before, read_noise())
        warnings += filter(None, [busy_warning(noise, host.cpus)])
    except ToolchainError as error:
        raise StepError(error.reason, error.message) from error
    memory = _memory(request, subjects, progress, warnings)
    path = request.output_path(RUNS_FILE)
    path.write_bytes(canonical_json(_raw(lanes)))
    values = {
        "host": {
            "pin": host_pin(host, subjects[0].pin.runtime).to_json(),
            "machine": host.machine,
            "cpus": host.cpus,
            "governor": governor(),
            **noise,
        },
        "protocol": {name: request.parameters[name] for name in ("runs", "warm_up_runs", "block", "threads")},
        "subjects": [
            {
                **_figures(request, subject, lanes, memory[subject.number]),
                "host_pin": host_pin(host, subject.pin.runtime).to_json(),
            }
            for subject in subjects
        ],
    }
    for subject in subjects:
        warnings += [
            f"{subject.name}: emulated, no figure of {subject.pin.board}: {why}"
            for why in subject.emulated_because
        ]
    return StepResult({RUNS_FILE: OutputFile(path, RUNS_MEDIA_TYPE)}, values, tuple(warnings))


def _subjects(request: StepRequest, host: Host) -> list[_Subject]:
    found = []
    for number, entry in enumerate(request.parameters["subjects"]):
        try:
            pin = HardwarePin.from_json(entry["pin"])
            golden = GoldenSamples.from_bytes(request.input(golden_input(number)).path.read_bytes())
        except ModelError as error:
            raise StepError(error.reason, str(error)) from error
        if pin.runtime not in OPENED_HERE:
            raise StepError(
                "RUNTIME_UNSUPPORTED",
                f"{entry['name']} is for the runtime {pin.runtime}, which needs an agent on {pin.board}.",
            )
        why = tuple(why_emulated(pin, host))
        if why and not request.parameters["allow_emulated"]:
            raise StepError(
                "BOARD_NEEDS_AGENT",
                f"{entry['name']} cannot be measured here: {'; '.join(why)}. Measure it on the board through "
                "its agent, or accept emulated figures, which say nothing about the board's speed.",
            )
        model, weights = request.input(model_input(number)).path, request.inputs.get(weights_input(number))
        second = weights.path if weights else None
        settings = entry["runtime_settings"]
        found.append(_Subject(number, entry["name"], pin, settings, golden, model, second, why))
    if not found:
        raise StepError("SUBJECTS_MISSING", "Name at least one artifact to measure.")
    return found


def _lanes(request: StepRequest, subjects: Sequence[_Subject], progress: Progress) -> list[_Lane]:
    """Open and warm up every artifact at every thread count; each must first pass its golden samples."""
    threads = [int(count) for count in request.parameters["threads"]]
    warm_up = int(request.parameters["warm_up_runs"])
    lanes: list[_Lane] = []
    for subject in subjects:
        progress(len(lanes), len(subjects) * len(threads), f"warming up {subject.name}")
        for index, count in enumerate(threads):
            session = open_model(subject.pin.runtime, subject.model, subject.settings, count, subject.weights)
            if index == 0:
                _check_golden(subject, session)
            inputs = {name: array[:1].copy() for name, array in subject.golden.inputs.items()}
            lane = _Lane(subject, count, session.prepare(inputs))
            for _ in range(warm_up):
                lane.run()
            lanes.append(lane)
    return lanes


def _check_golden(subject: _Subject, session: Session) -> None:
    """A fast wrong answer is no figure."""
    verdict = subject.golden.check(session.run)
    if not verdict.passed:
        raise StepError(
            "GOLDEN_SAMPLES_FAILED",
            f"{subject.name} does not compute here what it computed when it was built: {verdict.reasons[0]}. "
            "Build it again for this machine.",
        )


def _take_turns(lanes: Sequence[_Lane], parameters: Mapping[str, Any], progress: Progress) -> list[str]:
    """Time the lanes in turns; returns warnings."""
    asked, block = int(parameters["runs"]), int(parameters["block"])
    runs, warnings = _affordable(lanes, asked, block, float(parameters["max_seconds"]))
    plan = interleaved(len(lanes), runs, block)
    for number, turn in enumerate(plan):
        progress(number, len(plan), "measuring")
        lanes[turn.subject].rounds.append(timed(lanes[turn.subject].run, turn))
    return warnings


def timed(run: Callable[[], Sequence[Any]], turn: Block) -> list[float]:
    """Return the milliseconds of one turn's runs."""
    clock = time.perf_counter_ns
    run()  # uncounted: wakes the threads and fills the caches after the other's turn
    times = []
    for _ in range(turn.timed):
        start = clock()
        run()
        times.append((clock() - start) / 1e6)
    return times


def _affordable(lanes: Sequence[_Lane], asked: int, block: int, max_seconds: float) -> tuple[int, list[str]]:
    """Return how many runs fit into the time, by one timed run of each lane."""
    once = sum(timed(lane.run, Block(0, 0, 1))[0] for lane in lanes) / 1e3
    per_run = once * (block + 1) / block
    fits = int(max_seconds / per_run) if per_run > 0 else asked
    if fits >= asked:
        return asked, []
    runs = max(_MIN_RUNS, fits)
    return runs, [f"{runs} runs instead of {asked}: more would take longer than {max_seconds:g} s."]


def _memory(
    request: StepRequest, subjects: Sequence[_Subject], progress: Progress, warnings: list[str]
) -> list[dict[str, float]]:
    found = []
    for subject in subjects:
        progress(subject.number, len(subjects), f"peak memory of {subject.name}")
        try:
            found.append(
                measure_peak_memory(
                    subject.pin.runtime,
                    (subject.model, subject.weights),
                    subject.golden,
                    subject.settings,
                    request.outputs_dir,
                )
            )
        except MemoryUnknown as error:
            warnings.append(f"{subject.name}: no peak memory: {error}")
            found.append({})
    return found


def _figures(
    request: StepRequest, subject: _Subject, lanes: Sequence[_Lane], memory: Mapping[str, float]
) -> dict[str, Any]:
    baseline = int(request.parameters["baseline"])
    latency = []
    for lane in lanes:
        if lane.subject is not subject:
            continue
        figures: dict[str, Any] = {"threads": lane.threads, **summarize(lane.times).to_json()}
        other = next((x for x in lanes if x.subject.number == baseline and x.threads == lane.threads), None)
        if other is not None and other is not lane and not subject.emulated_because:
            figures |= compare(other.rounds, lane.rounds).to_json()
        latency.append(figures)
    return {
        "name": subject.name,
        "board": subject.pin.board,
        "origin": "emulated" if subject.emulated_because else "measured",
        "emulated_because": list(subject.emulated_because),
        "latency": latency,
        "memory": dict(memory),
        "model_size_bytes": subject.size_bytes,
    }


def _raw(lanes: Sequence[_Lane]) -> dict[str, Any]:
    return {
        "schema": "runs/1",
        "unit": "ns",
        "lanes": [
            {
                "subject": lane.subject.name,
                "threads": lane.threads,
                "rounds": [[round(value * 1e6) for value in block] for block in lane.rounds],
            }
            for lane in lanes
        ],
    }
