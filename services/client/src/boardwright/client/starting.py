"""Starting jobs: compile, build, measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.types.v1 import types_pb2
from boardwright.client.catalogue import read_recipe
from boardwright.client.connection import continue_trace
from boardwright.client.project import Project


class Starting(Project):
    """Each of these starts a job and returns at once; `jobs.wait` waits for it."""

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
        if name:
            request.recipe_name = name
        else:
            request.recipe_yaml = text
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
