"""The registry's resources as frozen values. Times are microseconds since the epoch.

A resource is named by its key: the project, the model, and numbers or ids below. Full names are made in
`boardwright.registry.names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Origin = Literal["measured", "emulated"]
PromotionKind = Literal["promote", "roll_back"]

DEFAULT_STAGES = ("development", "staging", "canary", "production")
TASKS = ("classification", "detection", "segmentation", "text")
FORMATS = ("onnx", "torch-state-dict", "safetensors", "torchscript", "ultralytics")
MEASUREMENT_KINDS = ("accuracy", "parity", "latency", "memory", "size")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """`projects/{project}/models/{model}`."""

    project: str
    model: str


@dataclass(frozen=True, slots=True)
class File:
    """One file of a version, a variant or an artifact; `digest` is "sha256:<hex>"."""

    path: str
    digest: str
    size_bytes: int
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """A HardwarePin as stored: empty fields make no demand."""

    board: str = ""
    architecture: str = ""
    cpu_features: tuple[str, ...] = ()
    accelerator: str = ""
    runtime: str = ""
    runtime_version: str = ""
    bsp: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """`metric` of a variant is at most `max_drop_points` (hundredths) below the baseline's, same dataset."""

    metric: str
    max_drop_points: float


@dataclass(frozen=True, slots=True)
class LatencyCeiling:
    """`statistic` of the artifact for `board`, measured there with `threads`, is at most `max_ms`."""

    board: str
    statistic: str
    max_ms: float
    threads: int


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule that guards the entry to `stage`."""

    stage: str
    rule: AccuracyDrop | LatencyCeiling


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says of a release. `measurement` is the name of the deciding figure, or ""."""

    gate: Gate
    passed: bool
    explanation: str
    measurement: str = ""
    figure: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A named family with a task. `revision` counts its updates and is its etag."""

    key: ModelKey
    task: str
    description: str
    stages: tuple[str, ...]
    gates: tuple[Gate, ...]
    create_us: int
    update_us: int
    revision: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One pushed checkpoint. Immutable, except that specs are fixed once."""

    key: ModelKey
    number: int
    format: str
    files: tuple[File, ...]
    input_spec: str
    output_spec: str
    commit: str
    run: str
    labels: Mapping[str, str]
    metrics: Mapping[str, float]
    description: str
    creator: str
    create_us: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable name of a version."""

    key: ModelKey
    alias: str
    number: int
    revision: int
    update_us: int


@dataclass(frozen=True, slots=True)
class Variant:
    """What a recipe made of a version."""

    key: ModelKey
    number: int
    variant: str
    recipe: str
    recipe_digest: str
    graph: File
    quantization_profile: str
    record_digest: str
    details: str
    creator: str
    create_us: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A variant built for one pin."""

    key: ModelKey
    number: int
    variant: str
    artifact: str
    pin: Pin
    toolchain: str
    toolchain_version: str
    files: tuple[File, ...]
    manifest_digest: str
    size_bytes: int
    record_digest: str
    details: str
    creator: str
    create_us: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of a variant (`artifact` is "") or of an artifact."""

    key: ModelKey
    number: int
    variant: str
    artifact: str
    measurement: str
    kind: str
    values: Mapping[str, float]
    origin: Origin
    board: str
    host: Pin
    threads: int
    dataset: str
    record_digest: str
    details: str
    creator: str
    create_us: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """One artifact of a release."""

    variant: str
    artifact: str
    pin: Pin
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable index over artifacts of version `version`, at most one for each pin."""

    key: ModelKey
    number: int
    version: int
    entries: tuple[ReleaseEntry, ...]
    index_digest: str
    description: str
    creator: str
    create_us: int
    traceparent: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A rung. `release` is 0 when it is empty; `promotion` is the promotion that put the release there."""

    key: ModelKey
    stage: str
    release: int
    rung: int
    promotion: int
    revision: int
    update_us: int
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """One change of a stage. `base` is the promotion that the stage rested on before."""

    key: ModelKey
    number: int
    kind: PromotionKind
    stage: str
    release: int
    previous_release: int
    base: int
    reason: str
    verdicts: tuple[Verdict, ...] = field(default=())
    actor: str = ""
    create_us: int = 0


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what."""

    project: str
    number: int
    actor: str
    service: str
    method: str
    resource: str
    reason: str
    create_us: int
