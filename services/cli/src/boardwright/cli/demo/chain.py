"""The stages, one after the other, through the SDK alone.

Each looks first whether its result is there: the same checkpoint under the same specs is the version that was
pushed before, the same images the dataset that was sealed before, the same steps come from the cache.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.cli.commands.releasing import replace_gates
from boardwright.cli.demo.device import DeviceAgent
from boardwright.cli.demo.stages import Stage, Stages
from boardwright.cli.demo.subject import Samples, Subject
from boardwright.rpc.errors import AlreadyExists, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from boardwright.api.calibration.v1 import calibration_pb2
    from boardwright.api.delivery.v1 import delivery_pb2
    from boardwright.api.jobs.v1 import jobs_pb2
    from boardwright.api.registry.v1 import registry_pb2 as pb
    from boardwright.client import Client
    from boardwright.client.pushing import Checkpoint

STAGE = "production"
DEVICE = "device-1"
BASELINE = "baseline"
_ACCURACY = {"classification": "top1", "detection": "map50_95"}
_ROLLOUT_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the gates of the stage allow; None for no such gate."""

    accuracy_drop_points: float | None
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class Built:
    """Artifacts by variant and board, and why a board got none."""

    artifacts: dict[tuple[str, str], str]
    refused: dict[str, str]


