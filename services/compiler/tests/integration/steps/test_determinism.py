"""What is no measurement gives the same bytes in another process: models, records, values and warnings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from boardwright.compiler.kinds import KINDS
from boardwright.content import digest_file
from boardwright.jobs.domain.cache_key import with_defaults
from boardwright.jobs.step import find_function
from boardwright.jobs.step_api import Determinism, InputFile, StepRequest, ignore_progress

NETWORK = """
import torch

def build_network(width=8):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, 2, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU(),
        torch.nn.Conv2d(width, width, 3, 1, 1, groups=width), torch.nn.ReLU(),
        torch.nn.Conv2d(width, 2 * width, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(2 * width, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3),
    )
"""
SPEC = {"height": 16, "width": 16, "resize": "stretch"}
BRIEF = {"epochs": 2, "batch_size": 8, "held_out": 0.25, "fail_if_information_lost": False}
LOSSY = {"fail_if_information_lost": False}
PARAMETERS = {
    "compile/import": {"input_spec": SPEC},
    "compile/observe": {"method": "entropy", "exports": ["onnxruntime"]},
    "compile/protect": {"measured_units": 2},
    "compile/recover": {"learn_samples": 4, "held_out_samples": 2, "work": 1e7},
    "compile/quantize": LOSSY,
    "compile/quantize-dynamic": LOSSY,
    "compile/quantize-weights": {"algorithm": "awq", "block_size": 16, **LOSSY},
    "compile/convert-float16": {"profile": "tensorrt", **LOSSY},
    "compile/evaluate": LOSSY,
    "compile/distill": {
        "teacher": "wide@1", "objective": "features", **BRIEF,
        "teacher_import": {
            "format": "torch-state-dict", "input_spec": SPEC, "builder_arguments": {"width": 16},
        },
    },
    "compile/train-quantized": {"flip": True, "color_jitter": 0.1, **BRIEF},
    "compile/fine-tune": {"scale_jitter": 0.2, "average": 0.9, **BRIEF},
    "compile/prune": {"amount": 0.2, "rounds": 1, "round_to": 1, **LOSSY},
}  # fmt: skip


def each_pass_once(plan: Path, folder: Path) -> dict[str, Any]:
    """Run every pass, training on one thread; return by kind its files' digests, values and warnings."""
    told = json.loads(plan.read_text())
    inputs = {name: InputFile(Path(path), digest, "") for name, (path, digest) in told["inputs"].items()}
    found = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, parameters in told["parameters"].items():
        outputs = folder / kind.partition("/")[2]
        outputs.mkdir(parents=True)
        request = StepRequest(kind, with_defaults(KINDS[kind], parameters), inputs, 7, outputs)
        result = find_function(kind)(request, ignore_progress)
        files = {name: str(digest_file(made.path)) for name, made in result.outputs.items()}
        found[kind] = {"files": files, "values": result.values, "warnings": result.warnings}
        if kind == "compile/import":
            inputs |= {name: InputFile(made.path, "", "") for name, made in result.outputs.items()}
            inputs["baseline.onnx"] = inputs["model.onnx"]
    torch.set_num_threads(threads)
    return json.loads(json.dumps(found))


def test_every_pass_that_is_no_measurement_is_looked_at():
    same = {name for name, kind in KINDS.items() if kind.determinism is not Determinism.OBSERVED}
    assert set(PARAMETERS) == same


@pytest.fixture
def plan(tmp_path: Path, seal, coloured) -> Path:
    """What each process is told to run."""
    scope: dict[str, object] = {}
    exec(NETWORK, scope)
    paths = {}
    for name, width in (("checkpoint", 8), ("teacher", 16)):
        paths[name] = tmp_path / name
        torch.save(scope["build_network"](width).state_dict(), paths[name])
    for name in ("module", "teacher-module"):
        paths[name] = tmp_path / name
        paths[name].write_text(NETWORK)
    for seed, role in enumerate(("calibration", "training", "evaluation")):
        paths |= seal(coloured(24, seed), "classification", tmp_path / role, role)
    inputs = {name: (str(path), str(digest_file(path))) for name, path in paths.items()}
    written = tmp_path / "plan.json"
    written.write_text(json.dumps({"inputs": inputs, "parameters": PARAMETERS}))
    return written


@pytest.mark.timeout(600)
def test_another_process_gives_the_same_bytes(tmp_path: Path, plan: Path):
    here = each_pass_once(plan, tmp_path / "here")
    written = tmp_path / "there.json"
    command = [sys.executable, __file__, str(plan), str(tmp_path / "there"), str(written)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "5"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    there = json.loads(written.read_text())
    for kind in PARAMETERS:
        assert here[kind]["files"], kind
        assert here[kind] == there[kind], kind


if __name__ == "__main__":
    asked = [Path(argument) for argument in sys.argv[1:]]
    asked[2].write_text(json.dumps(each_pass_once(*asked[:2])))
