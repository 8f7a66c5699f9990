"""Which RPC answers which path.

A template is the resource's own name below `/v1/`, with one `{…}` per variable segment, as the proto comments
write them. The name (or the parent, before a list's last segment) goes into the request field that `field`
names; a POST's JSON body or a GET's query string fills the other fields of the request message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VARIABLE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table.

    Attributes:
        http_method: "GET", "POST", "PATCH", "PUT" or "DELETE".
        template: what stands behind `/v1/`.
        rpc: "Service.Method".
        field: the request's field that gets the name in the path, "" for none; "alias.name" for a nested one.
        keeps_last: whether the path's last segment is part of that name (else it names a collection).
    """

    http_method: str
    template: str
    rpc: str
    field: str
    keeps_last: bool

    @property
    def path(self) -> str:
        """The path as the web framework takes it."""
        return "/v1/" + self.template

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variable segments."""
        return tuple(_VARIABLE.findall(self.template))

    def resource_name(self, values: dict[str, str]) -> str:
        """The resource name that a path with these segments speaks of."""
        template = self.template.partition(":")[0]
        if not self.keeps_last:
            template = template.rpartition("/")[0]
        return _VARIABLE.sub(lambda match: values[match[1]], template)


def _get(template: str, rpc: str, field: str = "name") -> Route:
    return Route("GET", template, rpc, field, keeps_last=True)


def _list(template: str, rpc: str, field: str = "parent") -> Route:
    return Route("GET", template, rpc, field, keeps_last=False)


def _create(template: str, rpc: str, field: str = "parent") -> Route:
    return Route("POST", template, rpc, field, keeps_last=False)


def _act(template: str, rpc: str, field: str = "name") -> Route:
    return Route("POST", template, rpc, field, keeps_last=True)


_P = "projects/{project}"
_M = _P + "/models/{model}"
_V = _M + "/versions/{version}"
_T = _V + "/variants/{variant}"
_A = _T + "/artifacts/{artifact}"
_D = _P + "/datasets/{dataset}"
_DV = _D + "/versions/{version}"
_F = _P + "/fleets/{fleet}"

REGISTRY = (
    _list(_P + "/models", "Registry.ListModels"),
    _create(_P + "/models", "Registry.CreateModel"),
    _get(_M, "Registry.GetModel"),
    Route("PATCH", _M, "Registry.UpdateModel", "model.name", keeps_last=True),
    _list(_M + "/versions", "Registry.ListModelVersions"),
    _create(_M + "/versions", "Registry.CreateModelVersion"),
    _get(_V, "Registry.GetModelVersion"),
    _act(_V + ":fixSpecs", "Registry.FixSpecs"),
    _list(_M + "/aliases", "Registry.ListAliases"),
    _get(_M + "/aliases/{alias}", "Registry.GetAlias"),
    Route("PUT", _M + "/aliases/{alias}", "Registry.SetAlias", "alias.name", keeps_last=True),
    Route("DELETE", _M + "/aliases/{alias}", "Registry.DeleteAlias", "name", keeps_last=True),
    _list(_V + "/variants", "Registry.ListVariants"),
    _create(_V + "/variants", "Registry.CreateVariant"),
    _get(_T, "Registry.GetVariant"),
    _list(_T + "/artifacts", "Registry.ListArtifacts"),
    _create(_T + "/artifacts", "Registry.CreateArtifact"),
    _get(_A, "Registry.GetArtifact"),
    _list(_V + "/measurements", "Registry.ListMeasurements"),
    _list(_T + "/measurements", "Registry.ListMeasurements"),
    _list(_A + "/measurements", "Registry.ListMeasurements"),
    _create(_T + "/measurements", "Registry.CreateMeasurement"),
    _create(_A + "/measurements", "Registry.CreateMeasurement"),
    _get(_T + "/measurements/{measurement}", "Registry.GetMeasurement"),
    _get(_A + "/measurements/{measurement}", "Registry.GetMeasurement"),
    _list(_M + "/releases", "Registry.ListReleases"),
    _create(_M + "/releases", "Registry.CreateRelease"),
    _get(_M + "/releases/{release}", "Registry.GetRelease"),
    _act(_M + "/releases/{release}:promote", "Registry.PromoteRelease"),
    _list(_M + "/stages", "Registry.ListStages"),
    _get(_M + "/stages/{stage}", "Registry.GetStage"),
    _act(_M + "/stages/{stage}:rollBack", "Registry.RollBackStage"),
    _list(_M + "/promotions", "Registry.ListPromotions"),
    _get(_P + ":lineage", "Registry.GetLineage", "parent"),
    _list(_P + "/auditEvents", "Registry.ListAuditEvents"),
    _get(_P + ":watchEvents", "Registry.WatchEvents", "parent"),
)

BLOBS = (
    _create(_P + "/blobs", "Blobs.CreateBlob"),
    _get(_P + "/blobs/{blob}", "Blobs.GetBlob"),
    _get(_P + "/blobs/{blob}:read", "Blobs.ReadBlob"),
    _act(_P + "/blobs/{blob}:download", "Blobs.CreateDownload"),
    _create(_P + "/uploads", "Blobs.StartUpload"),
    _get(_P + "/uploads/{upload}", "Blobs.GetUpload"),
    _act(_P + "/uploads/{upload}:complete", "Blobs.CompleteUpload"),
    Route("DELETE", _P + "/uploads/{upload}", "Blobs.CancelUpload", "name", keeps_last=True),
    Route("POST", "blobs:collect", "Blobs.CollectBlobs", "", keeps_last=True),
)

CALIBRATION = (
    _list(_P + "/datasets", "Calibration.ListDatasets"),
    _create(_P + "/datasets", "Calibration.CreateDataset"),
    _get(_D, "Calibration.GetDataset"),
    _list(_D + "/versions", "Calibration.ListDatasetVersions"),
    _create(_D + "/versions", "Calibration.CreateDatasetVersion"),
    _get(_DV, "Calibration.GetDatasetVersion"),
    _act(_DV + ":addSamples", "Calibration.AddSamples", "parent"),
    _list(_DV + "/samples", "Calibration.ListSamples"),
    _act(_DV + ":seal", "Calibration.SealDatasetVersion"),
)

COMPILER = (
    _list(_P + "/compileJobs", "Compiler.ListCompileJobs"),
    _create(_P + "/compileJobs", "Compiler.CreateCompileJob"),
    _get(_P + "/compileJobs/{job}", "Compiler.GetCompileJob"),
    _act(_P + "/compileJobs/{job}:cancel", "Compiler.CancelCompileJob"),
    _act(_P + "/compileJobs/{job}:retry", "Compiler.RetryCompileJob"),
    _get(_P + "/compileJobs/{job}:watch", "Compiler.WatchCompileJob"),
    _get(_P + "/compileJobs/{job}:log", "Compiler.GetStepLog"),
    Route("GET", "recipes", "Compiler.ListRecipes", "", keeps_last=True),
    Route("POST", "recipes:validate", "Compiler.ValidateRecipe", "", keeps_last=True),
)

BUILDER = (
    Route("GET", "boards", "Builder.ListBoards", "", keeps_last=True),
    _get("boards/{board}", "Builder.GetBoard"),
    Route("GET", "toolchains", "Builder.ListToolchains", "", keeps_last=True),
    _list(_P + "/buildJobs", "Builder.ListBuildJobs"),
    _create(_P + "/buildJobs", "Builder.CreateBuildJob"),
    _act(_P + ":measure", "Builder.CreateMeasureJob", "parent"),
    _get(_P + "/buildJobs/{job}", "Builder.GetBuildJob"),
    _act(_P + "/buildJobs/{job}:cancel", "Builder.CancelBuildJob"),
    _act(_P + "/buildJobs/{job}:retry", "Builder.RetryBuildJob"),
    _get(_P + "/buildJobs/{job}:watch", "Builder.WatchBuildJob"),
    _get(_P + "/buildJobs/{job}:log", "Builder.GetStepLog"),
)

DELIVERY = (
    _list(_P + "/fleets", "Delivery.ListFleets"),
    _create(_P + "/fleets", "Delivery.CreateFleet"),
    _get(_F, "Delivery.GetFleet"),
    _create(_F + "/enrolmentTokens", "Delivery.CreateEnrolmentToken"),
    _list(_F + "/devices", "Delivery.ListDevices"),
    _get(_F + "/devices/{device}", "Delivery.GetDevice"),
    _act(_F + "/devices/{device}:revoke", "Delivery.RevokeDevice"),
    _list(_F + "/devices/{device}/reports", "Delivery.ListReports"),
    _create(_P + "/bundles", "Delivery.CreateBundles"),
    _list(_P + "/bundles", "Delivery.ListBundles"),
    _create(_P + "/rollouts", "Delivery.CreateRollout"),
    _list(_P + "/rollouts", "Delivery.ListRollouts"),
    _get(_P + "/rollouts/{rollout}", "Delivery.GetRollout"),
    _act(_P + "/rollouts/{rollout}:pause", "Delivery.PauseRollout"),
    _act(_P + "/rollouts/{rollout}:resume", "Delivery.ResumeRollout"),
    _act(_P + "/rollouts/{rollout}:cancel", "Delivery.CancelRollout"),
    _get(_P + "/rollouts/{rollout}:watch", "Delivery.WatchRollout"),
)

# Starlette takes the first route that matches, and `{job}` would match "7:watch" too.
ROUTES: tuple[Route, ...] = tuple(
    sorted(
        (*REGISTRY, *BLOBS, *CALIBRATION, *COMPILER, *BUILDER, *DELIVERY), key=lambda r: ":" not in r.template
    )
)
