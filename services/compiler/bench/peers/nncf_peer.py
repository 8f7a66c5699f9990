"""NNCF's post-training quantization, run by NNCF's own Python: `compression.py` calls it.

    python nncf_peer.py MODEL.onnx INPUT CALIBRATION.npy EVALUATION.npy FOLDER

The .npy files hold preprocessed inputs (N, C, H, W), float32. Writes `outputs.npy` (N, …), float16, and
`latency.json`: median milliseconds of one thread, FP32 and INT8 in turns.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import nncf
import numpy as np
import openvino

_RUNS = 30


def main() -> None:
    """Quantize, run, time."""
    model_file, name, calibration_file, evaluation_file, folder = sys.argv[1:]
    calibration, evaluation = (np.load(file, mmap_mode="r") for file in (calibration_file, evaluation_file))
    core = openvino.Core()
    float_model = core.read_model(model_file)
    samples = nncf.Dataset(
        list(range(len(calibration))), lambda index: {name: np.array(calibration[index : index + 1])}
    )
    small = nncf.quantize(float_model, samples, subset_size=len(calibration))
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = [core.compile_model(entry, "CPU", options) for entry in (core.read_model(model_file), small)]
    first = compiled[1]({name: np.array(evaluation[:1])})[0]
    outputs = np.lib.format.open_memmap(
        Path(folder) / "outputs.npy", "w+", np.float16, (len(evaluation), *first.shape[1:])
    )
    for index in range(len(evaluation)):
        outputs[index] = compiled[1]({name: np.array(evaluation[index : index + 1])})[0][0]
    outputs.flush()
    times: list[list[float]] = [[], []]
    feed = {name: np.array(evaluation[:1])}
    for _ in range(_RUNS):
        for network, taken in zip(compiled, times, strict=True):
            started = time.perf_counter()
            network(feed)
            taken.append((time.perf_counter() - started) * 1000)
    (Path(folder) / "latency.json").write_text(json.dumps([statistics.median(taken) for taken in times]))


if __name__ == "__main__":
    main()
