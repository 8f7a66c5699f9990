"""What was wished for, the stack it runs on, the last words."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from boardwright.cli.demo.chain import STAGE, Bounds, Chain
from boardwright.cli.demo.device import DeviceAgent
from boardwright.cli.demo.stages import Stages
from boardwright.cli.demo.subject import Subject, Training, check_checkpoint, own_subject
from boardwright.cli.embedded import stack
from boardwright.cli.embedded.supervisor import StartFailed
from boardwright.cli.output import Format, print_json, say
from boardwright.cli.report import ReportRow, collect, print_report
from boardwright.rpc.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from boardwright.api.delivery.v1 import delivery_pb2

_DIGITS_BOUNDS = Bounds(accuracy_drop_points=1.0, latency_ms=33.0)
_OWN_SAMPLES = 300
_SIGNALLED = 128
"""A shell's exit code for a process that signal N ended is 128 + N."""
_OWN_BOUNDS = Bounds(accuracy_drop_points=5.0, latency_ms=1000.0)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says; see `boardwright demo --help`."""

    data: Path
    checkpoint: Path | None = None
    dataset: Path | None = None
    evaluation: Path | None = None
    board: str = "raspberry-pi-5"
    input_spec: Path | None = None
    output_spec: Path | None = None
    module: str | None = None
    model: str | None = None
    accuracy_drop_points: float | None = None
    latency_ms: float | None = None
    samples: int | None = None
    keep_running: bool = False

    @property
    def sample_limit(self) -> int:
        """Most images of a dataset; 0 for all."""
        if self.samples is not None:
            return self.samples
        return 0 if self.checkpoint is None else _OWN_SAMPLES

    @property
    def bounds(self) -> Bounds:
        """What the gates allow: as wished, else generous for an unknown model."""
        known = _DIGITS_BOUNDS if self.checkpoint is None else _OWN_BOUNDS
        drop = self.accuracy_drop_points
        ceiling = self.latency_ms
        return Bounds(
            known.accuracy_drop_points if drop is None else drop,
            known.latency_ms if ceiling is None else (ceiling or None),
        )


def run(wishes: Wishes, output: Format) -> int:
    """Take the checkpoint all the way; returns the exit code.

    Raises:
        BoardwrightError: a stage was refused or something is away; the message says why and what to do.
    """
    data = wishes.data.expanduser().resolve()
    own = _own_subject(wishes, wishes.checkpoint) if wishes.checkpoint is not None else None
    stages = Stages(12 if own is None or own.evaluation is not None else 11, output)
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_ended_by_signals())
        # Training needs none of the services: it begins first, and they start meanwhile.
        training = Training(data / "demo" / "digits") if own is None else None
        if training is not None:
            cleanup.callback(training.stop)
        endpoints, started_here = _start(data, stages)
        if started_here and not wishes.keep_running:
            cleanup.callback(stack.down, data)
        subject = _read(own, training, stages)
        rows, device, refused = _travel(wishes, output, subject, stages, endpoints, data)
    _last_words(wishes, output, stages, subject, rows, device, refused)
    return 0


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let what was started here be stopped, too, when a terminal is closed or CI ends the run."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(_SIGNALLED + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _own_subject(wishes: Wishes, checkpoint: Path) -> Subject:
    subject = own_subject(
        checkpoint,
        wishes.dataset,
        wishes.evaluation,
        model=wishes.model,
        module=wishes.module,
        input_spec=wishes.input_spec,
        output_spec=wishes.output_spec,
    )
    check_checkpoint(
        checkpoint, module=wishes.module, input_spec=wishes.input_spec, output_spec=wishes.output_spec
    )
    return subject


def _read(own: Subject | None, training: Training | None, stages: Stages) -> Subject:
    if own is not None:
        with stages.stage("read") as stage:
            stage.done(str(own.checkpoint))
        return own
    with stages.stage("train") as stage:
        if training is None:
            raise ValueError("there is neither a checkpoint nor a training")
        subject = training.finish(stage.progress)
        top1 = 100 * subject.metrics["top1"]
        stage.done(f"a small network on 1097 digits, top-1 {top1:.1f} %", reused=training.reused)
    return subject


def _start(data: Path, stages: Stages) -> tuple[stack.Endpoints, bool]:
    with stages.stage("start") as stage:
        running = stack.read_endpoints(data)
        if running is not None:
            stage.done(f"the services of {data}", reused=True)
            return running, False
        try:
            endpoints = stack.up(data, detach=True, on_progress=stage.progress)
        except (StartFailed, OSError) as error:
            raise Unavailable("STACK_NOT_STARTED", str(error)) from error
        processes = len(stack.status(data).processes)
        stage.done(f"{processes} processes on this machine, data in {data}")
    return endpoints, True


def _travel(
    wishes: Wishes,
    output: Format,
    subject: Subject,
    stages: Stages,
    endpoints: stack.Endpoints,
    data: Path,
) -> tuple[list[ReportRow], delivery_pb2.Device, dict[str, str]]:
    from boardwright.client import Client

    with Client(endpoints.grpc, endpoints.token) as client:
        here = client.boards.here()
        if here is None:
            raise FailedPrecondition(
                "BOARD_UNKNOWN",
                "this machine is in no entry of the board catalogue; add one (see the builder's README)",
            )
        host = here.name.removeprefix("boards/")
        if wishes.board:
            client.boards.get(wishes.board)  # a slip of the pen is told before anything is pushed
        chain = Chain(client, stages, subject, host, wishes.board, wishes.sample_limit)
        version = chain.push()
        datasets = chain.datasets()
        small = chain.compile(version, datasets)
        built = chain.build(version, small, datasets.get("evaluation", datasets["calibration"]))
        chain.measure(built)
        release = chain.release(built, version)
        task = client.models.get(subject.model).task
        bounds = wishes.bounds
        if subject.evaluation is None:
            bounds = Bounds(None, bounds.latency_ms)
        try:
            chain.promote(release, task, bounds, built)
        except FailedPrecondition:
            if output is Format.TABLE:
                print_report(collect(client, version.name))  # the figures that the gate refused
            raise
        folder = data / "demo" / f"{subject.model}-device"
        agent = DeviceAgent(folder, data / "logs" / f"{subject.model}-device.log")
        device = chain.roll_out(release, agent, endpoints.url)
        return collect(client, version.name), device, built.refused


def _last_words(
    wishes: Wishes,
    output: Format,
    stages: Stages,
    subject: Subject,
    rows: list[ReportRow],
    device: delivery_pb2.Device,
    refused: dict[str, str],
) -> None:
    if output is Format.JSON:
        print_json(
            {
                "stages": stages.ended,
                "seconds": round(stages.seconds, 1),
                "report": [row.to_document() for row in rows],
                "device": {"name": device.name, "release": device.release, "slot": device.slot},
                "refused_boards": refused,
            }
        )
        return
    sys.stdout.write("\n")
    print_report(rows)
    for board, why in refused.items():
        say(f"Not built for {board}: {why}")
    reused = sum(bool(stage["reused"]) for stage in stages.ended)
    again = f"; {reused} of {len(stages.ended)} stages were done before" if reused else ""
    say(f"Done in {stages.seconds:.0f} s{again}.")
    command = _command(wishes.data)
    start = "" if wishes.keep_running else f"\n  {command} up --detach              # the services again"
    say(
        f"Where to look next:{start}\n"
        f"  {command} show {subject.model}@{STAGE}\n"
        f"  {command} lineage {subject.model}@{STAGE}\n"
        f"  {command} history {subject.model}\n"
        f"  {command} device show {subject.model}-fleet/device-1"
    )


def _command(data: Path) -> str:
    """How to call the command for this data folder, from where this one was called."""
    from boardwright.client.credentials import data_folder

    called = sys.argv[0] if Path(sys.argv[0]).name == "boardwright" else "boardwright"
    return called if data_folder().resolve() == data.resolve() else f"{called} --data {data}"
