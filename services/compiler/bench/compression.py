"""The default recipe's INT8 beside ONNX Runtime's and NNCF's own, on the same images in the same run.

    python services/compiler/bench/compression.py [--nncf PYTHON] [--data FOLDER] [--calibration N]
        [--evaluation N] [--profile NAME] [--json FILE] [mobilenet|yolov5n]...
    python services/compiler/bench/compression.py [--nncf PYTHON] --checkpoint FILE --dataset FOLDER
        [--evaluation-dataset FOLDER] [--input-spec FILE]

The second form takes a model of yours: FOLDER is a dataset in any layout that `boardwright dataset add`
reads. Of one with the splits train and val, the first calibrates and the second judges.

PYTHON is that of an environment with `nncf` and `openvino`; without it NNCF is left out, which a line says.
Agreement with FP32 needs no labels and is over all images, those of calibration included. Intervals are 95 %,
by paired bootstrap over images. Latency is one thread, in turns with FP32: only ratios hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from quantization import CASES, DATA, Case, compare_latency

from boardwright.compiler.engine.evaluate import Sample
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.graph.session import kernel_counts, open_session
from boardwright.compiler.engine.importing import Declared, ImportedModel, import_checkpoint
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.recover import RecoverOptions, recover
from boardwright.compiler.engine.scheme import scheme_for
from boardwright.compiler.steps.files import labelled_sample
from boardwright.model import Classification, DetectionMeter, InputSpec, decode, preprocess
from boardwright.samples import BadSample, decode_image, read_layout

_PEER = Path(__file__).parent / "peers" / "nncf_peer.py"
_RESAMPLED = 2000

Answer = Callable[[int], np.ndarray]


class Bench:
    """One model with its images as tensors on disk, and what FP32 answers."""

    def __init__(
        self,
        case: Case,
        data: Path,
        calibration: int,
        evaluation: int | None,
        folder: Path,
        profile: str = "x86-vnni",
    ) -> None:
        self.folder, self.profile = folder, profile
        self.file = data / "models" / case.file
        self.imported: ImportedModel = import_checkpoint(self.file, Declared(input_spec=case.spec))
        self.spec = self.imported.input_spec
        judged = list(self._tensors(case.samples(data, False, evaluation), "evaluation"))
        learnt = list(self._tensors(case.samples(data, True, None if not evaluation else calibration), "all"))
        self.samples = judged + learnt
        self.labelled = len(judged)
        self.calibration = min(calibration, len(learnt))
        self.classifies = self.imported.output_spec.task == "classification"
        if not self.classifies:  # agreement of boxes is told by the labelled images alone
            self.samples = judged
        self.learnt = np.load(folder / "all.npy", mmap_mode="r")
        parts = [np.load(folder / "evaluation.npy", mmap_mode="r")] + (
            [self.learnt] if self.classifies else []
        )
        self.inputs = np.lib.format.open_memmap(
            folder / "inputs.npy", "w+", np.float32, (len(self.samples), *self.learnt.shape[1:])
        )
        start = 0
        for part in parts:
            self.inputs[start : start + len(part)] = part
            start += len(part)
        np.save(folder / "calibration.npy", self.learnt[: self.calibration])
        self.float = self.answers(self.imported.model)

    def _tensors(self, samples: Iterator[Sample], name: str) -> Iterator[tuple[Sample, Any]]:
        found, tensors = [], []
        for sample in samples:
            tensor, placement = preprocess(sample.image, self.spec)
            tensors.append(tensor[0])
            found.append(
                (Sample(sample.name, None, sample.class_index, sample.boxes, sample.classes), placement)
            )
        np.save(self.folder / f"{name}.npy", np.stack(tensors))
        return iter(found)

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        """Calibration inputs."""
        for index in range(self.calibration):
            yield {self.spec.name: np.array(self.learnt[index : index + 1])}

    def answers(self, model: onnx.ModelProto) -> Answer:
        """Return the first output of ``model`` by the number of an image."""
        session = open_session(model)
        return lambda index: session.run(None, {self.spec.name: np.array(self.inputs[index : index + 1])})[0]

    def judge(self, answer: Answer) -> dict[str, Any]:
        """Return accuracy, and per-image agreement with FP32 for classifiers."""
        output = self.imported.output_spec.for_evaluation()
        name = output.name or self.imported.model.graph.output[0].name
        hits, same = [], []
        meter, parity = DetectionMeter(), DetectionMeter()
        for index, (sample, placement) in enumerate(self.samples):
            ours = decode({name: answer(index).astype(np.float32)}, output, placement, self.spec)
            theirs = decode({name: self.float(index)}, output, placement, self.spec)
            if isinstance(ours, Classification) and isinstance(theirs, Classification):
                same.append(int(ours.top(1)[0]) == int(theirs.top(1)[0]))
                if index < self.labelled:
                    hits.append(int(ours.top(1)[0]) == sample.class_index)
            else:
                meter.update(ours, sample.boxes, sample.classes)
                sure = theirs.scores >= 0.25
                parity.update(ours, theirs.boxes[sure], theirs.classes[sure])
        if self.classifies:
            return {
                "accuracy": 100 * float(np.mean(hits)),
                "agreement": 100 * float(np.mean(same)),
                "same": same,
            }
        return {"accuracy": meter.scores().map50_95, "agreement": parity.scores().map50_95}


def own_case(checkpoint: Path, calibration: Path, evaluation: Path | None, input_spec: Path | None) -> Case:
    """Return the case of a checkpoint and folders of labelled images; groups (COCO's crowds) are left out.

    Raises:
        SampleError: what is wrong with a folder; SystemExit names a sample that cannot be used.
    """
    spec = InputSpec.from_json(input_spec.read_text()) if input_spec else None

    def samples(_: Path, calibrates: bool, count: int | None) -> Iterator[Sample]:
        folder = calibration if calibrates or evaluation is None else evaluation
        source = read_layout(folder)
        if {"train", "val"} <= set(source.splits):
            source = read_layout(folder, split="train" if calibrates else "val")
        elif evaluation is None:
            raise SystemExit(f"{folder} has no splits train and val: name --evaluation-dataset as well")
        for found in islice(source, count):
            if isinstance(found, BadSample):
                raise SystemExit(str(found))
            label = () if found.label is None else found.label  # no label file: no objects
            yield labelled_sample(found.name, decode_image(found.read()), label)

    return Case(str(checkpoint.resolve()), spec, samples)


def ours(bench: Bench) -> onnx.ModelProto:
    """The default recipe: observe, recover, quantize."""
    scheme = scheme_for(bench.profile)
    record = observe(prepare_graph(bench.imported.model), bench.feeds())
    specs = bench.spec, bench.imported.output_spec
    found = recover(bench.imported.model, bench.feeds, scheme, RecoverOptions(), record=record, specs=specs)
    return quantize(
        bench.imported.model, (), scheme, record=record, exclusions=found.exclusions, recovered=found.file()
    ).model


def onnx_runtime(bench: Bench) -> onnx.ModelProto:
    """ONNX Runtime's own static quantization: MinMax, U8S8, per channel, everything else as it comes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds = bench.feeds()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    source, made = bench.folder / "prepared.onnx", bench.folder / "ort.onnx"
    onnx.save(prepare_graph(bench.imported.model), source)
    quantize_static(
        source,
        made,
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return onnx.load(made)


def nncf(bench: Bench, python: str) -> tuple[Answer, tuple[float, float]]:
    """NNCF for OpenVINO, in its own environment."""
    model = bench.folder / "model.onnx"
    onnx.save(bench.imported.model, model)
    files = [bench.folder / name for name in ("calibration.npy", "inputs.npy")]
    subprocess.run(
        [python, str(_PEER), str(model), bench.spec.name, *map(str, files), str(bench.folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    outputs = np.load(bench.folder / "outputs.npy", mmap_mode="r")
    latency = json.loads((bench.folder / "latency.json").read_text())
    return (lambda index: np.array(outputs[index : index + 1])), (latency[0], latency[1])


def interval(first: list[bool], second: list[bool]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares over the same images, in points."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    chosen = np.random.default_rng(0).integers(0, difference.size, (_RESAMPLED, difference.size))
    low, high = np.percentile(100 * difference[chosen].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def measure(bench: Bench, python: str) -> dict[str, dict[str, Any]]:
    """Return the figures of each tool."""
    feed = next(bench.feeds())
    results: dict[str, dict[str, Any]] = {"FP32": bench.judge(bench.float)}
    for name, make in (("Boardwright", ours), ("ONNX Runtime", onnx_runtime)):
        model = make(bench)
        results[name] = bench.judge(bench.answers(model)) | {"kernels": kernel_counts(model)}
        fp32, int8 = compare_latency(bench.imported.model, model, feed)
        results[name]["latency_ratio"] = int8 / fp32
    if python:
        answer, (fp32, int8) = nncf(bench, python)
        results["NNCF (OpenVINO)"] = bench.judge(answer) | {"latency_ratio": int8 / fp32}
    return results


def table(name: str, results: dict[str, dict[str, Any]]) -> str:
    """Return the results for people."""
    top, mine = results["FP32"]["accuracy"], results["Boardwright"]
    lines = [f"{name}", f"  {'':18}{'accuracy':>10}{'lost':>8}{'agreement':>11}{'latency':>9}"]
    for tool, found in results.items():
        ratio = f"{found['latency_ratio']:.2f}" if "latency_ratio" in found else ""
        lost = top - found["accuracy"]
        line = f"  {tool:18}{found['accuracy']:10.2f}{lost:8.2f}{found['agreement']:11.2f}{ratio:>9}"
        if "same" in found and tool not in ("FP32", "Boardwright"):
            low, high = interval(mine["same"], found["same"])
            line += f"   Boardwright agrees {low:+.2f} to {high:+.2f} points more"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    """Run the cases that were named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--nncf", default="", help="the Python of an environment with nncf and openvino")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--calibration", type=int, default=100)
    parser.add_argument("--evaluation", type=int)
    parser.add_argument("--profile", default="x86-vnni", help="the board's quantization profile: %(default)s")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="a model of yours instead of the cases")
    parser.add_argument("--dataset", type=Path, help="its images")
    parser.add_argument("--evaluation-dataset", type=Path, help="its labelled images")
    parser.add_argument("--input-spec", type=Path, help="how an image becomes its input, a JSON file")
    options = parser.parse_args()
    cases = {name: CASES[name] for name in options.cases or CASES}
    if options.checkpoint:
        if not options.dataset:
            parser.error("--checkpoint needs --dataset as well: images to calibrate with")
        own = own_case(options.checkpoint, options.dataset, options.evaluation_dataset, options.input_spec)
        cases = {options.checkpoint.name: own}
    elif not options.data.exists():
        sys.stderr.write(f"there is no {options.data}: name the folder of models and images with --data\n")
        return 2
    if not options.nncf:
        sys.stdout.write("NNCF is left out: name the Python of its environment (NNCF=…/bin/python).\n")
    everything = {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            given = options.data, options.calibration, options.evaluation, Path(folder)
            bench = Bench(case, *given, options.profile)
            results = measure(bench, options.nncf)
            sys.stdout.write(table(name, results) + "\n")
            everything[name] = {
                tool: {key: value for key, value in found.items() if key != "same"}
                for tool, found in results.items()
            }
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
