"""build/build: a Variant's graph becomes the files of one board's runtime, with proof that they work.

Inputs: ``graph`` (ONNX), ``input_spec`` (JSON); optionally ``golden`` (a dataset's manifest) with
``golden.pack-N``. Parameters: ``board``, ``toolchain``, ``options`` of the toolchain, ``pin`` overrides,
``golden_samples``. Outputs: the runtime's files, ``golden.npz``, ``runtime.json``, ``pin.json`` and
``compatibility.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.builder.catalogue import BoardUnknown, shipped_catalogue
from boardwright.builder.domain.boards import Board, Runtime
from boardwright.builder.domain.compatibility import CompatibilityReport, check_compatibility
from boardwright.builder.domain.pinning import PinRefused, make_pin
from boardwright.builder.steps.golden import (
    Golden,
    check_input,
    fitting_count,
    golden_inputs,
    make_golden,
    read_spec,
)
from boardwright.builder.steps.kinds import (
    BUILD,
    GOLDEN_FILE,
    GRAPH,
    INPUT_SPEC,
    PIN_FILE,
    REPORT_FILE,
    RUNTIME_FILE,
)
from boardwright.content import canonical_json
from boardwright.content.oci import GOLDEN_MEDIA_TYPE, PIN_MEDIA_TYPE, RUNTIME_MEDIA_TYPE
from boardwright.jobs.step_api import OutputFile, Progress, StepError, StepRequest, StepResult, implements
from boardwright.model.host import detect_host
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.graph import GraphFacts, read_graph
from boardwright.toolchains.ort_session import registered_kernels
from boardwright.toolchains.port import BuildRequest, BuiltModel, Toolchain

REPORT_MEDIA_TYPE = "application/vnd.boardwright.compatibility-report.v1+json"

_STAGES = 4


@dataclass(frozen=True, slots=True)
class _Choice:
    board: Board
    toolchain: Toolchain
    runtime: Runtime


@implements(BUILD)
def run(request: StepRequest, progress: Progress) -> StepResult:
    """Build.

    Raises:
        StepError: BOARD_NOT_FOUND, TOOLCHAIN_NEEDS_AGENT, GRAPH_UNSUPPORTED, PROFILE_MISMATCH,
            INPUT_SPEC_DOES_NOT_FIT and the reasons of ``ToolchainError``.
    """
    choice = _choose(request.parameters)
    graph = request.input(GRAPH).path
    try:
        progress(0, _STAGES, "checking compatibility")
        facts = read_graph(graph)
        report = _check(choice, facts)
        progress(1, _STAGES, f"building with {choice.toolchain.name}")
        built = choice.toolchain.build(
            BuildRequest(
                graph,
                choice.board.name,
                choice.board.architecture,
                request.outputs_dir,
                request.parameters["options"],
            )
        )
        progress(2, _STAGES, "running golden samples")
        golden = _golden(request, choice.toolchain, built, facts)
    except ToolchainError as error:
        raise StepError(error.reason, error.message, deterministic=error.reason != "BUILD_FAILED") from error
    progress(3, _STAGES, "writing the report")
    result = _result(request, choice, built, report, golden)
    progress(_STAGES, _STAGES, "built")
    return result


def _choose(parameters: Mapping[str, Any]) -> _Choice:
    try:
        board = shipped_catalogue().board(str(parameters["board"]))
        toolchain = toolchain_named(str(parameters["toolchain"]))
    except BoardUnknown as error:
        raise StepError("BOARD_NOT_FOUND", str(error)) from error
    except ToolchainError as error:
        raise StepError(error.reason, error.message) from error
    if toolchain.name not in board.toolchains:
        raise StepError(
            "TOOLCHAIN_NOT_FOR_BOARD",
            f"{board.title} has the toolchains {', '.join(board.toolchains)}, not {toolchain.name}.",
        )
    return _Choice(board, toolchain, board.runtime(toolchain.runtime))


def _check(choice: _Choice, facts: GraphFacts) -> CompatibilityReport:
    # OpenVINO has no list of its kernels to ask for: there the load decides.
    asks = choice.runtime.operator_support.ask_runtime == "onnxruntime"
    kernels = registered_kernels() if asks and choice.toolchain.availability().available else None
    report = check_compatibility(choice.board, choice.runtime, facts.operators, facts.precision, kernels)
    if not report.supported:
        reason = "GRAPH_UNSUPPORTED" if any(o.placement == "unsupported" for o in report.operators) else ""
        raise StepError(reason or "PROFILE_MISMATCH", " ".join(report.refusals))
    return report


def _golden(request: StepRequest, toolchain: Toolchain, built: BuiltModel, facts: GraphFacts) -> Golden:
    spec = read_spec(request.input(INPUT_SPEC).path)
    session = toolchain.open(built, threads=1)
    check_input(spec, session.inputs)
    count = fitting_count(int(request.parameters["golden_samples"]), spec, session.outputs)
    inputs, source = golden_inputs(request, spec, count)
    others = toolchain.open_alternatives(request.input(GRAPH).path, built)
    return make_golden(inputs, source, spec.name, session, others, integer_graph=facts.precision.is_integer)


def _result(
    request: StepRequest, choice: _Choice, built: BuiltModel, report: CompatibilityReport, golden: Golden
) -> StepResult:
    host = detect_host()
    here = host.board == choice.board.name
    try:
        pin = make_pin(
            choice.board,
            choice.runtime,
            built.runtime_version,
            built.cpu_features,
            request.parameters["pin"],
            host if here else None,
        )
    except PinRefused as error:
        raise StepError("PIN_INVALID", str(error)) from error
    warnings = (*report.warnings, *built.warnings, *golden.warnings)
    document = {
        **report.to_json(),
        "warnings": list(warnings),
        "notes": list(built.notes),
        "kernels": dict(built.kernels),
        "integer_kernels": built.integer_kernels,
        "golden_samples": {
            "count": len(golden.samples),
            "source": golden.source,
            "tolerance": golden.tolerance.explanation,
            "expected_from": f"{built.runtime} {built.runtime_version} on {host.architecture}",
            "emulated": not here,
        },
    }
    files = {file.name: OutputFile(file.path, file.media_type) for file in built.files}
    for name, content, media_type in (
        (GOLDEN_FILE, golden.samples.to_bytes(), GOLDEN_MEDIA_TYPE),
        (REPORT_FILE, canonical_json(document), REPORT_MEDIA_TYPE),
        (RUNTIME_FILE, canonical_json(dict(built.runtime_settings)), RUNTIME_MEDIA_TYPE),
        (PIN_FILE, canonical_json(pin.to_json()), PIN_MEDIA_TYPE),
    ):
        files[name] = _write(request.output_path(name), content, media_type)
    values = {
        "board": choice.board.name,
        "toolchain": choice.toolchain.name,
        "toolchain_version": built.runtime_version,
        "entry": built.entry,
        "files": [file.name for file in built.files],
        "runtime_settings": dict(built.runtime_settings),
        "model_size_bytes": sum(file.path.stat().st_size for file in built.files),
        "pin": pin.to_json(),
        "report": document,
    }
    return StepResult(files, values, warnings)


def _write(path: Path, content: bytes, media_type: str) -> OutputFile:
    path.write_bytes(content)
    return OutputFile(path, media_type)
