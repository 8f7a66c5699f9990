"""One push to one device's report is one trace, in a real collector, although five commands lie between."""

import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.cli.embedded import stack
from boardwright.client import Client
from boardwright.model import InputSpec, OutputSpec
from boardwright.telemetry import span
from boardwright.testing import sample_graphs
from boardwright.testing.otlp import ReceivedSpan, otlp_receiver

RECIPE = "version: 1\nname: import-only\npasses:\n  - pass: import\n"
SERVICES = {f"boardwright-{name}" for name in ("registry", "compiler", "builder", "delivery")}


def agent(home: Path, *arguments: str, given: str = "") -> None:
    """Run a word of the device agent."""
    command = [sys.executable, "-m", "boardwright.agent", *arguments, "--home", str(home)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_push_is_followed_to_the_devices_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, home = tmp_path / "data", tmp_path / "device"
    side = sample_graphs.SIDE
    inputs = InputSpec(name=sample_graphs.INPUT_NAME, height=side, width=side, resize="stretch")
    outputs = OutputSpec(task="classification", head="logits", num_classes=sample_graphs.CLASSES)
    path = sample_graphs.write_classifier(tmp_path / "model.onnx")
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        endpoints = stack.up(data, detach=True)
        try:
            with Client(data=data) as client:
                with span("push") as pushed:
                    client.push("sample", path, input_spec=inputs, output_spec=outputs, commit="", run="")
                # Each command is a trace of its own to who calls it; the version's goes on all the same.
                with span("compile"):
                    client.jobs.wait(client.compile("sample@1", RECIPE).name)
                with span("build"):
                    client.jobs.wait(client.build("sample@1/baseline").name)
                with span("release"):
                    release = client.release("sample", ["sample@1/baseline"])
                with span("roll out"):
                    client.fleets.create("cameras", model="sample")
                    client.rollouts.create("cameras", "sample@r1")
                token = client.fleets.enrolment_token("cameras").token
                agent(home, "enroll", "--server", endpoints.url, "--token", "-", "--id", "one", given=token)
                agent(home, "once")
                (report,) = client.fleets.reports("cameras/one")

            def in_trace(spans: list[ReceivedSpan]) -> set[str]:
                return {one.service for one in spans if one.trace_id == pushed.trace_id}

            receiver.wait_for(lambda spans: in_trace(list(spans)) >= SERVICES)
        finally:
            stack.down(data)
    trace = f"-{pushed.trace_id}-"
    assert trace in release.traceparent
    assert trace in report.traceparent
    assert report.kind == "installed"
