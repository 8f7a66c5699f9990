"""A recipe survives the death of its worker and of every service; an interrupted one resumes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.cli.embedded import stack
from boardwright.client import BoardwrightError, Client
from boardwright.model import InputSpec, OutputSpec
from boardwright.testing import sample_graphs

CLASSES = sample_graphs.CLASSES
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Random images, a folder a class."""
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / str(number % CLASSES) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = sample_graphs.SIDE
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def client(data: Path, tmp_path: Path) -> Client:
    """A client, with a version to compile and datasets to do it with."""
    client = Client(data=data)
    side = sample_graphs.SIDE
    inputs = InputSpec(name=sample_graphs.INPUT_NAME, height=side, width=side, resize="stretch")
    outputs = OutputSpec(task="classification", head="logits", num_classes=CLASSES)
    path = sample_graphs.write_classifier(tmp_path / "model.onnx")
    client.push("sample", path, input_spec=inputs, output_spec=outputs, commit="", run="")
    client.datasets.add("calibration", write_images(tmp_path / "calibration", 40, 1))
    client.datasets.add("evaluation", write_images(tmp_path / "evaluation", 40, 2))
    return client


def compile_sample(client: Client) -> pb.Job:
    """Start the default recipe."""
    datasets = {"calibration": "calibration", "evaluation": "evaluation"}
    return client.compile("sample@1", "default", datasets=datasets)


def kill(data: Path, name: str) -> None:
    """SIGKILL a process of the stack, which the supervisor starts again."""
    (pid,) = (p.pid for p in stack.status(data).processes if p.name == name)
    if pid:
        os.kill(pid, signal.SIGKILL)


def wait_job(client: Client, name: str, until: Callable[[pb.Job], bool], seconds: float = 120) -> pb.Job:
    """Ask for a job until ``until`` holds, whatever is away meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            job = client.jobs.get(name)
        except BoardwrightError as error:
            if error.code not in _AWAY:
                raise
        else:
            if until(job):
                return job
        time.sleep(0.05)
    pytest.fail(f"waited {seconds:g} s in vain for {name}: {client.jobs.get(name)}")


def ended(job: pb.Job) -> bool:
    """Whether nothing changes any more."""
    return job.state in (pb.Job.STATE_SUCCEEDED, pb.Job.STATE_FAILED, pb.Job.STATE_CANCELLED)


def runs(step: str) -> Callable[[pb.Job], bool]:
    """Whether the step runs, or has already ended."""

    def check(job: pb.Job) -> bool:
        state = next(each.state for each in job.steps if each.step.startswith(step))
        return state not in (pb.Step.STATE_WAITING, pb.Step.STATE_READY)

    return check


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_and_killed_services_delay_a_recipe_and_change_nothing_else(
    data: Path, client: Client
) -> None:
    name = compile_sample(client).name
    wait_job(client, name, runs("import"))
    kill(data, "worker")
    wait_job(client, name, runs("evaluate-baseline"))
    kill(data, "compiler")
    kill(data, "worker")
    wait_job(client, name, runs("quantize"))
    kill(data, "registry")
    wait_job(client, name, runs("evaluate-int8"))
    kill(data, "gateway")
    kill(data, "compiler")
    done = wait_job(client, name, ended)
    assert done.state == pb.Job.STATE_SUCCEEDED, done
    assert all(step.record_digest for step in done.steps)
    names = sorted(variant.name for variant in client.models.variants("sample@1"))
    assert len(names) == len(set(names)) == 2, "each variant was made once"
    again = wait_job(client, compile_sample(client).name, ended)
    assert again.state == pb.Job.STATE_SUCCEEDED
    assert all(step.cached for step in again.steps)
    assert sorted(variant.name for variant in client.models.variants("sample@1")) == names


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interrupted_recipe_resumes_after_a_restart(data: Path, client: Client) -> None:
    first = compile_sample(client).name
    job = wait_job(client, first, runs("quantize"))
    finished = {step.step for step in job.steps if step.state == pb.Step.STATE_SUCCEEDED}
    assert any(step.startswith("import") for step in finished)
    stack.down(data)
    stack.up(data, detach=True)
    with Client(data=data) as after:
        done = wait_job(after, first, ended)
        assert done.state == pb.Job.STATE_SUCCEEDED, done
        # What had succeeded before the restart was not run again.
        attempts = {step.step: step.attempts for step in done.steps}
        assert all(attempts[step] == 1 for step in finished)
        cancelled = after.compile(
            "sample@1", "default", datasets={"calibration": "evaluation", "evaluation": "calibration"}
        )
        wait_job(after, cancelled.name, runs("evaluate-baseline"))
        after.jobs.cancel(cancelled.name)
        resumed = after.compile(
            "sample@1", "default", datasets={"calibration": "evaluation", "evaluation": "calibration"}
        )
        done = wait_job(after, resumed.name, ended)
        assert done.state == pb.Job.STATE_SUCCEEDED
        assert next(step for step in done.steps if step.step.startswith("import")).cached


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_watch_outlives_its_service(data: Path, client: Client) -> None:
    name = compile_sample(client).name
    watched: list[pb.Job] = []

    def watch() -> None:
        watched.append(client.jobs.wait(name))

    watching = threading.Thread(target=watch)
    watching.start()
    wait_job(client, name, runs("import"))
    kill(data, "compiler")
    watching.join(120)
    assert not watching.is_alive()
    assert watched[0].state == pb.Job.STATE_SUCCEEDED
