"""Registry, calibration, builder and a worker as real processes: build for two boards, measure, go on."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from boardwright.api.builder.v1 import builder_pb2, builder_pb2_grpc
from boardwright.api.calibration.v1 import calibration_pb2, calibration_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.api.types.v1 import types_pb2
from boardwright.builder.settings import MIGRATIONS
from boardwright.content import Digest, digest_file
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_app import DirectoryApp
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.content.transfer import BlobTransfer
from boardwright.model.golden import GoldenSamples
from boardwright.model.host import detect_host
from boardwright.model.input_spec import InputSpec
from boardwright.rpc.client import connect_sync
from boardwright.rpc.errors import from_rpc_error
from boardwright.samples import FoundSample, write_packs
from boardwright.testing import sample_graphs
from boardwright.testing.asgi_server import listening_socket, serve_asgi
from boardwright.testing.database import database_url_fixture
from boardwright.testing.services import RunningService, running_service, service_environment

PARENT = "projects/default"
SPEC = InputSpec(name="image", height=16, width=16, scale=1 / 127.5, mean=(1.0, 1.0, 1.0))
ENDED = (jobs_pb2.Job.STATE_SUCCEEDED, jobs_pb2.Job.STATE_FAILED, jobs_pb2.Job.STATE_CANCELLED)

database_url = database_url_fixture("builder", MIGRATIONS)


@dataclass
class Stack:
    """Running services and what a test does with them."""

    registry: RunningService
    calibration: RunningService
    builder: RunningService
    folder: Path

    @contextlib.contextmanager
    def stub(self, service: RunningService, stub: Callable[[grpc.Channel], Any]) -> Iterator[Any]:
        """A stub as an administrator."""
        with connect_sync(service.endpoint, token="test-token-admin") as channel:
            yield stub(channel)

    @contextlib.contextmanager
    def worker(self, name: str = "worker-1") -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker process."""
        environment = service_environment(self.folder, "worker") | {
            "BOARDWRIGHT_WORKER_ENDPOINTS": self.builder.endpoint,
            "BOARDWRIGHT_REGISTRY_ENDPOINT": self.registry.endpoint,
            "BOARDWRIGHT_SERVICE_TOKEN": "test-token-worker",
            "BOARDWRIGHT_WORKER_FOLDER": str(self.folder / name),
            "BOARDWRIGHT_WORKER_NAME": name,
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "boardwright.jobs.worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)

    def push(self) -> dict[str, str]:
        """Push the classifier with a float and a quantized variant; returns the variants' names."""
        graphs = {
            "baseline": sample_graphs.write_classifier(self.folder / "baseline.onnx"),
            "int8": sample_graphs.write_quantized_classifier(self.folder / "int8.onnx", weight_bits=7),
        }
        with self.stub(self.registry, registry_pb2_grpc.RegistryStub) as registry:
            registry.CreateModel(
                registry_pb2.CreateModelRequest(
                    parent=PARENT, model_id="digits", model=registry_pb2.Model(task="classification")
                )
            )
            files = {name: self.upload(path) for name, path in graphs.items()}
            version = registry_pb2.ModelVersion(
                format="onnx", files=[files["baseline"]], input_spec_json=json.dumps(SPEC.to_json())
            )
            made = registry.CreateModelVersion(
                registry_pb2.CreateModelVersionRequest(parent=f"{PARENT}/models/digits", version=version)
            )
            return {
                name: registry.CreateVariant(
                    registry_pb2.CreateVariantRequest(
                        parent=made.name, variant_id=name, variant=registry_pb2.Variant(graph=file)
                    )
                ).name
                for name, file in files.items()
            }

    def upload(self, path: Path) -> types_pb2.File:
        """Upload a file; returns its message."""
        with self.stub(self.registry, blobs_pb2_grpc.BlobsStub) as blobs:
            BlobTransfer(blobs).upload("default", path)
        return types_pb2.File(
            path=path.name,
            digest=str(digest_file(path)),
            size_bytes=path.stat().st_size,
            media_type="application/vnd.boardwright.graph.v1+onnx",
        )

    def seal(self) -> str:
        """Seal a dataset of six images; returns its name."""
        random = np.random.default_rng(4)
        samples = []
        for number in range(6):
            stream = io.BytesIO()
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(stream, "png")
            samples.append(FoundSample(f"{number}.png", stream.getvalue(), "image/png", None))
        with self.stub(self.calibration, calibration_pb2_grpc.CalibrationStub) as calibration:
            dataset = calibration.CreateDataset(
                calibration_pb2.CreateDatasetRequest(
                    parent=PARENT, dataset_id="field", dataset=calibration_pb2.Dataset()
                )
            )
            version = calibration.CreateDatasetVersion(
                calibration_pb2.CreateDatasetVersionRequest(parent=dataset.name)
            )
            for pack in write_packs(samples, self.folder / "packs"):
                self.upload(pack.path)
                calibration.AddSamples(
                    calibration_pb2.AddSamplesRequest(
                        parent=version.name,
                        samples=[
                            calibration_pb2.Sample(
                                name=sample.name,
                                digest=sample.digest,
                                size_bytes=sample.size_bytes,
                                media_type=sample.media_type,
                                pack_digest=sample.pack_digest,
                                pack_offset=sample.pack_offset,
                            )
                            for sample in pack.samples
                        ],
                    )
                )
            *_, last = calibration.SealDatasetVersion(
                calibration_pb2.SealDatasetVersionRequest(name=version.name)
            )
            return str(last.version.name)

    def build(self, variant: str, board: str, **order: Any) -> jobs_pb2.Job:
        """Start a build."""
        with self.stub(self.builder, builder_pb2_grpc.BuilderStub) as builder:
            return builder.CreateBuildJob(
                builder_pb2.CreateBuildJobRequest(parent=PARENT, variant=variant, board=board, **order)
            )

    def measure(self, artifacts: list[str], **order: Any) -> jobs_pb2.Job:
        """Start a measurement."""
        with self.stub(self.builder, builder_pb2_grpc.BuilderStub) as builder:
            return builder.CreateMeasureJob(
                builder_pb2.CreateMeasureJobRequest(parent=PARENT, artifacts=artifacts, **order)
            )

    def wait(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """Watch until the job has succeeded; fails the test with how it stands."""
        with self.stub(self.builder, builder_pb2_grpc.BuilderStub) as builder:
            for seen in builder.WatchBuildJob(jobs_pb2.WatchJobRequest(name=job.name), timeout=90):
                job = seen
        if job.state != jobs_pb2.Job.STATE_SUCCEEDED:
            pytest.fail(f"the job stands at {job}")
        return job

    def artifact(self, name: str) -> registry_pb2.Artifact:
        """Read an artifact."""
        with self.stub(self.registry, registry_pb2_grpc.RegistryStub) as registry:
            return registry.GetArtifact(registry_pb2.GetArtifactRequest(name=name))

    def read(self, digest: str) -> bytes:
        """Download a blob."""
        path = self.folder / "downloaded"
        path.unlink(missing_ok=True)
        with self.stub(self.registry, blobs_pb2_grpc.BlobsStub) as blobs:
            BlobTransfer(blobs).download("default", Digest.parse(digest), path)
        return path.read_bytes()


def _files(folder: Path, url: str) -> Any:
    """What the gateway does for the directory store: it answers signed requests below /transfer."""
    key = b"test-signing-key"
    store = DirectoryStore(folder / "blobs", signing_key=key, public_url=url)
    app = DirectoryApp(DirectoryEndpoint(store, key))

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/transfer"}, receive, send)

    return mounted


@contextlib.contextmanager
def _running(tmp_path: Path, **settings: str) -> Iterator[Stack]:
    """Registry, calibration and builder, each a process."""
    if detect_host().board != "x86-64":
        pytest.skip("these tests measure on an x86-64 host")
    with (
        listening_socket() as (listener, url),
        running_service("registry", {"BOARDWRIGHT_GATEWAY_URL": url}, folder=tmp_path) as registry,
        serve_asgi(_files(tmp_path, url), listener),
        running_service(
            "calibration", {"BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint}, folder=tmp_path
        ) as calibration,
        running_service(
            "builder",
            {
                "BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint,
                "BOARDWRIGHT_CALIBRATION_ENDPOINT": calibration.endpoint,
                **settings,
            },
            folder=tmp_path,
        ) as builder,
    ):
        yield Stack(registry, calibration, builder, tmp_path)


@pytest.fixture
def stack(tmp_path: Path, database_url: str) -> Iterator[Stack]:
    """The builder on either database, the others on SQLite."""
    with _running(tmp_path, BOARDWRIGHT_DATABASE_URL=database_url) as running:
        yield running


@pytest.fixture
def sqlite_stack(tmp_path: Path) -> Iterator[Stack]:
    """All on SQLite, for what no database changes."""
    with _running(tmp_path) as running:
        yield running


def test_variants_become_artifacts_for_two_boards_and_figures(stack: Stack) -> None:
    variants, dataset = stack.push(), stack.seal()
    with stack.worker():
        jobs = [
            stack.build(variants["baseline"], "host", golden_dataset=dataset),
            stack.build(variants["int8"], "host", golden_dataset=dataset),
            stack.build(variants["int8"], "raspberry-pi-5"),
        ]
        results = [list(stack.wait(job).results) for job in jobs]
        baseline, int8, arm = (stack.artifact(names[0]) for names in results)

        assert (int8.pin.board, int8.pin.runtime, arm.pin.architecture) == (
            "x86-64",
            "onnxruntime",
            "aarch64",
        )
        assert [file.path for file in arm.files] == [
            "model.ort",
            "compatibility.json",
            "golden.npz",
            "pin.json",
            "runtime.json",
        ]
        golden = GoldenSamples.from_bytes(stack.read(int8.files[2].digest))
        assert len(golden) == 4
        layers = json.loads(stack.read(int8.manifest_digest))["layers"]
        assert [layer["digest"] for layer in layers] == [file.digest for file in int8.files]
        assert json.loads(int8.details_json)["report"]["integer_kernels"] == 3

        measured = stack.wait(stack.measure([baseline.name, int8.name], runs=30))
        assert len(measured.results) == 8, measured.steps[0].warnings
        again = stack.wait(stack.measure([baseline.name, int8.name], runs=30))
        assert again.steps[0].cached and list(again.results) == list(measured.results)

        with pytest.raises(grpc.RpcError) as refused:
            stack.measure([arm.name])
        assert from_rpc_error(refused.value).reason == "BOARD_NEEDS_AGENT"
        stack.wait(stack.measure([arm.name], runs=20, allow_emulated=True))

    with stack.stub(stack.registry, registry_pb2_grpc.RegistryStub) as registry:
        figures = registry.ListMeasurements(
            registry_pb2.ListMeasurementsRequest(parent=int8.name)
        ).measurements
        emulated = registry.ListMeasurements(
            registry_pb2.ListMeasurementsRequest(parent=arm.name)
        ).measurements
        lineage = registry.GetLineage(registry_pb2.GetLineageRequest(parent=PARENT, id=int8.files[0].digest))
    latency = {figure.threads: figure for figure in figures if figure.kind == "latency"}
    assert set(latency) == {0, 1} and latency[1].origin == types_pb2.ORIGIN_MEASURED
    assert latency[1].values["p95_ms"] >= latency[1].values["p50_ms"] > 0
    assert latency[1].values["speedup"] > 0 and latency[1].host.board == "x86-64"
    assert {figure.origin for figure in emulated} == {types_pb2.ORIGIN_EMULATED}
    assert "build/build" in {node.title for node in lineage.nodes}


def test_two_runtimes_of_one_board_are_compared(sqlite_stack: Stack) -> None:
    from boardwright.toolchains.openvino_session import runtime_version

    if not runtime_version():
        pytest.skip("OpenVINO is not installed (pip install openvino)")
    stack = sqlite_stack
    variants = stack.push()
    with stack.worker():
        jobs = [stack.build(variants["int8"], "host", toolchain=name) for name in ("onnxruntime", "openvino")]
        first, second = (stack.artifact(stack.wait(job).results[0]) for job in jobs)
        assert (second.toolchain, second.pin.runtime) == ("openvino", "openvino")
        assert second.pin.runtime_version == runtime_version() and first.pin.board == second.pin.board
        assert [file.path for file in second.files][:2] == ["model.xml", "model.bin"]
        done = stack.wait(stack.measure([first.name, second.name], runs=20))
        assert len(done.results) == 8, done.steps[0].warnings
    with stack.stub(stack.registry, registry_pb2_grpc.RegistryStub) as registry:
        figures = registry.ListMeasurements(
            registry_pb2.ListMeasurementsRequest(parent=second.name)
        ).measurements
    latency = [figure for figure in figures if figure.kind == "latency"]
    assert len(latency) == 2 and all(figure.values["speedup"] > 0 for figure in latency)
    assert {figure.host.runtime for figure in figures} == {"openvino"}


def test_a_registry_that_is_away_costs_only_time(sqlite_stack: Stack) -> None:
    stack = sqlite_stack
    variants = stack.push()
    with stack.worker():
        done = stack.wait(stack.build(variants["baseline"], "host"))
        stack.registry.kill()
        stack.builder.kill()
        stack.builder.environment["BOARDWRIGHT_BUILDER_LISTEN"] = stack.builder.endpoint
        stack.builder.start()
        with stack.stub(stack.builder, builder_pb2_grpc.BuilderStub) as builder:
            known = builder.GetBuildJob(jobs_pb2.GetJobRequest(name=done.name))
            assert list(known.results) == list(done.results)
            with pytest.raises(grpc.RpcError) as refused:
                stack.build(variants["int8"], "host")
            assert from_rpc_error(refused.value).code == "UNAVAILABLE"
            assert len(builder.ListBoards(builder_pb2.ListBoardsRequest()).boards) == 5
        stack.registry.environment["BOARDWRIGHT_REGISTRY_LISTEN"] = stack.registry.endpoint
        stack.registry.start()
        assert stack.wait(stack.build(variants["int8"], "host")).results


def test_the_catalogue_is_served_without_any_neighbour(tmp_path: Path) -> None:
    away = dict.fromkeys(("BOARDWRIGHT_REGISTRY_ENDPOINT", "BOARDWRIGHT_CALIBRATION_ENDPOINT"), "127.0.0.1:9")
    with (
        running_service("builder", away, folder=tmp_path) as service,
        connect_sync(service.endpoint, token="test-token-viewer") as channel,
    ):
        builder = builder_pb2_grpc.BuilderStub(channel)
        page = builder.ListBoards(builder_pb2.ListBoardsRequest(page_size=3))
        rest = builder.ListBoards(builder_pb2.ListBoardsRequest(page_size=3, page_token=page.next_page_token))
        names = [board.name for board in (*page.boards, *rest.boards)]
        assert names == [
            "boards/imx8m-plus",
            "boards/jetson-orin-nx",
            "boards/raspberry-pi-5",
            "boards/sk-tda4vm",
            "boards/x86-64",
        ]
        assert [board.here for board in (*page.boards, *rest.boards)] == [False, False, False, False, True]
        arm = builder.ListBoards(
            builder_pb2.ListBoardsRequest(filter='architecture = "aarch64" AND toolchains : "tensorrt"')
        )
        assert [board.name for board in arm.boards] == ["boards/jetson-orin-nx"]
        host = builder.GetBoard(builder_pb2.GetBoardRequest(name="boards/host"))
        assert host.name == "boards/x86-64" and json.loads(host.entry_json)["sources"]
        toolchains = {
            t.name: t for t in builder.ListToolchains(builder_pb2.ListToolchainsRequest()).toolchains
        }
        assert toolchains["toolchains/onnxruntime"].available
        assert "Jetson" in toolchains["toolchains/tensorrt"].waits_for
        with pytest.raises(grpc.RpcError) as unknown:
            builder.GetBoard(builder_pb2.GetBoardRequest(name="boards/raspberry-pi5"))
        assert "raspberry-pi-5" in from_rpc_error(unknown.value).message


def test_migrate_and_wrong_settings_have_their_exit_codes(tmp_path: Path) -> None:
    environment = service_environment(tmp_path, "builder")
    command = [sys.executable, "-m", "boardwright.builder"]
    assert subprocess.run([*command, "migrate"], env=environment, check=False).returncode == 0
    assert (tmp_path / "builder.db").exists()
    refused = subprocess.run(
        [*command, "serve"], env=environment, check=False, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "BOARDWRIGHT_REGISTRY_ENDPOINT is not set" in refused.stderr
