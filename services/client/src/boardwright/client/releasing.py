"""What release managers do: release, promote, roll back."""

from __future__ import annotations

from collections.abc import Iterable

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.client import references
from boardwright.client.connection import continue_trace
from boardwright.client.project import Project


class Releasing(Project):
    """Releases and the stages that hold them."""

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
