"""What it costs to find out why INT8 made a network blind, beside a naive sweep.

    python services/compiler/bench/cause.py [--data FOLDER] [--images N] [mobilenet|yolov5n]...

Both get the float graph and the same few preprocessed images, and give the node at fault; costs are CPU
seconds in one thread. The sweep does what a script does: one layer or join alone on integers, for each of
them, and the outputs' noise compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from quantization import CASES, DATA

from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import find_cause
from boardwright.compiler.engine.quantize import insert_quantization
from boardwright.compiler.engine.scheme import scheme_for
from boardwright.model import preprocess

SCHEME = scheme_for("x86-vnni")
Feeds = list[dict[str, Any]]


def sweep(model: onnx.ModelProto, feeds: Feeds) -> tuple[str, float]:
    """Return the node that alone on integers does most harm, and the CPU seconds."""
    started = time.process_time()
    prepared = prepare_graph(model)
    record = observe(prepared, feeds, threads=1)
    wanted = outputs(prepared, feeds)
    topology = Topology(prepared.graph)
    names = {node.name for node in prepared.graph.node}
    noise = {}
    for index, node in enumerate(prepared.graph.node):
        if index in topology.layers or node.op_type == "Concat":
            made = outputs(insert_quantization(prepared, record, SCHEME, names - {node.name}), feeds)
            noise[node.name] = sum(float(np.square(a - b).sum()) for a, b in zip(made, wanted, strict=True))
    return max(noise, key=lambda name: noise[name]), time.process_time() - started


def outputs(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Return the first output for each feed."""
    session = open_session(model, threads=1)
    return [session.run(None, feed)[0].astype(np.float64) for feed in feeds]


def main() -> int:
    """Run the cases that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", default=["yolov5n"], help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    if not options.data.exists():
        sys.stderr.write(f"there is no {options.data}: name the folder of models and images with --data\n")
        return 2
    for name in options.cases:
        case = CASES[name]
        imported = import_checkpoint(options.data / "models" / case.file, Declared(input_spec=case.spec))
        spec = imported.input_spec
        feeds = [
            {spec.name: preprocess(sample.image, spec)[0]}
            for sample in islice(case.samples(options.data, True, None), options.images)
        ]
        cause = find_cause(imported.model, feeds, scheme=SCHEME, threads=1)
        node, seconds = sweep(imported.model, feeds)
        sys.stdout.write(
            f"{name:10} cause {cause.cpu_seconds:6.2f} CPU-s: {cause.node or 'none'}. {cause.sentence}\n"
            f"{name:10} sweep {seconds:6.2f} CPU-s: {node}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
