"""Rows to domain values and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from boardwright.database import Row
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
    Pin,
    Promotion,
    Release,
    ReleaseEntry,
    Stage,
    Variant,
    Verdict,
)


def encode(value: Any) -> str:
    """Compact JSON; dataclasses as objects."""
    return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__slots__}


def _object(text: str) -> dict[str, Any]:
    """A JSON object; most labels and metrics are empty, and parsing them costs like reading a row."""
    return {} if text == "{}" else json.loads(text)


def _files(text: str) -> tuple[File, ...]:
    return tuple(File(**f) for f in json.loads(text))


def _pin(value: dict[str, Any]) -> Pin:
    return Pin(**(value | {"cpu_features": tuple(value["cpu_features"])}))


def _key(row: Row) -> ModelKey:
    return ModelKey(row["project"], row["model"])


def gate_to_json(gate: Gate) -> dict[str, Any]:
    """A gate as a JSON object: its stage, its rule's name, the rule's fields."""
    rule = "accuracy_drop" if isinstance(gate.rule, AccuracyDrop) else "latency_ceiling"
    return {"stage": gate.stage, rule: _plain(gate.rule)}


def gate_from_json(value: dict[str, Any]) -> Gate:
    """What `gate_to_json` made."""
    if "accuracy_drop" in value:
        return Gate(value["stage"], AccuracyDrop(**value["accuracy_drop"]))
    return Gate(value["stage"], LatencyCeiling(**value["latency_ceiling"]))


def encode_gates(gates: Iterable[Gate]) -> str:
    """Gates as a JSON list."""
    return encode([gate_to_json(g) for g in gates])


def encode_verdicts(verdicts: Iterable[Verdict]) -> str:
    """Verdicts as a JSON list."""
    return encode([_plain(v) | {"gate": gate_to_json(v.gate)} for v in verdicts])


def to_model(row: Row) -> Model:
    """A row of `models`."""
    return Model(
        _key(row),
        row["task"],
        row["description"],
        tuple(json.loads(row["stages"])),
        tuple(gate_from_json(g) for g in json.loads(row["gates"])),
        row["create_us"],
        row["update_us"],
        row["revision"],
    )


def to_version(row: Row) -> ModelVersion:
    """A row of `versions`."""
    return ModelVersion(
        _key(row),
        row["number"],
        row["format"],
        _files(row["files"]),
        row["input_spec"],
        row["output_spec"],
        row["commit_id"],
        row["run"],
        _object(row["labels"]),
        _object(row["metrics"]),
        row["description"],
        row["creator"],
        row["create_us"],
        row["traceparent"],
    )


def to_alias(row: Row) -> Alias:
    """A row of `aliases`."""
    return Alias(_key(row), row["alias"], row["number"], row["revision"], row["update_us"])


def to_variant(row: Row) -> Variant:
    """A row of `variants`."""
    return Variant(
        _key(row),
        row["number"],
        row["variant"],
        row["recipe"],
        row["recipe_digest"],
        File(**json.loads(row["graph"])),
        row["quantization_profile"],
        row["record_digest"],
        row["details"],
        row["creator"],
        row["create_us"],
        row["sequence"],
    )


def to_artifact(row: Row) -> Artifact:
    """A row of `artifacts`."""
    return Artifact(
        _key(row),
        row["number"],
        row["variant"],
        row["artifact"],
        _pin(json.loads(row["pin"])),
        row["toolchain"],
        row["toolchain_version"],
        _files(row["files"]),
        row["manifest_digest"],
        row["size_bytes"],
        row["record_digest"],
        row["details"],
        row["creator"],
        row["create_us"],
        row["sequence"],
    )


def to_measurement(row: Row) -> Measurement:
    """A row of `measurements`."""
    return Measurement(
        _key(row),
        row["number"],
        row["variant"],
        row["artifact"],
        row["measurement"],
        row["kind"],
        json.loads(row["figures"]),
        row["origin"],
        row["board"],
        _pin(json.loads(row["host"])),
        row["threads"],
        row["dataset"],
        row["record_digest"],
        row["details"],
        row["creator"],
        row["create_us"],
        row["sequence"],
    )


def to_release(row: Row) -> Release:
    """A row of `releases`."""
    entries = tuple(ReleaseEntry(**(e | {"pin": _pin(e["pin"])})) for e in json.loads(row["entries"]))
    return Release(
        _key(row),
        row["number"],
        row["version"],
        entries,
        row["index_digest"],
        row["description"],
        row["creator"],
        row["create_us"],
        row["traceparent"],
    )


def to_stage(row: Row, gates: tuple[Gate, ...]) -> Stage:
    """A row of `stages`; `gates` are those of the model, of which the stage's own are kept."""
    return Stage(
        _key(row),
        row["stage"],
        row["release"],
        row["rung"],
        row["promotion"],
        row["revision"],
        row["update_us"],
        tuple(g for g in gates if g.stage == row["stage"]),
    )


def to_promotion(row: Row) -> Promotion:
    """A row of `promotions`."""
    verdicts = tuple(
        Verdict(**(v | {"gate": gate_from_json(v["gate"])})) for v in json.loads(row["verdicts"])
    )
    return Promotion(
        _key(row),
        row["number"],
        row["kind"],
        row["stage"],
        row["release"],
        row["previous_release"],
        row["base"],
        row["reason"],
        verdicts,
        row["actor"],
        row["create_us"],
    )


def to_audit_event(row: Row) -> AuditEvent:
    """A row of `audit_events`."""
    return AuditEvent(
        row["project"],
        row["id"],
        row["actor"],
        row["service"],
        row["method"],
        row["resource"],
        row["reason"],
        row["create_us"],
    )
