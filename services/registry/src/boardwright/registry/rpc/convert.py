"""Messages to domain values and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.registry import names
from boardwright.registry.domain.resources import (
    AccuracyDrop,
    Alias,
    Artifact,
    AuditEvent,
    File,
    Gate,
    LatencyCeiling,
    Measurement,
    Model,
    ModelKey,
    ModelVersion,
    Origin,
    Pin,
    Promotion,
    Release,
    Stage,
    Variant,
    Verdict,
)
from boardwright.registry.errors import field_invalid

_ORIGINS: dict[int, Origin] = {types.ORIGIN_MEASURED: "measured", types.ORIGIN_EMULATED: "emulated"}
_ORIGIN_NUMBERS = {"measured": types.ORIGIN_MEASURED, "emulated": types.ORIGIN_EMULATED}
_KINDS = {"promote": pb.Promotion.KIND_PROMOTE, "roll_back": pb.Promotion.KIND_ROLL_BACK}


def timestamp(us: int) -> Timestamp:
    """Microseconds since the epoch as a Timestamp."""
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


# Parts


def from_file(message: types.File) -> File:
    """A File."""
    return File(message.path, message.digest, message.size_bytes, message.media_type)


def to_file(file: File) -> types.File:
    """A File."""
    return types.File(
        path=file.path, digest=file.digest, size_bytes=file.size_bytes, media_type=file.media_type
    )


def from_pin(message: types.HardwarePin) -> Pin:
    """A HardwarePin, its CPU features sorted."""
    return Pin(
        message.board,
        message.architecture,
        tuple(sorted(set(message.cpu_features))),
        message.accelerator,
        message.runtime,
        message.runtime_version,
        message.bsp,
        message.driver,
    )


def to_pin(pin: Pin) -> types.HardwarePin:
    """A HardwarePin."""
    return types.HardwarePin(
        board=pin.board,
        architecture=pin.architecture,
        cpu_features=pin.cpu_features,
        accelerator=pin.accelerator,
        runtime=pin.runtime,
        runtime_version=pin.runtime_version,
        bsp=pin.bsp,
        driver=pin.driver,
    )


def from_gate(message: pb.Gate) -> Gate:
    """A Gate. Raises: InvalidArgument FIELD_INVALID for one without a rule."""
    kind = message.WhichOneof("rule")
    if kind == "accuracy_drop":
        drop = message.accuracy_drop
        return Gate(message.stage, AccuracyDrop(drop.metric, drop.max_drop_points))
    if kind == "latency_ceiling":
        ceiling = message.latency_ceiling
        return Gate(
            message.stage,
            LatencyCeiling(ceiling.board, ceiling.statistic, ceiling.max_ms, ceiling.threads),
        )
    raise field_invalid("model.gates", f"the gate of stage {message.stage!r} has no rule")


def to_gate(gate: Gate) -> pb.Gate:
    """A Gate."""
    rule = gate.rule
    if isinstance(rule, AccuracyDrop):
        drop = pb.AccuracyDrop(metric=rule.metric, max_drop_points=rule.max_drop_points)
        return pb.Gate(stage=gate.stage, accuracy_drop=drop)
    ceiling = pb.LatencyCeiling(
        board=rule.board, statistic=rule.statistic, max_ms=rule.max_ms, threads=rule.threads
    )
    return pb.Gate(stage=gate.stage, latency_ceiling=ceiling)


def to_verdict(verdict: Verdict) -> pb.GateVerdict:
    """A GateVerdict."""
    return pb.GateVerdict(
        gate=to_gate(verdict.gate),
        passed=verdict.passed,
        explanation=verdict.explanation,
        measurement=verdict.measurement,
    )


# Resources


def from_model(key: ModelKey, message: pb.Model) -> Model:
    """What a caller says of a model."""
    gates = tuple(from_gate(g) for g in message.gates)
    return Model(key, message.task, message.description, tuple(message.stages), gates, 0, 0, 0)


def to_model(model: Model) -> pb.Model:
    """A Model."""
    return pb.Model(
        name=names.model(model.key),
        task=model.task,
        description=model.description,
        stages=model.stages,
        gates=[to_gate(g) for g in model.gates],
        create_time=timestamp(model.create_us),
        update_time=timestamp(model.update_us),
        etag=str(model.revision),
    )


def from_version(key: ModelKey, message: pb.ModelVersion) -> ModelVersion:
    """What a caller says of a version."""
    return ModelVersion(
        key,
        0,
        message.format,
        tuple(from_file(f) for f in message.files),
        message.input_spec_json,
        message.output_spec_json,
        message.commit,
        message.run,
        dict(message.labels),
        dict(message.metrics),
        message.description,
        "",
        0,
        message.traceparent,
    )


def to_version(version: ModelVersion) -> pb.ModelVersion:
    """A ModelVersion."""
    return pb.ModelVersion(
        name=names.version(version.key, version.number),
        number=version.number,
        format=version.format,
        files=[to_file(f) for f in version.files],
        input_spec_json=version.input_spec,
        output_spec_json=version.output_spec,
        commit=version.commit,
        run=version.run,
        labels=version.labels,
        metrics=version.metrics,
        description=version.description,
        creator=version.creator,
        create_time=timestamp(version.create_us),
        traceparent=version.traceparent,
    )


def to_alias(alias: Alias) -> pb.Alias:
    """An Alias."""
    return pb.Alias(
        name=names.name_of(alias),
        version=names.version(alias.key, alias.number),
        etag=str(alias.revision),
        update_time=timestamp(alias.update_us),
    )


def from_variant(key: ModelKey, number: int, variant: str, message: pb.Variant) -> Variant:
    """What a caller says of a variant."""
    return Variant(
        key,
        number,
        variant,
        message.recipe,
        message.recipe_digest,
        from_file(message.graph),
        message.quantization_profile,
        message.record_digest,
        message.details_json,
        "",
        0,
    )


def to_variant(variant: Variant) -> pb.Variant:
    """A Variant."""
    return pb.Variant(
        name=names.name_of(variant),
        recipe=variant.recipe,
        recipe_digest=variant.recipe_digest,
        graph=to_file(variant.graph),
        quantization_profile=variant.quantization_profile,
        record_digest=variant.record_digest,
        details_json=variant.details,
        creator=variant.creator,
        create_time=timestamp(variant.create_us),
    )


def from_artifact(key: ModelKey, number: int, variant: str, message: pb.Artifact) -> Artifact:
    """What a caller says of an artifact."""
    return Artifact(
        key,
        number,
        variant,
        "",
        from_pin(message.pin),
        message.toolchain,
        message.toolchain_version,
        tuple(from_file(f) for f in message.files),
        message.manifest_digest,
        0,
        message.record_digest,
        message.details_json,
        "",
        0,
    )


def to_artifact(artifact: Artifact) -> pb.Artifact:
    """An Artifact."""
    return pb.Artifact(
        name=names.name_of(artifact),
        pin=to_pin(artifact.pin),
        toolchain=artifact.toolchain,
        toolchain_version=artifact.toolchain_version,
        files=[to_file(f) for f in artifact.files],
        manifest_digest=artifact.manifest_digest,
        size_bytes=artifact.size_bytes,
        record_digest=artifact.record_digest,
        details_json=artifact.details,
        creator=artifact.creator,
        create_time=timestamp(artifact.create_us),
    )


def from_measurement(
    key: ModelKey, number: int, variant: str, artifact: str, message: pb.Measurement
) -> Measurement:
    """What a caller says of a measurement. Raises: InvalidArgument FIELD_INVALID without an origin."""
    origin = _ORIGINS.get(message.origin)
    if origin is None:
        raise field_invalid("measurement.origin", "must be MEASURED or EMULATED")
    return Measurement(
        key,
        number,
        variant,
        artifact,
        "",
        message.kind,
        dict(message.values),
        origin,
        message.board,
        from_pin(message.host),
        message.threads,
        message.dataset,
        message.record_digest,
        message.details_json,
        "",
        0,
    )


def to_measurement(figure: Measurement) -> pb.Measurement:
    """A Measurement."""
    return pb.Measurement(
        name=names.measurement(figure),
        kind=figure.kind,
        values=figure.values,
        origin=_ORIGIN_NUMBERS[figure.origin],
        board=figure.board,
        host=to_pin(figure.host),
        threads=figure.threads,
        dataset=figure.dataset,
        record_digest=figure.record_digest,
        details_json=figure.details,
        creator=figure.creator,
        create_time=timestamp(figure.create_us),
    )


def to_release(release: Release) -> pb.Release:
    """A Release."""
    entries = [
        pb.Release.Entry(
            artifact=names.artifact(release.key, release.version, e.variant, e.artifact),
            pin=to_pin(e.pin),
            manifest_digest=e.manifest_digest,
        )
        for e in release.entries
    ]
    return pb.Release(
        name=names.name_of(release),
        number=release.number,
        version=names.version(release.key, release.version),
        entries=entries,
        index_digest=release.index_digest,
        description=release.description,
        creator=release.creator,
        create_time=timestamp(release.create_us),
        traceparent=release.traceparent,
    )


def to_stage(stage: Stage) -> pb.Stage:
    """A Stage."""
    return pb.Stage(
        name=names.name_of(stage),
        release=names.release(stage.key, stage.release),
        rung=stage.rung,
        gates=[to_gate(g) for g in stage.gates],
        etag=str(stage.revision),
        update_time=timestamp(stage.update_us),
    )


def to_promotion(record: Promotion) -> pb.Promotion:
    """A Promotion."""
    return pb.Promotion(
        name=names.name_of(record),
        kind=_KINDS[record.kind],
        stage=f"{names.model(record.key)}/stages/{record.stage}",
        release=names.release(record.key, record.release),
        previous_release=names.release(record.key, record.previous_release),
        reason=record.reason,
        verdicts=[to_verdict(v) for v in record.verdicts],
        actor=record.actor,
        create_time=timestamp(record.create_us),
    )


def to_audit_event(event: AuditEvent) -> pb.AuditEvent:
    """An AuditEvent."""
    return pb.AuditEvent(
        name=names.AUDIT_EVENT.format(event.project, event.number),
        actor=event.actor,
        service=event.service,
        method=event.method,
        resource=event.resource,
        reason=event.reason,
        create_time=timestamp(event.create_us),
    )


def to_nodes(ids: Iterable[str], steps: dict[str, str]) -> list[pb.Lineage.Node]:
    """Lineage nodes: a digest is a blob unless it is a step's record; a name tells its own collection."""
    return [pb.Lineage.Node(id=node, **_describe(node, steps)) for node in ids]


def _describe(node: str, steps: dict[str, str]) -> dict[str, Any]:
    if node in steps:
        return {"kind": "step", "title": steps[node]}
    if node.startswith("sha256:"):
        return {"kind": "blob", "title": node[7:19]}
    parts = node.split("/")
    model = parts[3] if len(parts) > 3 else ""
    return {"kind": parts[-2] if len(parts) > 1 else "", "title": " ".join([model, *parts[5::2]]).strip()}
