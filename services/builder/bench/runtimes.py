"""The same graphs in ONNX Runtime and in OpenVINO, in turns within one run.

    python services/builder/bench/runtimes.py [--runtime onnxruntime|openvino]... [--threads N] [--runs N]
        [--clock wall|cpu] GRAPH.onnx [GRAPH.onnx | MODEL.xml]...

Each ONNX graph is built by each runtime's toolchain of the x86-64 board, as `boardwright build` does; an IR
made by another tool (NNCF) runs in OpenVINO as it is. The others are compared with the first one named.
Ratios are medians over rounds, with a bootstrap interval: on a noisy machine only they hold, and on a very
noisy one only those of the process's CPU time, which does not count its waiting.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boardwright.builder.domain.latency import compare, interleaved, summarize
from boardwright.model.host import detect_host
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.openvino_session import open_session, runtime_settings
from boardwright.toolchains.port import BuildRequest, Session

RUNTIMES = ("onnxruntime", "openvino")


@dataclass
class Lane:
    """One model in one runtime; ``integer`` counts its heavy integer kernels, of ``heavy``."""

    model: str
    runtime: str
    integer: str
    run: Callable[[], Sequence[Any]]
    rounds: list[list[float]] = field(default_factory=list)


def opened(path: Path, runtime: str, threads: int, folder: Path) -> tuple[Session, str]:
    """Build and open ``path``; returns also the number of its integer kernels."""
    if path.suffix == ".xml":
        session = open_session(path, runtime_settings(), threads)
        heavy = [layer for layer in session.layers() if layer[0] in ("Convolution", "FullyConnected")]
        return session, f"{sum(layer[1] in ('u8', 'i8') for layer in heavy)}"
    out = folder / f"{path.stem}-{runtime}"
    out.mkdir()
    toolchain = toolchain_named(runtime)
    built = toolchain.build(BuildRequest(path, "x86-64", "x86_64", out))
    return toolchain.open(built, threads), f"{built.integer_kernels}"


def feed(session: Session) -> dict[str, Any]:
    """Seeded noise in the shape of the inputs; open dimensions are 1."""
    random = np.random.default_rng(0)
    return {
        info.name: random.random([axis or 1 for axis in info.shape]).astype(info.dtype)
        for info in session.inputs
    }


def lanes_of(models: Sequence[Path], runtimes: Sequence[str], threads: int, folder: Path) -> list[Lane]:
    """Every model in every runtime that takes it."""
    found = []
    for runtime in runtimes:
        for path in models:
            if path.suffix == ".xml" and runtime != "openvino":
                continue
            session, integer = opened(path, runtime, threads, folder)
            found.append(Lane(path.stem, runtime, integer, session.prepare(feed(session))))
    return found


def timed(run: Callable[[], Sequence[Any]], count: int, clock: Callable[[], int]) -> list[float]:
    """Milliseconds of ``count`` runs, after one that is not counted."""
    run()
    times = []
    for _ in range(count):
        start = clock()
        run()
        times.append((clock() - start) / 1e6)
    return times


def table(lanes: Sequence[Lane]) -> str:
    """Median, and the ratio to the first model of the same runtime and to the first lane of all."""
    lines = [
        "| model | runtime | integer kernels | p50 ms | time / first of its runtime | time / first of all |",
        "|---|---|---|---|---|---|",
    ]
    for lane in lanes:
        own = next(other for other in lanes if other.runtime == lane.runtime)
        lines.append(
            f"| {lane.model} | {lane.runtime} | {lane.integer} | {summarize(_times(lane)).p50_ms:.1f} "
            f"| {_ratio(own, lane)} | {_ratio(lanes[0], lane)} |"
        )
    return "\n".join(lines)


def _times(lane: Lane) -> list[float]:
    return [value for block in lane.rounds for value in block]


def _ratio(baseline: Lane, lane: Lane) -> str:
    if lane is baseline:
        return "1"
    found = compare(baseline.rounds, lane.rounds)
    return f"{1 / found.speedup:.3f} ({1 / found.high:.3f} to {1 / found.low:.3f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runtime", action="append", choices=RUNTIMES)
    parser.add_argument("--threads", type=int, default=1, help="0: the runtime's default")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    clock = time.perf_counter_ns if given.clock == "wall" else time.process_time_ns
    with tempfile.TemporaryDirectory() as folder:
        lanes = lanes_of(given.models, given.runtime or RUNTIMES, given.threads, Path(folder))
        for turn in interleaved(len(lanes), given.runs, 5):
            lane = lanes[turn.subject]
            lane.rounds.append(timed(lane.run, turn.timed, clock))
    host = detect_host()
    features = " ".join(
        sorted(host.cpu_features & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"})
    )
    versions = ", ".join(f"{name} {host.runtimes.get(name, '')}" for name in RUNTIMES)
    where = f"{host.machine}, {host.cpus} CPUs ({features}); {versions}"
    how = f"threads {given.threads or 'default'}, {given.clock} clock"
    sys.stdout.write(f"{where}; {how}\n\n{table(lanes)}\n")


if __name__ == "__main__":
    main()
