"""What a variant costs on a board: size, latency and memory, from Measurements made on that very board."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2
from boardwright.client.progress import Progress
from boardwright.content.oci import WEIGHTS_MEDIA_TYPE
from boardwright.rpc.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from boardwright.client.client import Client

_ELSEWHERE = ("TOOLCHAIN_NEEDS_AGENT", "BOARD_NEEDS_AGENT")


@dataclass(frozen=True, slots=True)
class Costs:
    """Figures of one artifact; `missing` says of "latency", "memory" and "size" why they are not known.

    `warnings` are what the runs that gave them had to say, such as that the host was busy.
    """

    artifact: str = ""
    toolchain: str = ""
    size_bytes: float | None = None
    memory_bytes: float | None = None
    latencies_ms: dict[int, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class BoardFigures:
    """Builds and measures; what was built or measured before is taken as it is."""

    def __init__(
        self,
        client: Client,
        golden: str,
        *,
        toolchains: Mapping[str, Sequence[str]] | None = None,
        runs: int = 0,
        retry: bool = False,
    ) -> None:
        self._client = client
        self._toolchains = dict(toolchains or {})
        self._golden = golden
        self._runs = runs
        self._retry = retry
        self._baselines: dict[tuple[str, str], str] = {}

    def of(self, variant: str, board: str, *, is_baseline: bool, progress: Progress) -> Costs:
        """The costs of a variant on a board, by that of its toolchains which makes it fastest.

        Raises:
            JobFailed, FailedPrecondition: every toolchain failed; how the first one did.
        """
        found: list[Costs] = []
        refused: FailedPrecondition | None = None
        for toolchain in self._toolchains.get(board, ("",)):
            try:
                found.append(self._by(toolchain, variant, board, is_baseline, progress))
            except FailedPrecondition as error:
                refused = refused or error
        if not found and refused is not None:
            raise refused
        return min(found, key=lambda costs: costs.latencies_ms.get(1, {}).get("p50_ms", math.inf))

    def _by(self, toolchain: str, variant: str, board: str, is_baseline: bool, progress: Progress) -> Costs:
        """The costs by one toolchain; "" is the board's first.

        Where this installation cannot build or measure for the board, what an agent measured there before
        counts; without that the figures stay unknown. Nothing is measured elsewhere in the board's place.

        Raises:
            JobFailed: the build or the measurement failed.
            FailedPrecondition: PROFILE_MISMATCH and what else refuses a build.
        """
        artifact, why = self._built_or_found(variant, board, toolchain, progress)
        if artifact is None:
            graph = self._client.models.variant(variant).graph
            told = f"no measurement for that board: it was not built for it: {_brief(why)}"
            return Costs(size_bytes=graph.size_bytes, missing={"latency": told, "memory": told})
        if is_baseline:
            self._baselines[board, toolchain] = artifact.name
        found = self._known(artifact, board)
        if not found.latencies_ms:
            beside = self._baselines.get((board, toolchain), "")
            why = self._measure(artifact, beside, board, progress)
            found = self._known(artifact, board) if not why else found
        if why and not found.latencies_ms:
            told = f"no measurement for that board: {_brief(why)}"
            found.missing.update({"latency": told} | ({"memory": told} if found.memory_bytes is None else {}))
        return found

    def latencies(self, artifact: str, board: str) -> dict[int, dict[str, float]]:
        """An artifact's newest latencies on a board."""
        return self._known(self._client.models.artifact(artifact), board).latencies_ms

    def _built_or_found(
        self, variant: str, board: str, toolchain: str, progress: Progress
    ) -> tuple[pb.Artifact | None, str]:
        """The artifact; where it cannot be built here, the newest that an agent built, and why not here."""
        models = self._client.models
        try:
            job = self._client.build(
                variant, board, toolchain=toolchain, golden_dataset=self._golden, retry_failed=self._retry
            )
            job = self._client.jobs.wait(job.name, progress=progress)
        except FailedPrecondition as error:
            if error.reason not in _ELSEWHERE:
                raise
            try:
                return models.newest_artifacts(variant, board=board)[0], error.message
            except NotFound:
                return None, error.message
        return models.artifact(next(name for name in job.results if "/artifacts/" in name)), ""

    def _measure(self, artifact: pb.Artifact, baseline: str, board: str, progress: Progress) -> str:
        """Measure beside the baseline, so that the ratio holds; returns why it could not be done, or ""."""
        together = [name for name in dict.fromkeys((baseline, artifact.name)) if name]
        try:
            job = self._client.measure(together, board=board, runs=self._runs)
            self._client.jobs.wait(job.name, progress=progress)
        except FailedPrecondition as error:
            if error.reason not in _ELSEWHERE:
                raise
            return error.message
        return ""

    def _known(self, artifact: pb.Artifact, board: str) -> Costs:
        return costs_of(artifact, board, self._client.models.measurements(artifact.name))


def _brief(message: str) -> str:
    """The first sentence of a refusal: the rest says what else could be asked for, which is not for here."""
    return message.partition(". ")[0].removesuffix(".")


def size_to_load(artifact: pb.Artifact) -> int:
    """The bytes that the runtime loads: the first file, and weights that stand beside it (OpenVINO's)."""
    if not artifact.files:
        return artifact.size_bytes
    weights = (file.size_bytes for file in artifact.files[1:] if file.media_type == WEIGHTS_MEDIA_TYPE)
    return artifact.files[0].size_bytes + sum(weights)


def costs_of(artifact: pb.Artifact, board: str, measurements: Iterable[pb.Measurement]) -> Costs:
    """An artifact's costs by its newest Measurements (a list is newest first); emulated ones do not count."""
    size = size_to_load(artifact)
    latencies: dict[int, dict[str, float]] = {}
    memory: float | None = None
    warnings: list[str] = []
    for found in measurements:
        if found.origin != types_pb2.ORIGIN_MEASURED or found.board != board:
            continue
        if found.kind == "latency":
            if found.threads not in latencies:
                latencies[found.threads] = dict(found.values)
                warnings += warnings_of(found)
        elif found.kind == "memory" and memory is None:
            memory = found.values.get("peak_rss_bytes")
    told = tuple(dict.fromkeys(warnings))
    return Costs(artifact.name, artifact.toolchain, size, memory, latencies, warnings=told)


def warnings_of(measurement: pb.Measurement) -> list[str]:
    """What the run that gave a figure had to say, such as that the host was busy."""
    details = json.loads(measurement.details_json or "{}")
    return [str(text) for text in details.get("warnings", ())]
