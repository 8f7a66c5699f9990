"""What a call costs with 100 versions in a model and with 100,000: lists, gets, promotions."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial

import grpc
from registry_systems import PROJECT, Registry, token

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2_grpc
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.database import Transaction
from boardwright.registry.app import make_recorder, open_database
from boardwright.registry.domain.resources import File, ModelKey, ModelVersion
from boardwright.registry.recording import Call
from boardwright.registry.storage import journal, lineage, versions

MODEL = f"{PROJECT}/models/grown"
KEY = ModelKey("default", "grown")
BOARD = "raspberry-pi-5"
PIN = types.HardwarePin(board=BOARD, architecture="aarch64", runtime="onnxruntime", runtime_version="1.31.1")
_BATCH = 2000
_GATES = [
    pb.Gate(stage="production", accuracy_drop=pb.AccuracyDrop(metric="top1", max_drop_points=1)),
    pb.Gate(stage="production", latency_ceiling=pb.LatencyCeiling(board=BOARD, statistic="p95", max_ms=33)),
]


def fill(url: str, count: int, digest: str) -> None:
    """Add `count` versions with their lineage, audit records and events, as pushes would have."""

    async def run() -> None:
        database = open_database(url)
        recorder = make_recorder(database)
        call = Call("bench", "CreateModelVersion")

        def add(tx: Transaction, batch: int) -> None:
            for _ in range(batch):
                number = journal.next_number(tx, KEY, "version")
                version = ModelVersion(
                    KEY, number, "onnx", (File("model.onnx", digest, 7),), '{"layout":"NCHW"}', "",
                    f"{number:040x}", "", {"team": "edge"}, {"top1": 0.9}, "", "bench", number, "",
                )  # fmt: skip
                name = f"{MODEL}/versions/{number}"
                versions.insert_version(tx, version)
                lineage.add_edges(tx, "default", [lineage.Edge(digest, name, "model.onnx")])
                recorder.record(tx, call, number, "default", name, "version.created", version)

        try:
            for start in range(0, count, _BATCH):
                await database.write(partial(add, batch=min(_BATCH, count - start)))
        finally:
            database.close()

    asyncio.run(run())


class Grown:
    """A registry whose model has many versions, and the calls that are timed on it."""

    def __init__(self, registry: Registry, count: int) -> None:
        self._channel = grpc.insecure_channel(registry.service.endpoint)
        self._stub = registry_pb2_grpc.RegistryStub(self._channel)
        self._blobs = blobs_pb2_grpc.BlobsStub(self._channel)
        self._metadata = token(registry.service)
        self._call(
            self._stub.CreateModel,
            pb.CreateModelRequest(
                parent=PROJECT, model_id="grown", model=pb.Model(task="detection", gates=_GATES)
            ),
        )
        fill(registry.service.environment["BOARDWRIGHT_DATABASE_URL"], count, registry.file.digest)
        self._middle = count // 2
        alias = pb.Alias(name=f"{MODEL}/aliases/prod", version=f"{MODEL}/versions/{self._middle}")
        self._call(self._stub.SetAlias, pb.SetAliasRequest(alias=alias))
        self._releases = [self._release(f"{MODEL}/versions/{n}") for n in (count, count - 1)]
        self._turn = 0
        self._deep = self._deep_token()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _call(self, method: Callable[..., object], request: object) -> object:
        return method(request, metadata=self._metadata)

    def _file(self, text: str) -> types.File:
        request = blobs_pb2.CreateBlobRequest(parent=PROJECT, data=text.encode())
        blob = self._blobs.CreateBlob(request, metadata=self._metadata)
        return types.File(path="file", digest=blob.digest, size_bytes=len(text))

    def _release(self, version: str) -> str:
        """A release of one variant that passes both gates."""
        for variant in ("baseline", "int8"):
            request = pb.CreateVariantRequest(
                parent=version, variant_id=variant, variant=pb.Variant(graph=self._file(version + variant))
            )
            self._stub.CreateVariant(request, metadata=self._metadata)
            figure = pb.Measurement(
                kind="accuracy", values={"top1": 0.9}, origin=types.ORIGIN_EMULATED,
                dataset="projects/default/datasets/d/versions/1",
            )  # fmt: skip
            self._measure(f"{version}/variants/{variant}", figure)
        artifact = pb.Artifact(
            pin=PIN, toolchain="t", files=[self._file("engine")], manifest_digest=self._file(version).digest
        )
        made = self._stub.CreateArtifact(
            pb.CreateArtifactRequest(parent=f"{version}/variants/int8", artifact=artifact),
            metadata=self._metadata,
        )
        latency = pb.Measurement(
            kind="latency", values={"p95_ms": 20}, origin=types.ORIGIN_MEASURED, board=BOARD, host=PIN
        )
        self._measure(made.name, latency)
        request = pb.CreateReleaseRequest(parent=MODEL, artifacts=[made.name])
        return str(self._stub.CreateRelease(request, metadata=self._metadata).name)

    def _measure(self, parent: str, figure: pb.Measurement) -> None:
        request = pb.CreateMeasurementRequest(parent=parent, measurement=figure)
        self._stub.CreateMeasurement(request, metadata=self._metadata)

    def _deep_token(self) -> str:
        """The token of a page in the middle of the list."""
        first = pb.ListModelVersionsRequest(parent=MODEL, filter=f"number <= {self._middle}", page_size=10)
        answer = self._stub.ListModelVersions(first, metadata=self._metadata)
        return str(answer.next_page_token)

    def calls(self) -> dict[str, Callable[[], object]]:
        """What is timed, by name."""
        number = f"{MODEL}/versions/{self._middle}"
        half = f"number <= {self._middle}"
        return {
            "list, first page of 50": lambda: self._call(
                self._stub.ListModelVersions, pb.ListModelVersionsRequest(parent=MODEL)
            ),
            "list, page in the middle": lambda: self._call(
                self._stub.ListModelVersions,
                pb.ListModelVersionsRequest(parent=MODEL, filter=half, page_size=10, page_token=self._deep),
            ),
            "list by commit": lambda: self._call(
                self._stub.ListModelVersions,
                pb.ListModelVersionsRequest(parent=MODEL, filter=f'commit = "{self._middle:040x}"'),
            ),
            "audit log, first page": lambda: self._call(
                self._stub.ListAuditEvents, pb.ListAuditEventsRequest(parent=PROJECT)
            ),
            "get by number": lambda: self._call(
                self._stub.GetModelVersion, pb.GetModelVersionRequest(name=number)
            ),
            "get latest": lambda: self._call(
                self._stub.GetModelVersion, pb.GetModelVersionRequest(name=f"{MODEL}/versions/latest")
            ),
            "get by alias": lambda: self._call(
                self._stub.GetModelVersion, pb.GetModelVersionRequest(name=f"{MODEL}/versions/prod")
            ),
            "promote, two gates": self._promote,
            "roll back (dry run)": lambda: self._call(
                self._stub.RollBackStage,
                pb.RollBackStageRequest(name=f"{MODEL}/stages/production", validate_only=True),
            ),
        }

    def _promote(self) -> object:
        name = f"{MODEL}/stages/production"
        stage = self._stub.GetStage(pb.GetStageRequest(name=name), metadata=self._metadata)
        self._turn += 1
        request = pb.PromoteReleaseRequest(name=self._releases[self._turn % 2], stage=name, etag=stage.etag)
        return self._call(self._stub.PromoteRelease, request)


def compare(small: Grown, large: Grown, repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds per call on both, in turns, and their ratio."""
    result = {}
    few, many = small.calls(), large.calls()
    for name in ("promote, two gates", *few):  # promotions first once: roll back needs two
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for call, taken in ((few[name], times[0]), (many[name], times[1])):
                started = time.perf_counter()
                call()
                taken.append(1e3 * (time.perf_counter() - started))
        one, other = statistics.median(times[0]), statistics.median(times[1])
        result[name] = {"few_ms": round(one, 3), "many_ms": round(other, 3), "ratio": round(other / one, 2)}
    return result
