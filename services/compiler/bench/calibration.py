"""What observing activations costs over the bare forward passes, and the memory it takes.

    python services/compiler/bench/calibration.py [--data FOLDER] [--images N] [--memory-images N...]
        [--json FILE] [mobilenet|yolov5n]...

Ours and onnxruntime.quantization's calibrators in the same run, each measurement in a process of its own that
is held to one core. Cost is CPU time from the float graph to ranges, set-up included, over that of creating a
session and running the same images through it (before and after each, the median); reading and preprocessing
images is taken out of both. Memory is a process's peak with nothing else in it; images repeat where there are
too few. ONNX Runtime's histogram methods keep every tensor of every image, so they get only
``--peer-images`` of them, and so does our own method that reads every value.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantization import CASES, DATA, Case

OURS = ("min-max", "percentile", "entropy", "mse")
PEERS = {"min-max": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
Feed = dict[str, Any]


class Feeds:
    """Preprocessed images, one at a time, and the CPU seconds that making them took."""

    def __init__(self, case: Case, data: Path, count: int) -> None:
        self._case, self._data, self._count = case, data, count
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Feed]:
        from boardwright.model import preprocess

        spec = self._case.spec
        samples: Iterator[Any] = iter(())
        for _ in range(self._count):
            started = time.process_time()
            sample = next(samples, None)
            if sample is None:
                samples = self._case.samples(self._data, True, self._count)
                sample = next(samples)
            feed = {spec.name: preprocess(sample.image, spec)[0]}
            self.seconds += time.process_time() - started
            yield feed


def prepare(case: Case, data: Path) -> Any:
    """Return the graph that all tools observe."""
    from boardwright.compiler.engine.graph.prepare import prepare_graph
    from boardwright.compiler.engine.importing import Declared, import_checkpoint

    imported = import_checkpoint(data / "models" / case.file, Declared(input_spec=case.spec))
    return prepare_graph(imported.model)


def run_bare(model: Any, feeds: Feeds) -> None:
    """Create a session and run every image."""
    from boardwright.compiler.engine.graph.session import open_session

    session = open_session(model)
    for feed in feeds:
        session.run(None, feed)


def run_ours(model: Any, feeds: Feeds, method: str, sampling: str) -> None:
    """Observe by this project."""
    from boardwright.compiler.engine.observe import observe

    observe(model, feeds, method=method, sampling=sampling)


def run_peer(model: Any, feeds: Feeds, method: str) -> None:
    """Calibrate by onnxruntime.quantization."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            calibrate_method=CalibrationMethod[PEERS[method]],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def cpu_seconds(run: Callable[[Feeds], None], feeds: Feeds) -> float:
    """Return the CPU seconds of ``run`` without those of making its feeds."""
    started = time.process_time()
    run(feeds)
    return time.process_time() - started - feeds.seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one tool in this process: its memory by one method, or the time of several."""
    case, tool = CASES[options.cases[0]], options.tool
    methods = options.method.split(",")
    model = prepare(case, options.data)

    def observed(feeds: Feeds, method: str = methods[0]) -> None:
        if tool == "onnxruntime":
            run_peer(model, feeds, method)
        else:
            run_ours(model, feeds, method, "exact" if tool == "ours-exact" else "sampled")

    def feeds() -> Feeds:
        return Feeds(case, options.data, options.images)

    if options.memory:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        observed(feeds())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"images": options.images, "peak_mib": peak, "peak_before_mib": before}

    def bare(given: Feeds) -> None:
        run_bare(model, given)

    forward = [cpu_seconds(bare, feeds())]
    taken = {}
    for method in methods:
        taken[method] = cpu_seconds(functools.partial(observed, method=method), feeds())
        forward.append(cpu_seconds(bare, feeds()))
    bound = statistics.median(forward)
    return {
        method: {
            "images": options.images,
            "cpu_seconds": seconds,
            "forward_cpu_seconds": bound,
            "over_forward": seconds / bound,
        }
        for method, seconds in taken.items()
    }


def in_own_process(options: argparse.Namespace, case: str, tool: str, method: str, **more: Any) -> Any:
    """Measure one tool in a process of its own, held to one core; None where it fails."""
    core = min(os.sched_getaffinity(0))
    command = [
        sys.executable,
        __file__,
        case,
        "--data",
        str(options.data),
        "--tool",
        tool,
        "--method",
        method,
    ]
    for name, value in more.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        sys.stderr.write(f"{case} {tool} {method} failed: {done.stderr[-400:]}\n")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(options: argparse.Namespace, case: str) -> list[dict[str, Any]]:
    """Return the measurements of every tool on one model."""
    few, many = options.peer_images, options.images
    rows = [("ours", OURS, many), ("ours-exact", ("min-max",), few), ("onnxruntime", ("min-max",), many)]
    rows += [("onnxruntime", ("percentile", "entropy"), few)]
    found = []
    for tool, methods, images in rows:
        times = in_own_process(options, case, tool, ",".join(methods), images=images) or {}
        for method in methods:
            counts = options.memory_images if images == many and method == "min-max" else [images]
            memory = [
                in_own_process(options, case, tool, method, images=count, memory=True) for count in counts
            ]
            row = {"tool": tool, "method": method, "time": times.get(method), "memory": memory}
            found.append(row)
            sys.stdout.write(line(case, row) + "\n")
            sys.stdout.flush()
    return found


def line(case: str, row: dict[str, Any]) -> str:
    """Return one measurement for people."""
    name = f"{case:10} {row['tool']:12} {row['method']:11}"
    taken, peaks = row["time"], [entry for entry in row["memory"] if entry]
    if taken is None:
        return f"{name} failed"
    memory = ", ".join(f"{entry['peak_mib']:.0f} MiB at {entry['images']:.0f}" for entry in peaks)
    return (
        f"{name} {taken['images']:4.0f} images {taken['over_forward']:6.2f} × forward "
        f"({taken['cpu_seconds']:.2f} CPU-s over {taken['forward_cpu_seconds']:.2f}), peak {memory}"
    )


def main() -> int:
    """Run the cases that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--memory-images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--peer-images", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.data.exists():
        sys.stderr.write(f"there is no {options.data}: name the folder of models and images with --data\n")
        return 2
    unknown = sorted(set(options.cases) - set(CASES))
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; the cases are {', '.join(CASES)}")
    if options.tool:
        sys.stdout.write(json.dumps(measure(options)) + "\n")
        return 0
    results = {case: measure_all(options, case) for case in options.cases or CASES}
    if options.json:
        machine = {"processor": platform.processor(), "machine": platform.machine()}
        options.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
