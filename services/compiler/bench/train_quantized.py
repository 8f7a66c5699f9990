"""What quantization-aware training gives back: MobileNetV1 under a per-tensor scheme, without labels.

    python services/compiler/bench/train_quantized.py --data ../shared/data --profile vx-delegate --epochs 3

Trains self-distilled on the calibration images and judges on the evaluation images, beside the float
graph and what ``quantize`` makes of it: with the layers that protection keeps in floating point, with none,
and with none but constant channels kept. Prints one JSON object per line; costs are CPU-seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from PIL import Image

from boardwright.compiler.engine.calibrated import Calibrated
from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import quantize, quantize_calibrated
from boardwright.compiler.engine.recover import correct_bias
from boardwright.compiler.engine.recover.ranges import choose_ranges
from boardwright.compiler.engine.scheme import scheme_for
from boardwright.compiler.engine.train_quantized import train_quantized
from boardwright.compiler.engine.training.data import ImageBatches, SampleList
from boardwright.compiler.engine.training.objectives import chosen
from boardwright.compiler.engine.training.options import DataOptions, ObjectiveOptions, TrainOptions
from boardwright.model import InputSpec, OutputSpec, preprocess

INPUT = InputSpec(
    height=224, width=224, batch=1, scale=1 / 127.5, mean=(1, 1, 1), resize="center-crop", resize_shorter=256
)
OUTPUT = OutputSpec(task="classification", head="logits", num_classes=1000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--profile", default="vx-delegate")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--every", type=int, default=1, help="judge every n-th evaluation image")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = onnx.load(options.data / "models" / "mobilenet_v1_0.75_224.onnx")
    learnt = samples(options.data, "calibration")
    unseen = samples(options.data, "evaluation")[:: options.every]
    scheme = scheme_for(options.profile)

    def tell(what: str, graph: onnx.ModelProto, started: float, **more: Any) -> None:
        cost = time.process_time() - started
        found = evaluate(graph, unseen, INPUT, OUTPUT, baseline=model, threads=1)
        values = {"what": what, "cpu_seconds": round(cost, 1), **found.accuracy, **found.parity, **more}
        sys.stdout.write(json.dumps(values) + "\n")

    started = time.process_time()
    tell("float", model, started)
    record = observe(prepare_graph(model), feeds(learnt), threads=1)
    for what, protects in (("protected", True), ("all integers", False)):
        started = time.process_time()
        done = quantize(model, (), scheme, record=record, threads=1, protect_automatically=protects)
        excluded = sum(len(found.nodes) for found in done.exclusions)
        tell(f"quantize {options.profile}, {what}", done.model, started, excluded_nodes=excluded)
    started = time.process_time()
    ranged, _ = choose_ranges(prepare_graph(model), record, scheme, set())
    corrected, _ = correct_bias(prepare_graph(model), ranged, scheme, set())
    kept = quantize_calibrated(Calibrated(corrected, ranged, ()), scheme)
    tell(f"quantize {options.profile}, all integers, constant channels kept", kept.model, started)
    started = time.process_time()
    batches = ImageBatches(
        SampleList(learnt), INPUT, DataOptions(flip=True, scale_jitter=0.2, held_out=options.held_out)
    )
    trained = train_quantized(
        model,
        batches,
        scheme,
        chosen(ObjectiveOptions(objective="self-distilled"), OUTPUT, None),
        TrainOptions(epochs=options.epochs, learning_rate=options.learning_rate),
        record=record,
        held_out=batches.held_out(),
    )
    told = trained.record
    tell(
        f"train-quantized {options.profile}, all integers", trained.quantized.model, started,
        epochs=options.epochs, learning_rate=options.learning_rate, before=trained.before,
        after=trained.after, losses=told.losses, judged=told.judged, kept_epoch=told.kept_epoch,
        went_back=told.went_back,
    )  # fmt: skip


def samples(data: Path, split: str) -> list[Sample]:
    """Return the images of a split with their classes."""
    with (data / "imagenet" / "labels.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    folder = data / "imagenet" / "images"
    return [
        Sample(r["file"], Image.open(folder / r["file"]), class_index=int(r["class_index"])) for r in rows
    ]


def feeds(found: list[Sample]) -> Iterator[dict[str, Any]]:
    """Return the samples as the graph takes them."""
    for sample in found:
        yield {INPUT.name: preprocess(sample.image, INPUT)[0]}


if __name__ == "__main__":
    main()
