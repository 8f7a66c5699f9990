"""Steps run as functions; a registry and a calibration service in memory, behind the builder's ports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boardwright.builder.ports import BuiltArtifact, NewArtifact, NewMeasurement, SourceVariant
from boardwright.builder.steps import build
from boardwright.builder.steps.kinds import BUILD, GRAPH, INPUT_SPEC
from boardwright.content import Digest
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.job import Step
from boardwright.jobs.step_api import InputFile, StepRequest, StepResult, ignore_progress
from boardwright.model.input_spec import InputSpec
from boardwright.rpc.errors import FailedPrecondition, NotFound, Unavailable
from boardwright.testing import sample_graphs

Build = Callable[..., StepResult]

CLASSIFIER_SPEC = InputSpec(
    name=sample_graphs.INPUT_NAME,
    height=sample_graphs.SIDE,
    width=sample_graphs.SIDE,
    scale=1 / 127.5,
    mean=(1.0, 1.0, 1.0),
)


@pytest.fixture
def run_build(tmp_path: Path) -> Build:
    """Return a function that runs build/build on a graph."""

    def run(
        graph: Path,
        board: str = "x86-64",
        toolchain: str = "onnxruntime",
        spec: InputSpec = CLASSIFIER_SPEC,
        inputs: dict[str, InputFile] | None = None,
        **parameters: Any,
    ) -> StepResult:
        folder = tmp_path / f"build-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")
        given = {
            GRAPH: InputFile(graph, "sha256:" + "0" * 64, "application/onnx"),
            INPUT_SPEC: InputFile(folder / "spec.json", "sha256:" + "1" * 64, "application/json"),
            **(inputs or {}),
        }
        out = folder / "out"
        out.mkdir()
        values = {**BUILD.defaults, "board": board, "toolchain": toolchain, **parameters}
        return build.run(StepRequest("build/build", values, given, 0, out), ignore_progress)

    return run


VERSION = "projects/default/models/digits/versions/3"
GRAPH_BLOB = Blob("sha256:" + "a" * 64, 1000, "application/vnd.boardwright.graph.v1+onnx")


@dataclass
class SimulatedRegistry:
    """Keeps what it is given; ``outages`` many calls fail first, ``lost_answers`` many succeed unheard."""

    variants: dict[str, SourceVariant] = field(default_factory=dict)
    artifacts: dict[str, BuiltArtifact] = field(default_factory=dict)
    measurements: dict[str, NewMeasurement] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    actors: list[str] = field(default_factory=list)
    lineage: dict[str, str] = field(default_factory=dict)
    outages: int = 0
    lost_answers: int = 0
    _answers: dict[str, str] = field(default_factory=dict)

    def add_variant(
        self, variant: str = "int8", spec: str = '{"schema":"input-spec/1"}', profile: str = "x86-vnni"
    ) -> str:
        """Add a variant of digits@3."""
        name = f"{VERSION}/variants/{variant}"
        self.variants[name] = SourceVariant(name, GRAPH_BLOB, profile, VERSION, spec)
        return name

    def _reached(self, actor: str) -> None:
        self.actors.append(actor)
        if self.outages:
            self.outages -= 1
            raise Unavailable("SERVICE_UNAVAILABLE", "the registry is away")

    def _heard(self) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("SERVICE_UNAVAILABLE", "the answer was lost")

    async def variant(self, actor: str, name: str) -> SourceVariant:
        self._reached(actor)
        if name not in self.variants:
            raise NotFound("VARIANT_NOT_FOUND", f"there is no {name}")
        return self.variants[name]

    async def artifact(self, actor: str, name: str) -> BuiltArtifact:
        self._reached(actor)
        if name not in self.artifacts:
            raise NotFound("ARTIFACT_NOT_FOUND", f"there is no {name}")
        return self.artifacts[name]

    async def put_document(self, actor: str, project: str, content: bytes, media_type: str) -> Blob:
        self._reached(actor)
        digest = str(Digest.of(content))
        self.documents[digest] = content
        return Blob(digest, len(content), media_type)

    async def read_document(self, actor: str, project: str, digest: str) -> bytes:
        self._reached(actor)
        return self.documents[digest]

    async def blob(self, actor: str, project: str, digest: str, media_type: str) -> Blob:
        return Blob(digest, len(self.documents[digest]), media_type)

    async def record_step(self, actor: str, project: str, step: Step) -> None:
        self._reached(actor)
        if step.outcome:
            self.lineage[step.outcome.record] = step.spec.kind

    async def create_artifact(self, actor: str, new: NewArtifact, request_id: str) -> str:
        self._reached(actor)
        name = f"{new.variant}/artifacts/a{new.manifest_digest[7:19]}"
        self.artifacts[name] = BuiltArtifact(name, new.pin, new.toolchain, new.files, new.details)
        self._heard()
        return name

    async def create_measurement(self, actor: str, new: NewMeasurement, request_id: str) -> str:
        self._reached(actor)
        for name, known in self.measurements.items():
            same = (known.artifact, known.kind, known.threads, known.record_digest)
            if same == (new.artifact, new.kind, new.threads, new.record_digest):
                return name
        if request_id not in self._answers:
            name = f"{new.artifact}/measurements/m{len(self.measurements) + 1}"
            self._answers[request_id] = name
            self.measurements[name] = new
        self._heard()
        return self._answers[request_id]


@dataclass
class SimulatedDatasets:
    """Sealed dataset versions by name."""

    manifests: dict[str, str] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    async def manifest_digest(self, actor: str, name: str) -> tuple[str, str]:
        if name in self.open:
            raise FailedPrecondition("DATASET_NOT_SEALED", f"{name} is still open; seal it first.")
        if name not in self.manifests:
            raise NotFound("DATASET_VERSION_NOT_FOUND", f"there is no {name}")
        return name, self.manifests[name]


@pytest.fixture
def make_registry() -> Callable[[], SimulatedRegistry]:
    """Return a maker of empty registries."""
    return SimulatedRegistry


@pytest.fixture
def datasets() -> SimulatedDatasets:
    """Return a calibration service without datasets."""
    return SimulatedDatasets()
