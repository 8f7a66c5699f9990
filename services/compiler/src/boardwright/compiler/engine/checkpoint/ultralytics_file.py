"""Ultralytics ``.pt`` files: whole pickled models, loaded through an allow-list only.

``YOLO("x.pt")`` runs whatever a malicious file asks for. Here the file is judged without torch first, then
read by Ultralytics' own restricted loader. Ultralytics itself is kept offline, from installing packages by
itself, and away from the user's settings.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boardwright.compiler.engine.checkpoint.torch_file import LOAD_ERRORS, check_torch_file
from boardwright.compiler.engine.errors import CheckpointUnreadable, DependencyMissing, first_line
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, Limits

_ENVIRONMENT = {
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "1",
}


@dataclass(frozen=True, slots=True)
class YoloCheckpoint:
    """A loaded YOLO and what its training knew.

    ``model`` is ``ultralytics.YOLO``. ``image_size`` is (height, width) in pixels. ``end_to_end`` tells a
    head that needs no suppression of overlapping boxes; ``head`` is its class.
    """

    model: Any
    task: str
    image_size: tuple[int, int]
    labels: tuple[str, ...]
    end_to_end: bool
    head: str = ""


def prepare_ultralytics() -> Any:
    """Import Ultralytics, restricted, and return the module.

    Raises:
        DependencyMissing: it is not installed, or a torchvision without working operators stands in its way.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise DependencyMissing(
            "DEPENDENCY_MISSING",
            "Ultralytics is not installed where steps run. Install boardwright-compiler[ultralytics] "
            "(note its AGPL-3.0 licence), or export the checkpoint to ONNX and push that.",
        )
    os.environ.update(_ENVIRONMENT)
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="boardwright-ultralytics-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    make_torchvision_importable()
    import ultralytics

    with suppress(KeyError, OSError):
        ultralytics.settings.update({"sync": False})
    return ultralytics


def make_torchvision_importable() -> None:
    """Define the two operators that torchvision's CUDA wheel expects, where CPU torch lacks them.

    Its import fails otherwise with "operator torchvision::nms does not exist". Where torchvision imports
    as it is, nothing happens.
    """
    import torch

    try:
        import torchvision

        return
    except RuntimeError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _suppress_overlaps, "CPU")
    _KEPT_ALIVE.append(library)
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True


_KEPT_ALIVE: list[Any] = []  # a torch Library undefines its operators when it is collected


def _suppress_overlaps(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy non-maximum suppression: boxes (N, 4) xyxy, scores (N,) → kept indices, best first."""
    import torch

    order = scores.argsort(descending=True)
    areas = (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
    kept = []
    while order.numel() > 0:
        best, rest = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        union = areas[best] + areas[rest] - shared
        order = rest[shared <= iou_threshold * union]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.int64)


def load_ultralytics(path: Path, limits: Limits = DEFAULT_LIMITS) -> YoloCheckpoint:
    """Load an Ultralytics checkpoint of a detection or classification model.

    Raises:
        CheckpointRefused: it names globals beyond torch.nn and ultralytics.nn; each is told.
        CheckpointTooLarge, CheckpointUnreadable: see ``check_torch_file``.
        DependencyMissing: Ultralytics is not installed.
    """
    check_torch_file(path, allow_ultralytics=True, limits=limits)
    ultralytics = prepare_ultralytics()
    try:
        with _under_its_suffix(path) as named:
            model = ultralytics.YOLO(str(named))
        network = model.model
        labels = tuple(str(network.names[index]) for index in sorted(network.names))
    except LOAD_ERRORS as error:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} cannot be read as an Ultralytics checkpoint: "
            f"{first_line(error)}. Save it with model.save(path).",
        ) from error
    head = network.model[-1]
    return YoloCheckpoint(
        model=model,
        task=str(model.task),
        image_size=_image_size(network),
        labels=labels,
        end_to_end=bool(getattr(head, "end2end", False)),
        head=type(head).__name__,
    )


@contextmanager
def _under_its_suffix(path: Path) -> Iterator[Path]:
    """Yield a path to the file that ends in ``.pt``: other names Ultralytics wants to download."""
    if path.suffix == ".pt":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / f"{path.name}.pt"
        named.symlink_to(path.resolve())
        yield named


def _image_size(network: Any) -> tuple[int, int]:
    arguments = getattr(network, "args", {}) or {}
    declared = arguments.get("imgsz", 640) if isinstance(arguments, dict) else 640
    if isinstance(declared, list | tuple) and len(declared) == 2:
        return int(declared[0]), int(declared[1])
    size = int(declared[0]) if isinstance(declared, list | tuple) else int(declared)
    return size, size
