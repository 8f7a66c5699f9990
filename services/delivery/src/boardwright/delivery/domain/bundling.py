"""From a Release's entry to a Bundle: which file of the Artifact is what, and what is added to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.content.oci import (
    GOLDEN_MEDIA_TYPE,
    INPUT_SPEC_MEDIA_TYPE,
    OUTPUT_SPEC_MEDIA_TYPE,
    PIN_MEDIA_TYPE,
    RUNTIME_MEDIA_TYPE,
    STATEMENT_MEDIA_TYPE,
)
from boardwright.delivery.domain.preference import MeasuredLatency
from boardwright.delivery.domain.resources import BundleFileRecord
from boardwright.device.bundle import LABELS_MEDIA_TYPE, Bundle, BundleFile, labels_document
from boardwright.device.errors import InvalidDocument

_ROLES = {
    GOLDEN_MEDIA_TYPE: "golden",
    RUNTIME_MEDIA_TYPE: "runtime",
    INPUT_SPEC_MEDIA_TYPE: "input-spec",
    OUTPUT_SPEC_MEDIA_TYPE: "output-spec",
    PIN_MEDIA_TYPE: "pin",
}
_MADE_HERE = frozenset({"pin", "input-spec", "output-spec"})
"""Written anew from the registry, so that what is signed and what is inside the bundle are one."""


@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """What the registry says of an Artifact and of the ModelVersion it was built from.

    Attributes:
        pin: the HardwarePin as JSON.
        files: the Artifact's files, the one that the runtime loads first.
        details: the Artifact's notes; `runtime_settings` in them are the runtime's.
        input_spec_json, output_spec_json: of the ModelVersion; the second may be "".
        record: the in-toto record of the step that built it, when there is one.
        latencies: what was measured of it, where the release has another artifact for the same board.
    """

    release: str
    model_version: str
    variant: str
    artifact: str
    pin: Mapping[str, Any]
    files: Sequence[BundleFileRecord]
    details: Mapping[str, Any]
    input_spec_json: str
    output_spec_json: str
    record: BundleFileRecord | None = None
    latencies: tuple[MeasuredLatency, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What the registry says of a Release.

    Attributes:
        artifacts: one entry per Artifact.
        traceparent: the trace that began with the push; a rollout goes on with it.
    """

    artifacts: Sequence[ArtifactFacts]
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class PlannedBundle:
    """A bundle, and the small documents in it that must be stored before it is one."""

    bundle: Bundle
    documents: tuple[bytes, ...]


def plan_bundle(facts: ArtifactFacts) -> PlannedBundle:
    """The bundle of an Artifact. The same facts give the same bytes.

    Raises:
        InvalidDocument: the Artifact lacks a file that a bundle needs, or has one twice.
    """
    files = [_model(facts.files)]
    for file in facts.files[1:]:
        role = _ROLES.get(file.media_type) or _by_media_type(file.media_type)
        if role and role not in _MADE_HERE:
            files.append(_file(role, file))
    documents = _documents(facts, {file.role for file in files})
    files.extend(
        BundleFile(role, name, media_type, Digest.of(data), len(data))
        for role, name, media_type, data in documents
    )
    if facts.record is not None:
        files.append(_file("provenance", facts.record))
    bundle = Bundle.of(
        release=facts.release,
        model_version=facts.model_version,
        variant=facts.variant,
        artifact=facts.artifact,
        files=files,
    )
    return PlannedBundle(bundle, tuple(data for _, _, _, data in documents))


def _model(files: Sequence[BundleFileRecord]) -> BundleFile:

    if not files:
        raise InvalidDocument("the artifact has no files: build it again")
    return _file("model", files[0])


def _file(role: str, file: BundleFileRecord) -> BundleFile:
    name = file.path.rpartition("/")[2]
    return BundleFile(role, name, file.media_type, Digest.parse(file.digest), file.size_bytes)


def _by_media_type(media_type: str) -> str:
    if media_type == STATEMENT_MEDIA_TYPE:
        return "provenance"
    # Reports for people stay behind; what else there is belongs to the model (weights beside it).
    return "" if media_type.endswith("json") or media_type.startswith("text/") else "model-data"


def _documents(facts: ArtifactFacts, present: set[str]) -> list[tuple[str, str, str, bytes]]:
    found = [
        ("pin", "pin.json", PIN_MEDIA_TYPE, canonical_json(dict(facts.pin))),
        ("input-spec", "input-spec.json", INPUT_SPEC_MEDIA_TYPE, _canonical(facts.input_spec_json)),
    ]
    if facts.output_spec_json:
        data = _canonical(facts.output_spec_json)
        found.append(("output-spec", "output-spec.json", OUTPUT_SPEC_MEDIA_TYPE, data))
        labels = json.loads(data).get("labels") or []
        if labels:
            found.append(("labels", "labels.json", LABELS_MEDIA_TYPE, labels_document(labels)))
    settings = facts.details.get("runtime_settings")
    if settings is not None and "runtime" not in present:
        found.append(("runtime", "runtime.json", RUNTIME_MEDIA_TYPE, canonical_json(settings)))
    return found


def _canonical(text: str) -> bytes:
    return canonical_json(json.loads(text))
