"""`boardwright optimize` for MobileNetV1 with three sets of constraints, on fresh data and from the cache:
`python bench/optimize.py [--data FOLDER] [--images N] [--constraints TEXT …] [--json FILE]`.

Starts the embedded stack on an empty folder, pushes the model, seals calibration and evaluation images, and
times two searches. Wall seconds depend on what else runs; CPU seconds are those of all the stack's processes,
steps included. FOLDER holds the models and images that the tests marked `data` use (default: ../shared/data).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boardwright.cli.embedded import stack
from boardwright.client import Client, Constraints, Selection

DATA = Path(__file__).parents[2] / "shared" / "data"
LIMIT_FIRST_SECONDS, LIMIT_AGAIN_SECONDS = 600.0, 10.0
SETS = (
    "max-drop=0.8,max-size-mb=3",
    "max-drop=2,max-latency-ms=33,statistic=p50",
    "max-drop=1,max-memory-mb=90",
)
INPUT_SPEC = {
    "schema": "input-spec/1",
    "name": "input",
    "height": 224,
    "width": 224,
    "scale": 1 / 127.5,
    "mean": [1, 1, 1],
    "resize": "center-crop",
    "resize_shorter": 256,
}


def stack_cpu_seconds(data: Path) -> float:
    """CPU time of the stack's processes and of the steps that they have waited for."""
    told = stack.status(data)
    ticks = 0
    for pid in [process.pid for process in told.processes]:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def prepare(client: Client, data: Path, images: int) -> dict[str, str]:
    """Push the model and seal the datasets; returns their names by role."""
    checkpoint = data / "models" / "mobilenet_v1_0.75_224.onnx"
    client.push("mobilenet", checkpoint, input_spec=INPUT_SPEC, task="classification", commit="", run="")
    labels = data / "imagenet" / "labels.csv"
    return {
        role: client.datasets.add(f"images-{role}", labels, split=role, limit=images).name
        for role in ("calibration", "evaluation")
    }


def search(client: Client, data: Path, datasets: dict[str, str], sets: Sequence[str]) -> dict[str, Any]:
    """One search; returns its cost and what was chosen."""
    begun, cpu = time.monotonic(), stack_cpu_seconds(data)
    found = client.optimize("mobilenet@1", [Constraints.parse(text) for text in sets], datasets=datasets)
    wall = time.monotonic() - begun
    return {
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(stack_cpu_seconds(data) - cpu, 2),
        "load": [round(value, 2) for value in os.getloadavg()],
        **describe(found),
    }


def describe(found: Selection) -> dict[str, Any]:
    """What was tried and chosen."""
    return {
        "tried": [held.candidate.name for held in found.attempts if not held.skipped],
        "cached": all(held.cached for held in found.attempts if not held.skipped),
        "skipped": {held.candidate.name: held.skipped for held in found.attempts if held.skipped},
        "choices": {
            str(outcome.constraints): f"{outcome.choice or 'none'}: {outcome.reason}"
            for outcome in found.outcomes
        },
    }


def main() -> int:
    """Measure and print; returns 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=0, help="of each dataset; 0 for all")
    parser.add_argument("--constraints", nargs="+", default=list(SETS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.exists():
        sys.exit(f"{options.data} does not exist: name the folder with models and images by --data")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        stack.up(data, detach=True)
        try:
            with Client(data=data) as client:
                datasets = prepare(client, options.data, options.images)
                first = search(client, data, datasets, options.constraints)
                again = search(client, data, datasets, options.constraints)
        finally:
            stack.down(data)
    result = {
        "bench": "optimize",
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "first": first,
        "again": again,
        "limits": {"first_seconds": LIMIT_FIRST_SECONDS, "again_seconds": LIMIT_AGAIN_SECONDS},
    }
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    missed = first["wall_seconds"] > LIMIT_FIRST_SECONDS or again["wall_seconds"] > LIMIT_AGAIN_SECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
