"""The Registry over gRPC: messages in, service calls, messages out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc as pb_grpc
from boardwright.database.requests import fingerprint
from boardwright.registry import names
from boardwright.registry.domain.lineage import Direction
from boardwright.registry.domain.resources import Measurement, ModelKey, Pin
from boardwright.registry.errors import field_invalid
from boardwright.registry.lineage_service import LineageService, StepRecord
from boardwright.registry.models_service import ModelsService
from boardwright.registry.ports import Page
from boardwright.registry.recording import Call
from boardwright.registry.releases_service import Intent, Outcome, ReleasesService
from boardwright.registry.rpc import convert
from boardwright.registry.rpc.permissions import PERMISSIONS
from boardwright.registry.variants_service import VariantsService
from boardwright.registry.versions_service import VersionsService
from boardwright.rpc.auth import current_principal
from boardwright.rpc.names import NameTemplate
from boardwright.telemetry import current_traceparent

_DIRECTIONS: dict[int, tuple[Direction, ...]] = {
    pb.GetLineageRequest.DIRECTION_UNSPECIFIED: ("ancestors", "descendants"),
    pb.GetLineageRequest.DIRECTION_ANCESTORS: ("ancestors",),
    pb.GetLineageRequest.DIRECTION_DESCENDANTS: ("descendants",),
}


class RegistryServicer(pb_grpc.RegistryServicer):
    """See `registry.proto` for what each method returns and which errors it gives."""

    def __init__(
        self,
        models: ModelsService,
        versions: VersionsService,
        variants: VariantsService,
        releases: ReleasesService,
        lineage: LineageService,
    ) -> None:
        self._models = models
        self._versions = versions
        self._variants = variants
        self._releases = releases
        self._lineage = lineage

    # Models and stages

    async def CreateModel(self, request: pb.CreateModelRequest, context: Any) -> pb.Model:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        new = convert.from_model(ModelKey(project, request.model_id), request.model)
        return convert.to_model(await self._models.create(_call("CreateModel", request), new))

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.Model:
        return convert.to_model(await self._models.get(names.key_of(request.name)))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        found, token = await self._models.page(project, _page(request))
        return pb.ListModelsResponse(models=map(convert.to_model, found), next_page_token=token)

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Any) -> pb.Model:
        new = convert.from_model(names.key_of(request.model.name, "model.name"), request.model)
        call = _call("UpdateModel", request)
        return convert.to_model(
            await self._models.update(call, new, request.model.etag, request.update_fields)
        )

    async def GetStage(self, request: pb.GetStageRequest, context: Any) -> pb.Stage:
        key, stage = _below_model(names.STAGE, request.name)
        return convert.to_stage(await self._models.get_stage(key, stage))

    async def ListStages(self, request: pb.ListStagesRequest, context: Any) -> pb.ListStagesResponse:
        found = await self._models.list_stages(names.key_of(request.parent, "parent"))
        return pb.ListStagesResponse(stages=map(convert.to_stage, found))

    # Versions and aliases

    async def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, context: Any
    ) -> pb.ModelVersion:
        new = convert.from_version(names.key_of(request.parent, "parent"), request.version)
        call = _call("CreateModelVersion", request, request.version.traceparent)
        return convert.to_version(await self._versions.create(call, new))

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Any) -> pb.ModelVersion:
        key, reference = _below_model(names.VERSION_OR_ALIAS, request.name)
        return convert.to_version(await self._versions.get(key, reference))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Any
    ) -> pb.ListModelVersionsResponse:
        found, token = await self._versions.page(names.key_of(request.parent, "parent"), _page(request))
        return pb.ListModelVersionsResponse(versions=map(convert.to_version, found), next_page_token=token)

    async def FixSpecs(self, request: pb.FixSpecsRequest, context: Any) -> pb.ModelVersion:
        key, number = _version(request.name)
        return convert.to_version(
            await self._versions.fix_specs(
                _call("FixSpecs", request), key, number, request.input_spec_json, request.output_spec_json
            )
        )

    async def SetAlias(self, request: pb.SetAliasRequest, context: Any) -> pb.Alias:
        key, alias = _below_model(names.ALIAS, request.alias.name, "alias.name")
        version_key, number = _version(request.alias.version, "alias.version")
        if version_key != key:
            raise field_invalid("alias.version", "must be a version of the alias's own model")
        call = _call("SetAlias", request)
        return convert.to_alias(await self._versions.set_alias(call, key, alias, number, request.alias.etag))

    async def GetAlias(self, request: pb.GetAliasRequest, context: Any) -> pb.Alias:
        return convert.to_alias(await self._versions.get_alias(*_below_model(names.ALIAS, request.name)))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Any) -> pb.ListAliasesResponse:
        page = Page(request.page_size, request.page_token)
        found, token = await self._versions.list_aliases(names.key_of(request.parent, "parent"), page)
        return pb.ListAliasesResponse(aliases=map(convert.to_alias, found), next_page_token=token)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Any) -> pb.Alias:
        key, alias = _below_model(names.ALIAS, request.name)
        call = _call("DeleteAlias", request)
        return convert.to_alias(await self._versions.delete_alias(call, key, alias, request.etag))

    # Variants, artifacts, measurements

    async def CreateVariant(self, request: pb.CreateVariantRequest, context: Any) -> pb.Variant:
        key, number = _version(request.parent, "parent")
        new = convert.from_variant(key, number, request.variant_id, request.variant)
        return convert.to_variant(await self._variants.create_variant(_call("CreateVariant", request), new))

    async def GetVariant(self, request: pb.GetVariantRequest, context: Any) -> pb.Variant:
        return convert.to_variant(await self._variants.get_variant(*_variant(request.name)))

    async def ListVariants(self, request: pb.ListVariantsRequest, context: Any) -> pb.ListVariantsResponse:
        key, number = _version(request.parent, "parent")
        found, token = await self._variants.list_variants(key, number, _page(request))
        return pb.ListVariantsResponse(variants=map(convert.to_variant, found), next_page_token=token)

    async def CreateArtifact(self, request: pb.CreateArtifactRequest, context: Any) -> pb.Artifact:
        new = convert.from_artifact(*_variant(request.parent, "parent"), request.artifact)
        return convert.to_artifact(
            await self._variants.create_artifact(_call("CreateArtifact", request), new)
        )

    async def GetArtifact(self, request: pb.GetArtifactRequest, context: Any) -> pb.Artifact:
        return convert.to_artifact(await self._variants.get_artifact(*_artifact(request.name)))

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Any) -> pb.ListArtifactsResponse:
        every = names.ANY_VARIANT.match(request.parent)
        if every is not None:
            key, number, variant = ModelKey(every[0], every[1]), int(every[2]), ""
        else:
            key, number, variant = _variant(request.parent, "parent")
        found, token = await self._variants.list_artifacts(key, number, variant, _page(request))
        return pb.ListArtifactsResponse(artifacts=map(convert.to_artifact, found), next_page_token=token)

    async def CreateMeasurement(self, request: pb.CreateMeasurementRequest, context: Any) -> pb.Measurement:
        key, number, variant, artifact = _measured(request.parent)
        if not variant:
            raise field_invalid("parent", "must be a variant or an artifact")
        new = convert.from_measurement(key, number, variant, artifact, request.measurement)
        call = _call("CreateMeasurement", request)
        return convert.to_measurement(await self._variants.create_measurement(call, new))

    async def GetMeasurement(self, request: pb.GetMeasurementRequest, context: Any) -> pb.Measurement:
        return convert.to_measurement(await self._variants.get_measurement(_measurement(request.name)))

    async def ListMeasurements(
        self, request: pb.ListMeasurementsRequest, context: Any
    ) -> pb.ListMeasurementsResponse:
        found, token = await self._variants.list_measurements(*_measured(request.parent), _page(request))
        return pb.ListMeasurementsResponse(
            measurements=map(convert.to_measurement, found), next_page_token=token
        )

    # Releases and promotions

    async def CreateRelease(self, request: pb.CreateReleaseRequest, context: Any) -> pb.Release:
        key = names.key_of(request.parent, "parent")
        artifacts = []
        for name in request.artifacts:
            owner, number, variant, artifact = _artifact(name, "artifacts")
            if owner != key:
                raise field_invalid("artifacts", f"{name} belongs to another model")
            artifacts.append((number, variant, artifact))
        call = _call("CreateRelease", request)
        return convert.to_release(await self._releases.create(call, key, artifacts, request.description))

    async def GetRelease(self, request: pb.GetReleaseRequest, context: Any) -> pb.Release:
        return convert.to_release(
            await self._releases.get(*_below_model(names.RELEASE_OR_STAGE, request.name))
        )

    async def ListReleases(self, request: pb.ListReleasesRequest, context: Any) -> pb.ListReleasesResponse:
        found, token = await self._releases.page(names.key_of(request.parent, "parent"), _page(request))
        return pb.ListReleasesResponse(releases=map(convert.to_release, found), next_page_token=token)

    async def PromoteRelease(
        self, request: pb.PromoteReleaseRequest, context: Any
    ) -> pb.PromoteReleaseResponse:
        key, number = _below_model(names.RELEASE, request.name)
        stage_key, stage = _below_model(names.STAGE, request.stage, "stage")
        if stage_key != key:
            raise field_invalid("stage", "must be a stage of the release's own model")
        intent = Intent(request.reason, request.etag, request.validate_only)
        call = _call("PromoteRelease", request)
        return _outcome(await self._releases.promote(call, key, int(number), stage, intent))

    async def RollBackStage(
        self, request: pb.RollBackStageRequest, context: Any
    ) -> pb.PromoteReleaseResponse:
        key, stage = _below_model(names.STAGE, request.name)
        intent = Intent(request.reason, request.etag, request.validate_only)
        return _outcome(await self._releases.roll_back(_call("RollBackStage", request), key, stage, intent))

    async def ListPromotions(
        self, request: pb.ListPromotionsRequest, context: Any
    ) -> pb.ListPromotionsResponse:
        key = names.key_of(request.parent, "parent")
        found, token = await self._releases.list_promotions(key, _page(request))
        return pb.ListPromotionsResponse(promotions=map(convert.to_promotion, found), next_page_token=token)

    # Lineage, audit, events

    async def GetLineage(self, request: pb.GetLineageRequest, context: Any) -> pb.Lineage:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        directions = _DIRECTIONS.get(request.direction, ("ancestors", "descendants"))
        graph, steps = await self._lineage.get(project, request.id, directions, request.depth)
        edges = [pb.Lineage.Edge(from_id=e.from_id, to_id=e.to_id, role=e.role) for e in graph.edges]
        return pb.Lineage(nodes=convert.to_nodes(graph.nodes, steps), edges=edges, truncated=graph.truncated)

    async def RecordStep(self, request: pb.RecordStepRequest, context: Any) -> pb.RecordStepResponse:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        step = StepRecord(request.record_digest, request.kind, dict(request.inputs), dict(request.outputs))
        await self._lineage.record_step(_call("RecordStep", request), project, step)
        return pb.RecordStepResponse()

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Any
    ) -> pb.ListAuditEventsResponse:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        found, token = await self._lineage.list_audit_events(project, _page(request))
        return pb.ListAuditEventsResponse(events=map(convert.to_audit_event, found), next_page_token=token)

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.Event]:
        (project,) = names.PROJECT.parse(request.parent, "parent")
        audits = current_principal().may(PERMISSIONS["ListAuditEvents"], project)
        async for event in self._lineage.watch(project, request.cursor):
            yield pb.Event(
                cursor=event.cursor,
                type=event.kind,
                subject=event.subject,
                actor=event.payload.get("actor", "") if audits else "",
                create_time=convert.timestamp(event.created_us),
                data_json=json.dumps(event.payload.get("data"), ensure_ascii=False),
            )


def _call(method: str, request: Any, traceparent: str = "") -> Call:
    """What the services need to know of the RPC itself."""
    principal = current_principal()
    request_id = getattr(request, "request_id", "")
    mark = fingerprint(request.SerializeToString(deterministic=True)) if request_id else ""
    return Call(
        principal.actor,
        method,
        principal.service,
        request_id,
        mark,
        traceparent or current_traceparent(),
    )


def _page(request: Any) -> Page:
    return Page(request.page_size, request.page_token, request.filter)


def _below_model(template: NameTemplate, name: str, field: str = "name") -> tuple[ModelKey, str]:
    project, model, last = template.parse(name, field)
    return ModelKey(project, model), last


def _version(name: str, field: str = "name") -> tuple[ModelKey, int]:
    key, number = _below_model(names.VERSION, name, field)
    return key, int(number)


def _variant(name: str, field: str = "name") -> tuple[ModelKey, int, str]:
    project, model, number, variant = names.VARIANT.parse(name, field)
    return ModelKey(project, model), int(number), variant


def _artifact(name: str, field: str = "name") -> tuple[ModelKey, int, str, str]:
    project, model, number, variant, artifact = names.ARTIFACT.parse(name, field)
    return ModelKey(project, model), int(number), variant, artifact


def _measured(name: str) -> tuple[ModelKey, int, str, str]:
    """A version, a variant or an artifact; what the name does not reach is ""."""
    if names.ARTIFACT.match(name):
        return _artifact(name)
    if names.VARIANT.match(name):
        return (*_variant(name), "")
    return (*_version(name, "parent"), "", "")


def _measurement(name: str) -> Measurement:
    """The key fields of a measurement's name."""
    below = names.ARTIFACT_MEASUREMENT.match(name)
    if below is None:
        project, model, number, variant, figure = names.VARIANT_MEASUREMENT.parse(name)
        artifact = ""
    else:
        project, model, number, variant, artifact, figure = below
    return Measurement(
        ModelKey(project, model), int(number), variant, artifact, figure, "", {}, "measured", "", Pin(), 0,
        "", "", "", "", 0,
    )  # fmt: skip


def _outcome(outcome: Outcome) -> pb.PromoteReleaseResponse:
    return pb.PromoteReleaseResponse(
        stage=convert.to_stage(outcome.stage),
        promotion=convert.to_promotion(outcome.promotion) if outcome.promotion else None,
        verdicts=[convert.to_verdict(v) for v in outcome.verdicts],
        passed=outcome.passed,
    )
