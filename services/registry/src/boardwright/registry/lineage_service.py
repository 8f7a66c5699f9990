"""Lineage, the audit log and the event log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from boardwright.database import Transaction
from boardwright.database.outbox import Event
from boardwright.registry import checks
from boardwright.registry.domain.lineage import DEFAULT_DEPTH, MAX_DEPTH, Direction, Edge, Graph, walk
from boardwright.registry.domain.resources import AuditEvent
from boardwright.registry.errors import field_invalid
from boardwright.registry.ports import BlobReferences, Page
from boardwright.registry.recording import Call, Recorder
from boardwright.rpc.errors import NotFound


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step that ran: its in-toto record, and the digests that went in and came out, by name."""

    record_digest: str
    kind: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class LineageService:
    """See the module."""

    def __init__(self, recorder: Recorder, blobs: BlobReferences) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._stores = recorder.stores
        self._blobs = blobs

    async def record_step(self, call: Call, project: str, step: StepRecord) -> None:
        """Add a step to the graph; the same step again changes nothing.

        Raises: NotFound BLOB_NOT_FOUND (the record), InvalidArgument FIELD_INVALID.
        """
        checks.digest("record_digest", step.record_digest)
        checks.text("kind", step.kind, 128)
        for field, named in (("inputs", step.inputs), ("outputs", step.outputs)):
            for name, digest in named.items():
                checks.text(field, name, 512)
                checks.digest(f"{field}.{name}", digest)

        def change(tx: Transaction, now: int) -> None:
            checks.blobs(tx, self._blobs, project, [], [step.record_digest])
            if not self._stores.lineage.add_step(tx, project, step.record_digest, step.kind, now):
                return
            edges = [Edge(digest, step.record_digest, name) for name, digest in step.inputs.items()]
            edges += [Edge(step.record_digest, digest, name) for name, digest in step.outputs.items()]
            self._stores.lineage.add_edges(tx, project, edges)
            subject = f"projects/{project}/steps/{step.record_digest}"
            self._blobs.hold(tx, project, subject, [step.record_digest])
            self._recorder.record(
                tx, call, now, project, subject, "step.recorded",
                {"kind": step.kind, "inputs": dict(step.inputs), "outputs": dict(step.outputs)},
            )  # fmt: skip

        await self._recorder.change(f"{project}/lineage", change)

    async def get(
        self, project: str, start: str, directions: Sequence[Direction], depth: int
    ) -> tuple[Graph, dict[str, str]]:
        """The graph around a digest or resource name, and the kinds of the steps in it.

        Raises: NotFound LINEAGE_NOT_FOUND, InvalidArgument FIELD_INVALID.
        """
        if not 0 <= depth <= MAX_DEPTH:
            raise field_invalid("depth", f"must be from 1 to {MAX_DEPTH}")

        def read(tx: Transaction) -> tuple[Graph, dict[str, str]]:
            graph = walk(
                start,
                directions,
                lambda ids, direction: self._stores.lineage.edges_of(tx, project, ids, direction),
                depth=depth or DEFAULT_DEPTH,
            )
            steps = self._stores.lineage.step_kinds(tx, project, graph.nodes)
            if not graph.edges and not steps and not self._known(tx, project, start):
                raise NotFound(
                    "LINEAGE_NOT_FOUND", f"nothing is recorded about {start} in project {project}", id=start
                )
            return graph, steps

        return await self._database.read(read)

    def _known(self, tx: Transaction, project: str, start: str) -> bool:
        """Whether a node without edges in the asked direction has some in the other."""
        return any(
            self._stores.lineage.edges_of(tx, project, [start], d) for d in ("ancestors", "descendants")
        )

    async def list_audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        """Newest first. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.journal.list_audit_events(tx, project, page))

    def watch(self, project: str, cursor: str) -> AsyncIterator[Event]:
        """Events of a project after `cursor`, for ever. Raises: OutOfRange, InvalidArgument."""
        return self._recorder.outbox.watch(cursor, subject_prefix=f"projects/{project}/")
