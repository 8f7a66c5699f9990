"""From an order to the job's one step, and from a finished step to what is registered. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boardwright.builder import errors
from boardwright.builder.domain.boards import Board
from boardwright.builder.ports import (
    ArtifactFile,
    BuildOrder,
    BuiltArtifact,
    GoldenDataset,
    MeasureOrder,
    NewArtifact,
    NewMeasurement,
    SourceVariant,
)
from boardwright.builder.steps.kinds import (
    BUILD,
    DATASET,
    GRAPH,
    INPUT_SPEC,
    MEASURE,
    PACK_PREFIX,
    golden_input,
    model_input,
    weights_input,
)
from boardwright.content import Digest
from boardwright.content.oci import (
    ENGINE_MEDIA_TYPE,
    GOLDEN_MEDIA_TYPE,
    GRAPH_MEDIA_TYPE,
    WEIGHTS_MEDIA_TYPE,
    Descriptor,
    ImageManifest,
)
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.dag import StepSpec
from boardwright.jobs.domain.declaring import declare_step
from boardwright.jobs.domain.job import StepOutcome
from boardwright.jobs.step_api import ANY_BOARD
from boardwright.model.pins import HardwarePin
from boardwright.rpc.errors import FailedPrecondition
from boardwright.toolchains.agent_toolchain import AgentToolchain
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.port import BuildRequest, Toolchain

ARTIFACT_TYPE = "application/vnd.boardwright.artifact.v1"
TITLE = "org.opencontainers.image.title"
BUILD_STEP = "build"
MEASURE_STEP = "measure"
BASELINE = "baseline"
GOLDEN_SAMPLES = int(BUILD.defaults["golden_samples"])

_MODEL_MEDIA_TYPES = (GRAPH_MEDIA_TYPE, ENGINE_MEDIA_TYPE)


def choose_toolchain(board: Board, asked: str, offered: frozenset[str]) -> Toolchain:
    """Return the toolchain to build with: the one asked for, else the board's first.

    An artifact for the CPU is never made instead of one for the accelerator because the latter's toolchain
    is not here: that must be asked for by name. ``offered`` are toolchains that some worker speaks for.

    Raises:
        InvalidArgument: FIELD_INVALID, the board has no such toolchain.
        FailedPrecondition: TOOLCHAIN_NEEDS_AGENT.
    """
    name = asked or board.toolchains[0]
    if name not in board.toolchains:
        raise errors.toolchain_invalid(board.name, name, board.toolchains)
    toolchain = toolchain_named(name)
    if not isinstance(toolchain, AgentToolchain) or name in offered:
        return toolchain
    commands = toolchain.vendor_commands(
        BuildRequest(Path("graph.onnx"), board.name, board.architecture, Path("out"))
    )
    others = [other for other in board.toolchains if not isinstance(toolchain_named(other), AgentToolchain)]
    raise errors.needs_agent(board.name, name, toolchain.waits_for, commands, others)


def build_step(
    order: BuildOrder,
    variant: SourceVariant,
    board: Board,
    toolchain: Toolchain,
    input_spec: Blob,
    golden: GoldenDataset | None,
) -> StepSpec:
    """Return the step that builds."""
    inputs = {GRAPH: variant.graph, INPUT_SPEC: input_spec}
    if golden is not None:
        inputs[DATASET] = golden.manifest
        inputs |= {f"{PACK_PREFIX}{number}": pack for number, pack in enumerate(golden.packs)}
    requires = replace(BUILD.requires, toolchain=toolchain.name)
    if isinstance(toolchain, AgentToolchain):
        requires = replace(requires, board=board.name)
    parameters = {"board": board.name, "toolchain": toolchain.name, "pin": dict(order.pin)}
    return declare_step(BUILD, BUILD_STEP, parameters=parameters, inputs=inputs, requires=requires)


def measure_step(order: MeasureOrder, artifacts: Sequence[BuiltArtifact], here: bool) -> StepSpec:
    """Return the step that measures; on the board itself where a worker speaks for it.

    The baseline's artifact is what the others are compared with, else the first one named.

    Raises:
        FailedPrecondition: ARTIFACT_INCOMPLETE.
    """
    inputs: dict[str, Blob] = {}
    subjects = []
    for number, artifact in enumerate(artifacts):
        inputs[model_input(number)] = _file(artifact, _MODEL_MEDIA_TYPES, "model")
        weights = [file.blob for file in artifact.files if file.blob.media_type == WEIGHTS_MEDIA_TYPE]
        if weights:
            inputs[weights_input(number)] = weights[0]
        inputs[golden_input(number)] = _file(artifact, (GOLDEN_MEDIA_TYPE,), "golden samples")
        subjects.append(
            {
                "name": artifact.name,
                "pin": artifact.pin.to_json(),
                "runtime_settings": artifact.details.get("runtime_settings", {}),
            }
        )
    baselines = [number for number, artifact in enumerate(artifacts) if artifact.variant_id == BASELINE]
    parameters: dict[str, Any] = {
        "subjects": subjects,
        "baseline": (baselines or [0])[0] if len(artifacts) > 1 else -1,
        "allow_emulated": order.allow_emulated,
    }
    if order.runs:
        parameters["runs"] = order.runs
    if order.warm_up_runs:
        parameters["warm_up_runs"] = order.warm_up_runs
    requires = replace(MEASURE.requires, board=artifacts[0].pin.board if here else ANY_BOARD)
    return declare_step(
        MEASURE, MEASURE_STEP, parameters=parameters, inputs=inputs, requires=requires, again=order.again
    )


def _file(artifact: BuiltArtifact, media_types: tuple[str, ...], what: str) -> Blob:
    for file in artifact.files:
        if file.blob.media_type in media_types:
            return file.blob
    raise errors.artifact_incomplete(artifact.name, what)


def artifact_of(variant: str, outcome: StepOutcome) -> tuple[NewArtifact, bytes]:
    """Return the artifact that a finished build made, and its OCI manifest.

    The model comes first, as the registry wants it.

    Raises:
        FailedPrecondition: STEP_RESULT_INVALID, when the outcome is not a build's.
    """
    values = outcome.values
    try:
        names = [*values["files"], *sorted(set(outcome.outputs) - set(values["files"]))]
        files = tuple(ArtifactFile(name, outcome.outputs[name]) for name in names)
        pin = HardwarePin.from_json(values["pin"])
        details = {
            key: values[key] for key in ("entry", "runtime_settings", "model_size_bytes", "report", "board")
        }
        details["warnings"] = list(outcome.warnings)
        toolchain, version = str(values["toolchain"]), str(values["toolchain_version"])
    except KeyError as error:
        raise FailedPrecondition(
            "STEP_RESULT_INVALID", f"the build's result lacks {error}; run the job again."
        ) from error
    manifest = _manifest(files, pin).to_bytes()
    digest = str(Digest.of(manifest))
    new = NewArtifact(variant, pin, toolchain, version, files, digest, outcome.record, details)
    return new, manifest


def _manifest(files: Sequence[ArtifactFile], pin: HardwarePin) -> ImageManifest:
    from boardwright.content.oci import EMPTY_CONFIG

    layers = tuple(
        Descriptor(
            file.blob.media_type, Digest.parse(file.blob.digest), file.blob.size_bytes, {TITLE: file.path}
        )
        for file in files
    )
    annotations = {"dev.boardwright.board": pin.board, "dev.boardwright.runtime": pin.runtime}
    return ImageManifest(EMPTY_CONFIG, layers, ARTIFACT_TYPE, annotations)


def measurements_of(outcome: StepOutcome) -> Iterator[NewMeasurement]:
    """Yield what a finished measurement found: latency by thread count, memory, size, for each artifact."""
    host = outcome.values["host"]
    where = {key: value for key, value in host.items() if key != "pin"}
    for subject in outcome.values["subjects"]:

        def figure(
            kind: str, values: Mapping[str, Any], threads: int = 0, subject: Mapping[str, Any] = subject
        ) -> NewMeasurement:
            return NewMeasurement(
                artifact=subject["name"],
                kind=kind,
                values={name: float(value) for name, value in values.items()},
                origin=subject["origin"],
                board=subject["board"],
                host=HardwarePin.from_json(subject.get("host_pin", host["pin"])),
                threads=threads,
                record_digest=outcome.record,
                details={
                    "host": where,
                    "protocol": outcome.values["protocol"],
                    "emulated_because": subject["emulated_because"],
                    "warnings": list(outcome.warnings),
                },
            )

        for entry in subject["latency"]:
            figures = {name: value for name, value in entry.items() if name != "threads"}
            yield figure("latency", figures, entry["threads"])
        if subject["memory"]:
            yield figure("memory", subject["memory"])
        yield figure("size", {"size_bytes": subject["model_size_bytes"]})


def request_id(*parts: str) -> str:
    """Return an id that is the same for the same parts: a repeated registration is recognised by it."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:48]
