"""Registry, calibration, compiler and a worker as real processes: push, compile, kill, and go on."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boardwright.api.calibration.v1 import calibration_pb2, calibration_pb2_grpc
from boardwright.api.compiler.v1 import compiler_pb2, compiler_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.api.types.v1 import types_pb2
from boardwright.content import digest_file
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_app import DirectoryApp
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.client import connect_sync
from boardwright.samples import FoundSample, write_packs
from boardwright.testing.asgi_server import listening_socket, serve_asgi
from boardwright.testing.services import RunningService, running_service, service_environment

PARENT = "projects/default"
SPEC = '{"height": 16, "width": 16, "resize": "stretch"}'
NETWORK = """
import time
import torch

def build_network():
    time.sleep(%s)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    torch.nn.init.dirac_(network[0].weight)
    network[0].bias.data.zero_()
    return network
"""


@dataclass
class Stack:
    """Running services and what a test does with them."""

    registry: RunningService
    calibration: RunningService
    compiler: RunningService
    folder: Path

    def channel(self, service: RunningService):
        """A channel as a developer."""
        return connect_sync(service.endpoint, token="test-token-admin")

    @contextlib.contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker process."""
        environment = service_environment(self.folder, "worker") | {
            "BOARDWRIGHT_WORKER_ENDPOINTS": self.compiler.endpoint,
            "BOARDWRIGHT_REGISTRY_ENDPOINT": self.registry.endpoint,
            "BOARDWRIGHT_SERVICE_TOKEN": "test-token-worker",
            "BOARDWRIGHT_WORKER_FOLDER": str(self.folder / name),
            "BOARDWRIGHT_WORKER_NAME": name,
            "BOARDWRIGHT_READY_FILE": str(self.folder / f"{name}.ready"),
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

    def push(self, build_seconds: float) -> str:
        """Push a network as a state dict with its module; returns the version's name."""
        module = self.folder / "net.py"
        module.write_text(NETWORK % build_seconds)
        scope: dict[str, object] = {}
        exec(NETWORK % 0, scope)
        weights = self.folder / "weights.pt"
        torch.save(scope["build_network"]().state_dict(), weights)
        with self.channel(self.registry) as channel:
            registry = registry_pb2_grpc.RegistryStub(channel)
            registry.CreateModel(
                registry_pb2.CreateModelRequest(
                    parent=PARENT, model_id="net", model=registry_pb2.Model(task="classification")
                )
            )
            files = [self._upload(channel, path) for path in (weights, module)]
            version = registry_pb2.ModelVersion(format="torch-state-dict", files=files, input_spec_json=SPEC)
            request = registry_pb2.CreateModelVersionRequest(parent=f"{PARENT}/models/net", version=version)
            return registry.CreateModelVersion(request).name

    def _upload(self, channel, path: Path) -> types_pb2.File:
        BlobTransfer(blobs_pb2_grpc.BlobsStub(channel)).upload("default", path)
        return types_pb2.File(
            path=path.name,
            digest=str(digest_file(path)),
            size_bytes=path.stat().st_size,
            media_type="application/octet-stream",
        )

    def seal(self, name: str, count: int, seed: int) -> str:
        """Make and seal a dataset of images whose strongest channel is their class; returns its name."""
        rng = np.random.default_rng(seed)
        samples = []
        for number in range(count):
            image = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
            image[:, :, number % 3] += 120
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "png")
            samples.append(FoundSample(f"{number}.png", stream.getvalue(), "image/png", number % 3))
        with self.channel(self.registry) as registry, self.channel(self.calibration) as channel:
            calibration = calibration_pb2_grpc.CalibrationStub(channel)
            dataset = calibration.CreateDataset(
                calibration_pb2.CreateDatasetRequest(
                    parent=PARENT, dataset_id=name, dataset=calibration_pb2.Dataset(task="classification")
                )
            )
            version = calibration.CreateDatasetVersion(
                calibration_pb2.CreateDatasetVersionRequest(parent=dataset.name, classes=["r", "g", "b"])
            )
            for pack in write_packs(samples, self.folder / name):
                self._upload(registry, pack.path)
                calibration.AddSamples(
                    calibration_pb2.AddSamplesRequest(
                        parent=version.name,
                        samples=[
                            calibration_pb2.Sample(
                                name=s.name,
                                digest=s.digest,
                                size_bytes=s.size_bytes,
                                media_type=s.media_type,
                                pack_digest=s.pack_digest,
                                pack_offset=s.pack_offset,
                                label=calibration_pb2.Label(class_id=s.label),
                            )
                            for s in pack.samples
                        ],
                    )
                )
            *_, last = calibration.SealDatasetVersion(
                calibration_pb2.SealDatasetVersionRequest(name=version.name)
            )
            return last.version.name

    def compile(self, version: str, **datasets: str) -> jobs_pb2.Job:
        """Start the default recipe."""
        with self.channel(self.compiler) as channel:
            return compiler_pb2_grpc.CompilerStub(channel).CreateCompileJob(
                compiler_pb2.CreateCompileJobRequest(
                    parent=PARENT, version=version, recipe_name="default", datasets=datasets
                )
            )

    def job(self, name: str) -> jobs_pb2.Job:
        """The job as it stands."""
        with self.channel(self.compiler) as channel:
            return compiler_pb2_grpc.CompilerStub(channel).GetCompileJob(jobs_pb2.GetJobRequest(name=name))

    def wait(self, name: str, until: Callable[[jobs_pb2.Job], bool], seconds: float = 300) -> jobs_pb2.Job:
        """Wait until the job is as wanted; fails the test with how it stands."""
        deadline = time.monotonic() + seconds
        while not until(job := self.job(name)):
            if time.monotonic() > deadline or job.state in ENDED:
                pytest.fail(f"the job stands at {job}")
            time.sleep(0.1)
        return job


