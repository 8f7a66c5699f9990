"""What quantization costs and keeps on real models.

    python services/compiler/bench/quantization.py [--data FOLDER] [--calibration N] [--evaluation N]
        [--json FILE] [mobilenet|yolov5n]...

FOLDER holds real models and images (default: ../shared/data beside the checkout). Calibrates on one
split, judges on the other. Latency is one thread, FP32 and INT8 in turns in the same run: on a noisy machine
only their ratio holds. Calibration cost is CPU time over that of the same FP32 runs, both with preprocessing.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import scheme_for
from boardwright.compiler.service import own_profile
from boardwright.model import InputSpec, preprocess

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
LATENCY_RUNS = 50


@dataclass(frozen=True)
class Case:
    """A model, how it is fed (None: as its import finds out), and its images by split."""

    file: str
    spec: InputSpec | None
    samples: Callable[[Path, bool, int | None], Iterator[Sample]]


def photographs(data: Path, calibration: bool, count: int | None) -> Iterator[Sample]:
    """ImageNet images with their class."""
    split = "calibration" if calibration else "evaluation"
    with (data / "imagenet" / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    for row in rows[:count]:
        image = Image.open(data / "imagenet" / "images" / row["file"])
        yield Sample(row["file"], image, class_index=int(row["class_index"]))


def scenes(data: Path, calibration: bool, count: int | None) -> Iterator[Sample]:
    """COCO images with their boxes."""
    split = "train2017" if calibration else "val2017"
    for path in sorted((data / "coco" / "images" / split).iterdir())[:count]:
        image = Image.open(path)
        label = data / "coco" / "labels" / split / f"{path.stem}.txt"
        rows = np.array(label.read_text().split() if label.exists() else [], np.float64).reshape(-1, 5)
        centre, half = rows[:, 1:3] * image.size, rows[:, 3:5] * image.size / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        yield Sample(path.name, image, boxes=boxes, classes=rows[:, 0].astype(int))


CASES = {
    "mobilenet": Case(
        "mobilenet_v1_0.75_224.onnx",
        InputSpec(
            height=224, width=224, scale=1 / 127.5, mean=(1, 1, 1), resize="center-crop", resize_shorter=256
        ),
        photographs,
    ),
    "yolov5n": Case("yolov5n.onnx", InputSpec(height=640, width=640, resize="letterbox"), scenes),
}


def measure(case: Case, data: Path, calibration: int, evaluation: int | None) -> dict[str, Any]:
    """Return the figures of one model."""
    spec = case.spec
    imported = import_checkpoint(data / "models" / case.file, Declared(input_spec=spec))

    def feeds() -> Iterator[dict[str, Any]]:
        for sample in case.samples(data, True, calibration):
            yield {spec.name: preprocess(sample.image, spec)[0]}

    bare = open_session(imported.model)
    started = time.process_time()
    for feed in feeds():
        bare.run(None, feed)
    forward_seconds = time.process_time() - started
    started = time.process_time()
    small = quantize(imported.model, feeds(), scheme_for(own_profile().parameter))
    quantize_seconds = time.process_time() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = evaluate(imported.model, case.samples(data, False, evaluation), spec, imported.output_spec)
    after = evaluate(
        small.model,
        case.samples(data, False, evaluation),
        spec,
        imported.output_spec,
        baseline=imported.model,
    )
    latency = compare_latency(imported.model, small.model, next(feeds()))
    return {
        "scheme": small.scheme.label,
        "calibration_images": small.record.samples,
        "evaluation_images": after.samples,
        "fp32": before.accuracy,
        "int8": after.accuracy,
        "parity": after.parity,
        "fp32_ms": latency[0],
        "int8_ms": latency[1],
        "size_ratio": small.model.ByteSize() / imported.model.ByteSize(),
        "quantize_cpu_seconds": quantize_seconds,
        "over_forward": quantize_seconds / forward_seconds,
        "peak_mib_while_quantizing": peak_mib,
        "kernels": small.kernels,
        "left_in_float": [found.reason for found in small.exclusions],
    }


def compare_latency(fp32: Any, int8: Any, feed: dict[str, Any]) -> tuple[float, float]:
    """Return the median milliseconds of both as they would be deployed, one thread each, run in turns."""
    sessions = [open_session(graph, threads=1, exact=False) for graph in (fp32, int8)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(LATENCY_RUNS):
        for session, taken in zip(sessions, times, strict=True):
            started = time.perf_counter()
            session.run(None, feed)
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results for people."""
    lines = []
    for name, found in results.items():
        lines.append(f"{name}: {found['scheme']}, {found['calibration_images']} calibration images")
        for metric, value in found["fp32"].items():
            low = found["int8"][metric]
            lines.append(
                f"  {metric:24} {100 * value:6.2f} → {100 * low:6.2f}  ({100 * (value - low):.2f} lost)"
            )
        for metric, value in found["parity"].items():
            lines.append(f"  {metric:24} {value:6.4f}")
        ratio = found["int8_ms"] / found["fp32_ms"]
        lines.append(
            f"  {'ms, 1 thread':24} {found['fp32_ms']:.2f} → {found['int8_ms']:.2f}  ({ratio:.2f} ×)"
        )
        lines.append(f"  {'size':24} {found['size_ratio']:.2f} ×")
        cost = f"{found['quantize_cpu_seconds']:.1f} CPU-s, {found['over_forward']:.1f} × forward"
        lines.append(f"  {'quantize':24} {cost}, peak {found['peak_mib_while_quantizing']:.0f} MiB")
    return "\n".join(lines)


def main() -> int:
    """Run the cases that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--calibration", type=int, default=100)
    parser.add_argument("--evaluation", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.exists():
        sys.stderr.write(f"there is no {options.data}: name the folder of models and images with --data\n")
        return 2
    unknown = sorted(set(options.cases) - set(CASES))
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; the cases are {', '.join(CASES)}")
    results = {
        name: measure(CASES[name], options.data, options.calibration, options.evaluation)
        for name in options.cases or CASES
    }
    if options.json:
        options.json.write_text(json.dumps({"machine": platform.processor(), "results": results}, indent=1))
    sys.stdout.write(table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
