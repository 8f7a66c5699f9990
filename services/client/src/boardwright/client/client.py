"""Client: the verbs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2
from boardwright.client import references
from boardwright.client.catalogue import IMPORT_RECIPE, Boards, Recipes, read_recipe
from boardwright.client.connection import Connection, continue_trace
from boardwright.client.content import Content
from boardwright.client.credentials import find_credentials
from boardwright.client.datasets import Datasets
from boardwright.client.delivery import Fleets, Rollouts
from boardwright.client.jobs import Jobs
from boardwright.client.models import Models
from boardwright.client.optimizing import Optimizer, own_recipes, plan_candidates, wished_toolchains
from boardwright.client.progress import Progress, silent
from boardwright.client.provenance import detect_provenance
from boardwright.client.pushing import BUILDER_LABEL, SpecLike, read_checkpoint
from boardwright.rpc.errors import AlreadyExists, InvalidArgument, NotFound
from boardwright.selection import Attempt, Constraints, Selection


class Client:
    """A Boardwright server, seen from one project. May be used from several threads.

    Args:
        endpoint: `host:port`, or `https://host:port`; found by `find_credentials` when not given.
        token: likewise.
        project: id of the project that all names are in.
        data: the data folder of a stack on this machine, instead of looking for one.

    Every method raises `BoardwrightError` subclasses: `Unavailable` when the server is away,
    `Unauthenticated` and `PermissionDenied` for a bad token, and what its own docstring lists.

    Raises:
        CredentialsMissing: no server is configured, and none runs here.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        project: str = "default",
        *,
        data: str | Path | None = None,
    ) -> None:
        folder = Path(data) if data is not None else None
        self.project = project
        self._connection = Connection(find_credentials(endpoint, token, data=folder))
        self.content = Content(self._connection, project)
        self.models = Models(self._connection, project)
        self.datasets = Datasets(self._connection, self.content, project)
        self.jobs = Jobs(self._connection, self.content, project)
        self.fleets = Fleets(self._connection, project)
        self.rollouts = Rollouts(self._connection, project)
        self.boards = Boards(self._connection)
        self.recipes = Recipes(self._connection)

    @property
    def connection(self) -> Connection:
        """The channel and stubs, for RPCs that have no method here."""
        return self._connection

    def close(self) -> None:
        """Close all connections."""
        self.content.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def push(
        self,
        model: str,
        path: str | Path,
        *,
        input_spec: SpecLike | None = None,
        output_spec: SpecLike | None = None,
        classes: Iterable[str] = (),
        format: str | None = None,  # noqa: A002
        module: str | Path | None = None,
        task: str = "",
        commit: str | None = None,
        run: str | None = None,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        recipe: str | None = None,
        datasets: Mapping[str, str] | None = None,
        wait: bool = False,
        request_id: str = "",
        progress: Progress = silent,
    ) -> pb.ModelVersion:
        """Upload a checkpoint and record it as the model's next version; the model is created if need be.

        Args:
            model: the model's id.
            path: ONNX, a torch state dict, safetensors, TorchScript, or an Ultralytics `.pt`.
            input_spec: an `InputSpec`, its JSON object or a file with it; may be left out where the
                checkpoint tells (Ultralytics).
            output_spec: likewise an `OutputSpec`.
            classes: class names, completing the output spec.
            format: told by the file's content when not given.
            module: Python file that builds the network of a state dict, "net.py" or "net.py:function". It is
                imported in the step's process alone.
            task: "classification" or "detection"; needed only for a new model without output spec.
            commit, run: found in CI's variables and git when not given; "" for none.
            metrics: as the training reported them.
            labels: free key-value pairs to filter by.
            recipe, datasets: start this recipe on the new version (see `compile`).
            wait: wait for that job; without a recipe, import the checkpoint and wait, which tells whether it
                can be used at all.
            request_id: the same id again gives the same version, whatever happened in between.

        Raises:
            InvalidArgument: what is wrong with the file or a spec, and what to do.
            ResourceExhausted: STORE_FULL, BLOB_TOO_LARGE.
            JobFailed: with `wait`.
        """
        checkpoint = read_checkpoint(
            Path(path),
            format=format,
            module=module,
            input_spec=input_spec,
            output_spec=output_spec,
            labels=tuple(classes),
        )
        task = self._task_of(model, task or checkpoint.task)
        files = [
            self.content.upload(file.path, name=file.name, media_type=file.media_type, progress=progress)
            for file in checkpoint.files
        ]
        found = detect_provenance() if commit is None or run is None else None
        marks = dict(labels or {})
        if checkpoint.builder:
            marks[BUILDER_LABEL] = checkpoint.builder
        self._ensure_model(model, task)
        version: pb.ModelVersion = self._connection.registry.CreateModelVersion(
            pb.CreateModelVersionRequest(
                parent=references.model_name(self.project, model),
                version=pb.ModelVersion(
                    format=checkpoint.format,
                    files=files,
                    input_spec_json=checkpoint.input_spec_json,
                    output_spec_json=checkpoint.output_spec_json,
                    commit=commit if commit is not None else found.commit if found else "",
                    run=run if run is not None else found.run if found else "",
                    labels=marks,
                    metrics=dict(metrics or {}),
                    description=description,
                ),
                request_id=request_id,
            )
        )
        if recipe is not None or wait:
            job = self.compile(version.name, recipe or IMPORT_RECIPE, datasets=datasets)
            if wait:
                self.jobs.wait(job.name, progress=progress)
                return self.models.version(version.name)
        return version

    def compile(
        self,
        version: str,
        recipe: str | Path = "default",
        *,
        datasets: Mapping[str, str] | None = None,
        boards: Iterable[str] = (),
        validate_only: bool = False,
        retry_failed: bool = False,
        request_id: str = "",
    ) -> jobs_pb2.Job:
        """Start a recipe on a version; steps that ran before come from the cache.

        Args:
            version: digits@3, or a full name.
            recipe: the name of one that ships, a YAML file, or YAML text.
            datasets: sealed dataset versions by role: {"calibration": "faces", "evaluation": "faces-test@2"}.
            boards: whose quantization profiles the variants must serve.

        Raises:
            InvalidArgument: RECIPE_INVALID, with the line.
            NotFound: VERSION_NOT_FOUND, DATASET_NOT_FOUND.
            FailedPrecondition: DATASET_NOT_SEALED, DATASET_MISSING.
        """
        name, text = read_recipe(recipe)
        subject = self.models.version(version)
        request = compiler_pb2.CreateCompileJobRequest(
            parent=f"projects/{self.project}",
            version=subject.name,
            datasets={role: self.datasets.version(text).name for role, text in (datasets or {}).items()},
            boards=list(boards),
            request_id=request_id,
            validate_only=validate_only,
            retry_failed=retry_failed,
        )
        if text:
            request.recipe_yaml = text
        else:
            request.recipe_name = name
        with continue_trace(subject.traceparent):
            job: jobs_pb2.Job = self._connection.compiler.CreateCompileJob(request)
        return job

    def build(
        self,
        variant: str,
        board: str = "host",
        *,
        toolchain: str = "",
        golden_dataset: str = "",
        pin: types_pb2.HardwarePin | None = None,
        validate_only: bool = False,
        retry_failed: bool = False,
        request_id: str = "",
    ) -> jobs_pb2.Job:
        """Build a variant (digits@3/int8) for a board; "host" is the machine that the workers run on.

        Raises:
            NotFound: BOARD_NOT_FOUND, VARIANT_NOT_FOUND, DATASET_NOT_FOUND.
            FailedPrecondition: TOOLCHAIN_NEEDS_AGENT, PROFILE_MISMATCH.
        """
        golden = self.datasets.version(golden_dataset).name if golden_dataset else ""
        request = builder_pb2.CreateBuildJobRequest(
            parent=f"projects/{self.project}",
            variant=self.models.variant(variant).name,
            board=board,
            toolchain=toolchain,
            golden_dataset=golden,
            pin=pin,
            request_id=request_id,
            validate_only=validate_only,
            retry_failed=retry_failed,
        )
        with self._trace_of(request.variant):
            job: jobs_pb2.Job = self._connection.builder.CreateBuildJob(request)
        return job

    def measure(
        self,
        artifacts: Iterable[str],
        *,
        runs: int = 0,
        warm_up_runs: int = 0,
        again: bool = False,
        allow_emulated: bool = False,
        board: str = "",
        request_id: str = "",
    ) -> jobs_pb2.Job:
        """Measure artifacts of one board side by side.

        A variant (digits@3/int8) stands for its newest artifact of ``board``: by default this machine's, when
        the server knows it.

        Raises:
            NotFound: ARTIFACT_NOT_FOUND.
            FailedPrecondition: BOARD_NEEDS_AGENT.
        """
        if not board and (here := self.boards.here()) is not None:
            board = here.name.removeprefix("boards/")
        request = builder_pb2.CreateMeasureJobRequest(
            parent=f"projects/{self.project}",
            artifacts=self._artifact_names(artifacts, board),
            runs=runs,
            warm_up_runs=warm_up_runs,
            again=again,
            allow_emulated=allow_emulated,
            request_id=request_id,
        )
        with self._trace_of(*request.artifacts[:1]):
            job: jobs_pb2.Job = self._connection.builder.CreateMeasureJob(request)
        return job

    def optimize(
        self,
        version: str,
        constraints: Iterable[Constraints],
        *,
        boards: Iterable[str] = ("host",),
        datasets: Mapping[str, str] | None = None,
        recipes: Iterable[str | Path] = (),
        toolchains: Sequence[str] = (),
        exhaustive: bool = False,
        retry: bool = False,
        runs: int = 0,
        time_limit_seconds: float = math.inf,
        progress: Progress = silent,
        on_attempt: Callable[[Attempt], None] = lambda _: None,
    ) -> Selection:
        """Try recipes from cheap to dear until each set of constraints has its variant on each board.

        Each is compiled, built and, where the board is here, measured; the same call again takes all of it
        from the caches. A latency is a board's own or unknown.

        Args:
            version: digits@3, or a full name.
            constraints: one or more sets, each settled for itself.
            boards: catalogue names; "host" is the machine that the workers run on.
            datasets: sealed dataset versions by role; "evaluation" tells what is lost.
            recipes: try these (names or YAML files) instead of those that come with the compiler.
            toolchains: build by each of these ("all": every one that runs here) and keep the fastest;
                without any, by the board's first.
            exhaustive: try every recipe and choose the fastest that satisfies, not the cheapest to make.
            retry: run again what is known to fail.
            runs: of a measurement; 0 for the service's default.
            time_limit_seconds: no candidate goes on beyond it; what has finished stays in the caches.
            on_attempt: called with what came of each recipe, as soon as it is known.

        Raises:
            InvalidArgument: DATASET_MISSING, CONSTRAINTS_MISSING, RECIPE_INVALID, TOOLCHAIN_UNKNOWN.
            NotFound: VERSION_NOT_FOUND, BOARD_NOT_FOUND, DATASET_NOT_FOUND.
            JobFailed: the checkpoint itself cannot be imported or evaluated.
        """
        asked = list(dict.fromkeys(constraints))
        roles = {role: self.datasets.version(text).name for role, text in (datasets or {}).items()}
        if not asked:
            raise InvalidArgument(
                "CONSTRAINTS_MISSING", "say what the variant must keep to, at least one bound"
            )
        if "evaluation" not in roles:
            raise InvalidArgument(
                "DATASET_MISSING",
                "candidates are judged on a labelled dataset: name it (--evaluation DATASET)",
            )
        subject = self.models.version(version)
        found = {board.name: board for board in map(self.boards.get, boards)}
        # A variant that keeps to the strictest set keeps to all.
        drops = [held.max_drop_points for held in asked if held.max_drop_points is not None]
        strictest = min(drops, default=None)
        plans = plan_candidates(self.recipes.list(), own_recipes(self, recipes), roles, strictest)
        optimizer = Optimizer(
            self,
            subject,
            list(found.values()),
            roles,
            toolchains=wished_toolchains(self, found.values(), toolchains),
            runs=runs,
            retry=retry,
            time_limit_seconds=time_limit_seconds,
            progress=progress,
        )
        return optimizer.run(plans, asked, exhaustive=exhaustive, on_attempt=on_attempt)

    def _trace_of(self, *below: str) -> AbstractContextManager[None]:
        """Continue the trace of the version that something of this name lies below."""
        names = [name.partition("/variants/")[0] for name in below]
        return continue_trace(self.models.version(names[0]).traceparent if names else "")

    def _artifact_names(self, named: Iterable[str], board: str = "") -> list[str]:
        return [
            artifact.name
            for reference in named
            for artifact in self.models.newest_artifacts(reference, board=board)
        ]

    def release(
        self, model: str, artifacts: Iterable[str], *, description: str = "", request_id: str = ""
    ) -> pb.Release:
        """Make an immutable release of artifacts of one version, at most one per HardwarePin.

        A variant (digits@3/int8) stands for its newest artifact of each pin.

        Raises:
            NotFound: ARTIFACT_NOT_FOUND.
            InvalidArgument: PIN_TWICE, ARTIFACT_OF_OTHER_VERSION.
        """
        request = pb.CreateReleaseRequest(
            parent=references.model_name(self.project, model),
            artifacts=self._artifact_names(artifacts),
            description=description,
            request_id=request_id,
        )
        with self._trace_of(*request.artifacts[:1]):
            release: pb.Release = self._connection.registry.CreateRelease(request)
        return release

    def promote(
        self,
        release: str,
        stage: str,
        *,
        reason: str = "",
        etag: str = "",
        validate_only: bool = False,
        request_id: str = "",
    ) -> pb.PromoteReleaseResponse:
        """Judge a release by a stage's gates and, if all pass, put it there.

        Without `etag` the stage is taken as it stands now.

        Raises:
            FailedPrecondition: GATE_REFUSED, saying which gate, the figure and the bound.
            Aborted: ETAG_MISMATCH, somebody else changed the stage.
            NotFound: RELEASE_NOT_FOUND, STAGE_NOT_FOUND.
        """
        found = self.models.release(release)
        stage_name = f"{references.model_name(self.project, found.name)}/stages/{stage}"
        request = pb.PromoteReleaseRequest(
            name=found.name,
            stage=stage_name,
            reason=reason,
            etag=etag or self.models.stage(stage_name).etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        with continue_trace(found.traceparent):
            promoted: pb.PromoteReleaseResponse = self._connection.registry.PromoteRelease(request)
        return promoted

    def roll_back(
        self, model: str, stage: str, *, reason: str = "", etag: str = "", validate_only: bool = False
    ) -> pb.PromoteReleaseResponse:
        """Put the release that the stage held before back on it.

        Raises:
            FailedPrecondition: NOTHING_TO_ROLL_BACK.
            Aborted: ETAG_MISMATCH.
            NotFound: STAGE_NOT_FOUND.
        """
        name = f"{references.model_name(self.project, model)}/stages/{stage}"
        answer: pb.PromoteReleaseResponse = self._connection.registry.RollBackStage(
            pb.RollBackStageRequest(
                name=name,
                reason=reason,
                etag=etag or self.models.stage(name).etag,
                validate_only=validate_only,
            )
        )
        return answer

    def _task_of(self, model: str, task: str) -> str:
        """The task to create the model with, "" where it is there; found out before anything is uploaded."""
        try:
            self.models.get(model)
        except NotFound as error:
            if not task:
                raise InvalidArgument(
                    "TASK_NEEDED",
                    f"{model} is a new model: say what it does (--task classification or --task detection), "
                    "or declare its output spec",
                ) from error
            return task
        return ""

    def _ensure_model(self, model: str, task: str) -> None:
        if not task:
            return
        try:
            self.models.create(model, task=task)
        except AlreadyExists as error:
            if error.reason != "MODEL_EXISTS":
                raise