ENDED = (jobs_pb2.Job.STATE_SUCCEEDED, jobs_pb2.Job.STATE_FAILED, jobs_pb2.Job.STATE_CANCELLED)


def succeeded(job: jobs_pb2.Job) -> bool:
    return job.state == jobs_pb2.Job.STATE_SUCCEEDED


def _files(folder: Path, url: str) -> Any:
    """What the gateway does for the directory store: it answers signed requests below /transfer."""
    key = b"test-signing-key"
    store = DirectoryStore(folder / "blobs", signing_key=key, public_url=url)
    app = DirectoryApp(DirectoryEndpoint(store, key))

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/transfer"}, receive, send)

    return mounted


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Registry, calibration and compiler, each a process on SQLite."""
    with (
        listening_socket() as (listener, url),
        running_service("registry", {"BOARDWRIGHT_GATEWAY_URL": url}, folder=tmp_path) as registry,
        serve_asgi(_files(tmp_path, url), listener),
        running_service(
            "calibration", {"BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint}, folder=tmp_path
        ) as calibration,
        running_service(
            "compiler",
            {
                "BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint,
                "BOARDWRIGHT_CALIBRATION_ENDPOINT": calibration.endpoint,
            },
            folder=tmp_path,
        ) as compiler,
    ):
        yield Stack(registry, calibration, compiler, tmp_path)


def test_a_push_becomes_variants_with_measured_quality(stack: Stack):
    version = stack.push(0)
    calibration, evaluation = stack.seal("cal", 16, 1), stack.seal("eval", 30, 2)
    job = stack.compile(version, calibration=calibration, evaluation=evaluation)
    with stack.worker("worker-1"):
        done = stack.wait(job.name, succeeded)
        again = stack.compile(version, calibration=calibration, evaluation=evaluation)
        assert all(step.cached for step in stack.wait(again.name, succeeded).steps)
    with stack.channel(stack.registry) as channel:
        registry = registry_pb2_grpc.RegistryStub(channel)
        variants = registry.ListVariants(registry_pb2.ListVariantsRequest(parent=version)).variants
        measured = registry.ListMeasurements(
            registry_pb2.ListMeasurementsRequest(parent=version)
        ).measurements
        fixed = registry.GetModelVersion(registry_pb2.GetModelVersionRequest(name=version))
        lineage = registry.GetLineage(
            registry_pb2.GetLineageRequest(parent=PARENT, id=variants[0].graph.digest)
        )
    assert {variant.name.rpartition("/")[2] for variant in variants} == {"baseline", "int8"}
    accuracy = {m.name.split("/")[7][:4]: m.values["top1"] for m in measured if m.kind == "accuracy"}
    assert accuracy == {"base": 1.0, "int8": 1.0}
    assert [m.kind for m in measured].count("parity") == 1
    assert all(m.dataset == evaluation for m in measured if m.kind != "size")
    assert fixed.output_spec_json
    assert "compile/import" in {node.title for node in lineage.nodes}
    assert len(done.results) == 7


def test_a_killed_worker_and_a_killed_compiler_cost_only_time(stack: Stack):
    version = stack.push(3)
    calibration, evaluation = stack.seal("cal", 16, 1), stack.seal("eval", 30, 2)
    job = stack.compile(version, calibration=calibration, evaluation=evaluation)

    def importing(job: jobs_pb2.Job) -> bool:
        return job.steps[0].state == jobs_pb2.Step.STATE_RUNNING

    with stack.worker("worker-1") as worker:
        stack.wait(job.name, importing)
        worker.kill()
        worker.wait(10)
        stack.compiler.kill()
        stack.compiler.environment["BOARDWRIGHT_COMPILER_LISTEN"] = stack.compiler.endpoint
        stack.compiler.start()
    with stack.worker("worker-2"):
        done = stack.wait(job.name, succeeded)
    assert done.steps[0].worker == "worker-2"
    assert done.steps[0].attempts == 2
    assert len(done.results) == 7


def test_migrate_and_wrong_settings_have_their_exit_codes(tmp_path: Path):
    environment = service_environment(tmp_path, "compiler") | {"BOARDWRIGHT_REGISTRY_ENDPOINT": "127.0.0.1:1"}
    command = [sys.executable, "-m", "boardwright.compiler", "migrate"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert (tmp_path / "compiler.db").exists()
    for word, setting in (
        ("serve", "BOARDWRIGHT_REGISTRY_ENDPOINT"),
        ("migrate", "BOARDWRIGHT_DATABASE_URL"),
    ):
        lacking = {name: value for name, value in environment.items() if name != setting}
        refused = subprocess.run(
            [*command[:-1], word], env=lacking, check=False, capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 2
        assert f"{setting} is not set" in refused.stderr
        assert os.linesep not in refused.stderr.strip()
