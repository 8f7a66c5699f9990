"""What travels: the digits network, or the user's own checkpoint."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import mmap
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boardwright.cli.progress import Bars
from boardwright.client.references import identifier
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument

_CALIBRATION_SHARE = 3
_FROM_ULTRALYTICS = b"\x0a\x06author\x12\x0bUltralytics"
"""An entry of an ONNX file's metadata (key "author") as Protocol Buffers write it."""
EXAMPLE_INPUT_SPEC = (
    '{"height": 224, "width": 224, "color": "RGB", "scale": 0.00392156862745098, '
    '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": "center-crop"}'
)

EXAMPLE_DETECTOR_SPEC = (
    '{"height": 640, "width": 640, "color": "RGB", "scale": 0.00392156862745098, "resize": "letterbox"}'
)


@dataclass(frozen=True, slots=True)
class Samples:
    """Where a dataset comes from: a path, one of its splits, or the share that `choose` takes by name."""

    path: Path
    split: str = ""
    choose: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint and what it is judged with.

    Attributes:
        model: the model's id.
        task: "classification" or "detection"; empty when the dataset does not tell.
        metrics: as the training saw them.
        evaluation: None when nothing labelled is there; then only parity can be told.
    """

    model: str
    checkpoint: Path
    module: str | None
    input_spec: Path | None
    output_spec: Path | None
    task: str
    metrics: dict[str, float]
    calibration: Samples
    evaluation: Samples | None


class Training:
    """The training of the digits network, in a process of its own that begins at once.

    What was trained before from the very same sources is taken as it is (`reused`).

    Args:
        folder: where checkpoint, specs and images go.

    Raises:
        FailedPrecondition: TRAINING_FAILED, something that it needs is not installed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        source = _sources_digest()
        made = folder / "made.json"
        self.reused = made.exists() and json.loads(made.read_text())["from"] == source
        self._process: subprocess.Popen[str] | None = None
        if not self.reused:
            made.unlink(missing_ok=True)
            command = [sys.executable, "-m", "boardwright.cli.demo.digits", str(folder), source]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    def finish(self, bars: Bars) -> Subject:
        """Wait for its end.

        Raises:
            FailedPrecondition: TRAINING_FAILED, with what it said.
        """
        if self._process is not None:
            _wait(self._process, bars)
        folder = self._folder
        return Subject(
            model="digits",
            checkpoint=folder / "digits.pt",
            module=f"{folder / 'network.py'}:build_network",
            input_spec=folder / "input-spec.json",
            output_spec=folder / "output-spec.json",
            task="classification",
            metrics={"top1": float(json.loads((folder / "made.json").read_text())["top1"])},
            calibration=Samples(folder / "calibration"),
            evaluation=Samples(folder / "evaluation"),
        )

    def stop(self) -> None:
        """End the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _sources_digest() -> str:
    here = Path(__file__)
    hasher = hashlib.sha256()
    for name in ("digits.py", "network.py"):
        hasher.update(here.with_name(name).read_bytes())
    for package in ("torch", "scikit-learn"):
        try:
            hasher.update(importlib.metadata.version(package).encode())
        except importlib.metadata.PackageNotFoundError:
            raise FailedPrecondition(
                "TRAINING_FAILED",
                f"{package} is not installed, and the demonstration trains a network with it: "
                f"pip install {package}, or bring a checkpoint of your own with --checkpoint",
            ) from None
    return hasher.hexdigest()


def _wait(process: subprocess.Popen[str], bars: Bars) -> None:
    with process:
        for line in process.stdout or ():
            told = json.loads(line)
            bars(told["done"], told["total"], told["what"])
        errors = process.stderr.read() if process.stderr is not None else ""
    if process.returncode != 0:
        raise FailedPrecondition("TRAINING_FAILED", f"training failed:\n{errors.strip()[-2000:]}")


def check_checkpoint(
    checkpoint: Path, *, module: str | None, input_spec: Path | None, output_spec: Path | None
) -> None:
    """Refuse a checkpoint that import would refuse, before anything starts, is pushed or sealed.

    Only what Ultralytics wrote tells how images become its input; every other file needs an input spec.

    Raises:
        InvalidArgument: INPUT_SPEC_NEEDED, with one to start from; what `read_checkpoint` says.
    """
    from boardwright.client.pushing import read_checkpoint

    read = read_checkpoint(checkpoint, module=module, input_spec=input_spec, output_spec=output_spec)
    if input_spec is not None or read.format == "ultralytics":
        return
    if read.format == "onnx" and _exported_by_ultralytics(checkpoint):
        return
    raise InvalidArgument(
        "INPUT_SPEC_NEEDED",
        f"{checkpoint.name} ({read.format}) does not say how images become its input: put that into a JSON "
        "file and name it with --input-spec FILE (make: INPUT_SPEC=FILE). For a network trained as most "
        f"ImageNet ones are, it holds {EXAMPLE_INPUT_SPEC}; mean and std are per channel, after scale. For a "
        f"YOLO detector: {EXAMPLE_DETECTOR_SPEC}. Nothing was pushed.",
    )


def _exported_by_ultralytics(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_FROM_ULTRALYTICS) >= 0


def own_subject(
    checkpoint: Path,
    dataset: Path | None,
    evaluation: Path | None,
    *,
    model: str | None,
    module: str | None,
    input_spec: Path | None,
    output_spec: Path | None,
) -> Subject:
    """The user's own checkpoint. One dataset alone is split: by its own splits, else one third to calibrate.

    Raises:
        InvalidArgument: DATASET_MISSING, or what the dataset's layout says.
    """
    if dataset is None:
        raise InvalidArgument(
            "DATASET_MISSING",
            "INT8 needs images to calibrate with, and labelled ones to judge by: name them with --dataset "
            "(make: DATASET=…)",
        )
    calibration, judged, task = _split(dataset)
    if evaluation is not None:
        calibration, judged = Samples(dataset), Samples(evaluation)
    return Subject(
        model=model or identifier(checkpoint.stem),
        checkpoint=checkpoint,
        module=module,
        input_spec=input_spec,
        output_spec=output_spec,
        task=task,
        metrics={},
        calibration=calibration,
        evaluation=judged,
    )


def _split(dataset: Path) -> tuple[Samples, Samples | None, str]:
    """Samples to calibrate with, labelled ones to judge by, and the task that the labels tell."""
    from boardwright.samples import SampleError, read_layout

    try:
        source = read_layout(dataset)
    except SampleError as error:
        raise InvalidArgument(error.reason, error.message) from error
    if not source.task:
        return Samples(dataset), None, ""
    held_out = _first(source.splits, ("evaluation", "val", "test"))
    fitting = _first(source.splits, ("calibration", "train"))
    if held_out and fitting:
        return Samples(dataset, split=fitting), Samples(dataset, split=held_out), source.task

    def calibrates(name: str) -> bool:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % _CALIBRATION_SHARE == 0

    judged = Samples(dataset, choose=lambda name: not calibrates(name))
    return Samples(dataset, choose=calibrates), judged, source.task


def _first(splits: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    """The first split of one of these kinds ("val2017" is a "val"); "" for none."""
    return next((split for kind in kinds for split in splits if split.startswith(kind)), "")