@dataclass
class Chain:
    """One way from a checkpoint to a device."""

    client: Client
    stages: Stages
    subject: Subject
    host: str
    other_board: str
    sample_limit: int

    def push(self) -> pb.ModelVersion:
        """The checkpoint as a version."""
        from boardwright.client.pushing import read_checkpoint

        subject = self.subject
        with self.stages.stage("push") as stage:
            checkpoint = read_checkpoint(
                subject.checkpoint,
                module=subject.module,
                input_spec=subject.input_spec,
                output_spec=subject.output_spec,
            )
            version = self._pushed_before(checkpoint)
            reused = version is not None
            if version is None:
                version = self.client.push(
                    subject.model,
                    subject.checkpoint,
                    module=subject.module,
                    input_spec=subject.input_spec,
                    output_spec=subject.output_spec,
                    task=subject.task,
                    metrics=subject.metrics,
                    progress=stage.progress,
                )
            size = sum(file.size_bytes for file in version.files)
            stage.done(f"{_short(version.name)}: {version.format}, {size / 1e6:.1f} MB", reused=reused)
        return version

    def _pushed_before(self, checkpoint: Checkpoint) -> pb.ModelVersion | None:
        from boardwright.content import digest_file

        digests = [str(digest_file(file.path)) for file in checkpoint.files]
        declared = (checkpoint.input_spec_json, checkpoint.output_spec_json)
        try:
            for version in self.client.models.versions(self.subject.model, limit=20):
                specs = (version.input_spec_json, version.output_spec_json)
                same = all(not mine or mine == theirs for mine, theirs in zip(declared, specs, strict=True))
                if [file.digest for file in version.files] == digests and same:
                    return version
        except NotFound:
            return None
        return None

    def datasets(self) -> dict[str, str]:
        """Sealed datasets by role."""
        roles = {"calibration": self.subject.calibration, "evaluation": self.subject.evaluation}
        sealed = {}
        for role, samples in roles.items():
            if samples is None:
                continue
            with self.stages.stage(role) as stage:
                begun = time.time()
                version = self._seal(f"{self.subject.model}-{role}", samples, stage)
                classes = f", {len(version.classes)} classes" if version.classes else ", unlabelled"
                stage.done(
                    f"{_short(version.name)}: {version.sample_count} images{classes}",
                    reused=version.seal_time.ToNanoseconds() / 1e9 < begun - 1,
                )
            sealed[role] = version.name
        return sealed

    def _seal(self, name: str, samples: Samples, stage: Stage) -> calibration_pb2.DatasetVersion:
        return self.client.datasets.add(
            name,
            samples.path,
            split=samples.split,
            limit=self.sample_limit,
            choose=samples.choose,
            reuse=True,
            progress=stage.progress,
        )

    @property
    def _boards(self) -> list[str]:
        return list(dict.fromkeys(board for board in (self.host, self.other_board) if board))

    def compile(self, version: pb.ModelVersion, datasets: dict[str, str]) -> dict[str, str]:
        """For each board the INT8 variant that its kernels like."""
        recipe = "default" if "evaluation" in datasets else "unlabelled"
        with self.stages.stage("compile") as stage:
            job = self.client.compile(version.name, recipe, datasets=datasets, boards=self._boards)
            job = self.client.jobs.wait(job.name, progress=stage.progress)
            made = [
                variant
                for variant in self.client.models.variants(version.name)
                if variant.name in job.results
            ]
            names = ", ".join(sorted(variant.name.rpartition("/")[2] for variant in made))
            stage.done(f"{names} by recipe {recipe}; {_steps([job])}", reused=_all_cached([job]))
        profiles = {board: self.client.boards.get(board).quantization_profile.name for board in self._boards}
        return {
            board: next(variant.name for variant in made if variant.quantization_profile == profile)
            for board, profile in profiles.items()
        }

    def build(self, version: pb.ModelVersion, small: dict[str, str], golden: str) -> Built:
        """Baseline and INT8 for this machine, INT8 for the other board."""
        wanted = [(f"{version.name}/variants/{BASELINE}", self.host)]
        wanted += [(small[board], board) for board in self._boards]
        artifacts, refused, jobs = {}, {}, []
        with self.stages.stage("build") as stage:
            started = []
            for variant, board in wanted:
                try:
                    job = self.client.build(variant, board, golden_dataset=golden)
                    started.append((variant, board, job))
                except FailedPrecondition as error:
                    if board == self.host:
                        raise
                    refused[board] = error.message
            for variant, board, job in started:
                ended = self.client.jobs.wait(job.name, progress=stage.progress)
                artifacts[variant, board] = next(name for name in ended.results if "/artifacts/" in name)
                jobs.append(ended)
            told = ", ".join(f"{variant.rpartition('/')[2]} for {board}" for variant, board in artifacts)
            stage.done(f"{told}; {_steps(jobs)}", reused=_all_cached(jobs))
        return Built(artifacts, refused)

    def measure(self, built: Built) -> None:
        """This machine's artifacts, side by side."""
        with self.stages.stage("measure") as stage:
            here = self._here(built)
            job = self._measured(here, stage)
            warnings = [warning for step in job.steps for warning in step.warnings]
            told = f"{len(here)} artifacts on {self.host}; {_steps([job])}"
            stage.done(told, reused=_all_cached([job]), notes=warnings)

    def _here(self, built: Built) -> list[str]:
        return [name for (_, board), name in built.artifacts.items() if board == self.host]

    def _measured(self, artifacts: list[str], stage: Stage, *, again: bool = False) -> jobs_pb2.Job:
        job = self.client.measure(artifacts, again=again)
        return self.client.jobs.wait(job.name, progress=stage.progress)

    def release(self, built: Built, version: pb.ModelVersion) -> pb.Release:
        """One INT8 artifact for each board."""
        chosen = sorted(
            name for (variant, _), name in built.artifacts.items() if not variant.endswith("/" + BASELINE)
        )
        with self.stages.stage("release") as stage:
            found = next(
                (
                    release
                    for release in self.client.models.releases(self.subject.model, limit=20)
                    if sorted(entry.artifact for entry in release.entries) == chosen
                ),
                None,
            )
            made = found or self.client.release(self.subject.model, chosen)
            boards = ", ".join(sorted(entry.pin.board for entry in made.entries))
            stage.done(
                f"{_short(made.name)} of {_short(version.name)} for {boards}", reused=found is not None
            )
        return made

    def promote(self, release: pb.Release, task: str, bounds: Bounds, built: Built) -> None:
        """Through the gates of the stage.

        A latency that is refused is measured once more: it may be of a moment when this machine was busy, and
        the cache would hand it to every later run.
        """
        with self.stages.stage("promote") as stage:
            self._set_gates(task, bounds)
            held = self.client.models.stage(f"{self.subject.model}@{STAGE}")
            if held.release == release.name:
                stage.done(f"{_short(release.name)} is on {STAGE}", reused=True)
                return
            try:
                answer = self._promoted(release, held.etag)
            except FailedPrecondition as refusal:
                if refusal.metadata.get("gate") != "LatencyCeiling":
                    raise
                self._measured(self._here(built), stage, again=True)
                answer = self._promoted(release, held.etag)
            notes = [verdict.explanation for verdict in answer.verdicts]
            gates = f"{_count(len(notes), 'gate')} passed" if notes else "no gates"
            stage.done(f"{_short(release.name)} is on {STAGE}, {gates}", notes=notes)

    def _promoted(self, release: pb.Release, etag: str) -> pb.PromoteReleaseResponse:
        return self.client.promote(release.name, STAGE, reason="demonstration", etag=etag)

    def _set_gates(self, task: str, bounds: Bounds) -> None:
        from boardwright.api.registry.v1 import registry_pb2 as pb

        wanted: list[pb.Gate] = []
        if bounds.accuracy_drop_points is not None:
            drop = pb.AccuracyDrop(
                metric=_ACCURACY.get(task, "top1"), max_drop_points=bounds.accuracy_drop_points
            )
            wanted.append(pb.Gate(stage=STAGE, accuracy_drop=drop))
        if bounds.latency_ms is not None:
            ceiling = pb.LatencyCeiling(board=self.host, statistic="p95", max_ms=bounds.latency_ms, threads=1)
            wanted.append(pb.Gate(stage=STAGE, latency_ceiling=ceiling))
        present = [gate for gate in self.client.models.get(self.subject.model).gates if gate.stage == STAGE]
        if present != wanted:
            replace_gates(self.client, self.subject.model, STAGE, wanted)

    def roll_out(self, release: pb.Release, agent: DeviceAgent, server: str) -> delivery_pb2.Device:
        """To a fleet of one device, which downloads, verifies, installs, checks itself and reports.

        Raises:
            FailedPrecondition: DEVICE_NOT_HEALTHY, with what the device said.
        """
        fleet = f"{self.subject.model}-fleet"
        with self.stages.stage("enrol") as stage:
            reused = self._enrol(fleet, agent, server)
            stage.done(f"{fleet}/{DEVICE}, a process and folder of its own ({agent.home})", reused=reused)
        with self.stages.stage("roll out") as stage:
            started = self._start_rollout(fleet, release)
            with agent.running() as process:
                device = self._await_health(f"{fleet}/{DEVICE}", release, stage, process)
            if device is None:
                raise FailedPrecondition(
                    "DEVICE_NOT_HEALTHY",
                    f"{fleet}/{DEVICE} did not report that it runs {_short(release.name)}; "
                    f"its log says: {agent.last_words()}",
                )
            stage.done(
                f"{_short(release.name)} runs in slot {device.slot}: verified, checked, healthy",
                reused=not started,
            )
        return device

    def _enrol(self, fleet: str, agent: DeviceAgent, server: str) -> bool:
        try:
            made = self.client.fleets.create(fleet, self.subject.model, stage=STAGE)
            name = made.name
        except AlreadyExists:
            name = self.client.fleets.full_name(fleet)
        if agent.enrolled_fleet() == name:
            return True
        token = self.client.fleets.enrolment_token(fleet)
        agent.enrol(server, token.token, DEVICE, self.host)
        return False

    def _start_rollout(self, fleet: str, release: pb.Release) -> bool:
        """Whether a rollout had to be started."""
        from boardwright.api.delivery.v1 import delivery_pb2

        offered = self.client.fleets.get(fleet).offered_release
        for rollout in self.client.rollouts.list(limit=50):
            if rollout.fleet != self.client.fleets.full_name(fleet):
                continue
            if rollout.release == release.name and offered == release.name:
                return False
            if rollout.state in (delivery_pb2.Rollout.STATE_ACTIVE, delivery_pb2.Rollout.STATE_PAUSED):
                self.client.rollouts.cancel(rollout.name, "another release follows")
        self.client.rollouts.create(fleet, release.name, reason="demonstration")
        return True

    def _await_health(
        self, device: str, release: pb.Release, stage: Stage, process: subprocess.Popen[bytes]
    ) -> delivery_pb2.Device | None:
        """The device once it is healthy; None when it said nothing in time, or its process ended."""
        from boardwright.api.delivery.v1 import delivery_pb2

        begun = time.time()
        while time.time() - begun < _ROLLOUT_SECONDS and process.poll() is None:
            found = self.client.fleets.device(device)
            fresh = found.last_seen_time.ToNanoseconds() / 1e9 > begun - 1
            if fresh and found.state == delivery_pb2.Device.STATE_HEALTHY and found.release == release.name:
                return found
            if fresh and found.state == delivery_pb2.Device.STATE_FAILED:
                raise FailedPrecondition(
                    "DEVICE_NOT_HEALTHY",
                    f"{device} refused {_short(release.name)}: {found.refusal_message} "
                    f"[{found.refusal_reason}]",
                )
            stage.progress(0, 0, f"{device}: {found.refusal_message or 'downloading, verifying, installing'}")
            time.sleep(0.2)
        return None


def _steps(jobs: Iterable[jobs_pb2.Job]) -> str:
    steps = [step for job in jobs for step in job.steps]
    cached = sum(step.cached for step in steps)
    return _count(len(steps), "step") + (f", {cached} from the cache" if cached else "")


def _all_cached(jobs: Iterable[jobs_pb2.Job]) -> bool:
    return all(step.cached for job in jobs for step in job.steps)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(name: str) -> str:
    from boardwright.client.references import shorten

    return shorten(name)
