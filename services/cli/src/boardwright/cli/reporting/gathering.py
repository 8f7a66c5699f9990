"""What the services know of a version, as the report engine takes it.

A variant is a graph, known by its digest: the steps of compile jobs tell how it was made and judged, the
registry what it is called and what it costs on boards. Figures of one dataset alone are shown side by side.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardwright.api.jobs.v1.jobs_pb2 import Job, Step
    from boardwright.api.registry.v1.registry_pb2 import Artifact, Measurement, Variant
    from boardwright.client import Client
    from boardwright.compiler.engine.report import Cost, MadeVariant, ReportData

MODEL = "model.onnx"
DOCUMENTS = ("calibration-record.json", "protection.json", "profile.json", "ablation.json")
TAKEN = ("calibration-record.json", "protection.json", "recovered.onnx")
OF_EACH_VARIANT = ("diagnosis.json",)
_JOBS = 300
_MAX_DOCUMENT_BYTES = 64 << 20
_EVALUATE = "compile/evaluate"


@dataclass(slots=True)
class _Found:
    """What steps told, the newest first: how graphs were made and judged, and what was written of them."""

    made: dict[str, MadeVariant] = field(default_factory=dict)
    judged: dict[tuple[str, str, int], Mapping[str, Any]] = field(default_factory=dict)
    documents: dict[tuple[str, str], str] = field(default_factory=dict)

    def newest_documents(self) -> list[tuple[str, str, str]]:
        """Name, graph and digest: of most kinds the newest alone, since a report shows one."""
        shown: set[str] = set()
        held = []
        for (name, graph), digest in self.documents.items():
            if name in OF_EACH_VARIANT or name not in shown:
                held.append((name, graph, digest))
            shown.add(name)
        return held


def gather(client: Client, version: str, board: str = "") -> ReportData:
    """Gather everything on a version; `board` is whose speeds are told, by default this machine's.

    Raises:
        NotFound: VERSION_NOT_FOUND, BOARD_NOT_FOUND.
    """
    from boardwright.client.references import shorten
    from boardwright.compiler.engine.report import ReportData

    subject = client.models.version(version)
    if board:
        board = client.boards.get(board).name.removeprefix("boards/")
    elif (here := client.boards.here()) is not None:
        board = here.name.removeprefix("boards/")
    found = _from_jobs(_jobs_of(client, subject.name))
    registered = list(client.models.variants(subject.name))
    dataset, samples = _dataset(found)
    named = _from_registry(client, registered, found, dataset, samples)
    documents = [
        (name, graph, content)
        for name, graph, digest in found.newest_documents()
        if (content := _read(client, digest)) is not None
    ]
    variants = []
    for variant in named:
        own = {name: content for name, graph, content in documents if graph == variant.digest}
        variants.append(replace(variant, documents=own))
    known = {variant.digest for variant in variants}
    rest = {name: content for name, graph, content in documents if graph not in known}
    return ReportData(
        version=shorten(subject.name),
        task=client.models.get(subject.name).task,
        dataset=shorten(dataset),
        samples=samples,
        board=board,
        variants=tuple(variants),
        documents=rest,
    )


def _jobs_of(client: Client, version: str) -> list[Job]:
    parts = version.split("/")
    where = f"title:{json.dumps(f'{parts[3]}@{parts[5]} by ')}"
    jobs = client.jobs.list(kind="compile", where=where, limit=_JOBS)
    return [job for job in jobs if json.loads(job.spec_json).get("version") == version]


def _from_jobs(jobs: Iterable[Job]) -> _Found:
    """The newest job tells first; what an older one says of the same graph is left."""
    from boardwright.api.jobs.v1.jobs_pb2 import Step

    found = _Found()
    for job in jobs:
        spec = json.loads(job.spec_json)
        plan = {entry["step"]: entry for entry in spec["plan"]}
        for step in job.steps:
            if step.state == Step.STATE_SUCCEEDED and step.step in plan:
                _note(found, step, plan[step.step], str(spec["recipe"]["name"]))
    return found


def _note(found: _Found, step: Step, planned: Mapping[str, Any], recipe: str) -> None:
    from boardwright.compiler.engine.report import MadeVariant

    values = json.loads(step.values_json or "{}")
    source = step.inputs[MODEL].digest if MODEL in step.inputs else ""
    graph = source
    if planned["makes_variant"] and MODEL in step.outputs:
        graph = step.outputs[MODEL].digest
        made = MadeVariant(
            name=str(planned["variant"]),
            digest=graph,
            kind=step.kind,
            source=source,
            recipe=recipe,
            profile=str(planned.get("profile", "")),
            size_bytes=step.outputs[MODEL].size_bytes,
            parameters={k: v for k, v in json.loads(step.parameters_json or "{}").items() if k != "import"},
            values={**values, "warnings": list(step.warnings)},
            given=tuple(name for name in TAKEN if name in step.inputs),
        )
        found.made.setdefault(graph, made)
    if step.kind == _EVALUATE and planned.get("dataset") and not values.get("augmentation"):
        conditions = (graph, str(planned["dataset"]), int(values.get("samples", 0)))
        found.judged.setdefault(conditions, values)
    for name in (*DOCUMENTS, *OF_EACH_VARIANT):
        if name in step.outputs and step.outputs[name].size_bytes <= _MAX_DOCUMENT_BYTES:
            found.documents.setdefault((name, graph), step.outputs[name].digest)


def _dataset(found: _Found) -> tuple[str, int]:
    """The dataset, and of how many of its samples, that most graphs were judged on; of equals the newest."""
    counts = Counter((dataset, samples) for _, dataset, samples in found.judged)
    return max(counts, key=lambda conditions: counts[conditions], default=("", 0))


def _from_registry(
    client: Client, registered: Sequence[Variant], found: _Found, dataset: str, samples: int
) -> list[MadeVariant]:
    """Variants by graph, the oldest first and the baseline before all; those of failed jobs come last."""
    from boardwright.compiler.engine.report import MadeVariant

    by_graph: dict[str, list[Variant]] = {}
    for held in reversed(registered):
        by_graph.setdefault(held.graph.digest, []).append(held)
    variants = []
    for digest, names in by_graph.items():
        shortest = min(names, key=lambda held: len(held.name))
        label = shortest.name.rpartition("/")[2]
        made = found.made.get(digest) or MadeVariant(
            label, digest, "compile/import" if label == "baseline" else "", recipe=shortest.recipe
        )
        costs = _costs(client, names)
        variants.append(
            replace(made, name=label, profile=shortest.quantization_profile, costs=costs,
                    size_bytes=shortest.graph.size_bytes)
        )  # fmt: skip
    variants += [made for digest, made in reversed(found.made.items()) if digest not in by_graph]
    judged = []
    for variant in variants:
        values = found.judged.get((variant.digest, dataset, samples), {})
        judged.append(
            replace(
                variant,
                accuracy=values.get("accuracy") or {},
                parity=values.get("parity") or {},
                intervals=values.get("intervals") or {},
            )
        )
    return sorted(judged, key=lambda held: held.name != "baseline")


def _costs(client: Client, variants: Iterable[Variant]) -> tuple[Cost, ...]:
    """The newest artifact for each board and toolchain."""
    newest: dict[tuple[str, str], Cost] = {}
    for variant in variants:
        measurements = list(client.models.measurements(variant.name))
        for artifact in client.models.artifacts(variant.name):
            own = [held for held in measurements if held.name.startswith(artifact.name + "/")]
            cost = _cost(artifact, own)
            known = newest.get((cost.board, cost.toolchain))
            if known is None or (not known.latencies_ms and cost.latencies_ms):
                newest[cost.board, cost.toolchain] = cost
    return tuple(newest[key] for key in sorted(newest))


def _cost(artifact: Artifact, measurements: Iterable[Measurement]) -> Cost:
    from boardwright.client.board_figures import costs_of
    from boardwright.compiler.engine.report import Cost

    board = artifact.pin.board
    found = costs_of(artifact, board, measurements)
    return Cost(
        board,
        artifact.toolchain,
        found.size_bytes,
        found.memory_bytes,
        found.latencies_ms,
        board if found.latencies_ms else "",
        found.warnings,
    )


def _read(client: Client, digest: str) -> Mapping[str, Any] | None:
    """A JSON document; None where it was collected meanwhile or is none."""
    from boardwright.client import NotFound

    with tempfile.TemporaryDirectory() as folder:
        try:
            text = client.content.download(digest, Path(folder) / "document.json").read_text("utf-8")
        except NotFound:
            return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
