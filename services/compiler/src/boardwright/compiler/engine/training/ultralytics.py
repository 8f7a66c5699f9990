"""Ultralytics detectors trained by Ultralytics' own trainer, with the architecture that they are given.

Beside the generic training of graphs: Ultralytics' loss assigns boxes to predictions, augments with mosaics,
and trains both branches of an end-to-end head, none of which an exported graph has any more.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.checkpoint.ultralytics_file import prepare_ultralytics
from boardwright.compiler.engine.errors import EngineError, first_line
from boardwright.compiler.engine.training.yolo_folder import YoloFolder

if TYPE_CHECKING:
    import torch

    from boardwright.model import InputSpec

_INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_KEPT_ARGUMENTS = ("imgsz", "task", "box", "cls", "dfl")


@dataclass(frozen=True, slots=True)
class UltralyticsOptions:
    """How Ultralytics' trainer is driven; names and meanings are the shared ones of training.

    ``image_size`` is the square side in pixels. ``learning_rate`` None leaves optimizer and rate to
    Ultralytics. ``augment`` mixes and distorts images as Ultralytics does by default; without it only
    ``flip`` may be on. ``teacher_weight`` is Ultralytics' ``dis``. ``class_balance`` (its ``cls_pw``) is the
    power of the inverse class frequency that weights the classes. ``bgr`` for networks that read BGR.
    """

    image_size: int = 640
    epochs: int = 10
    batch_size: int = 16
    learning_rate: float | None = None
    final_learning_rate: float = 0.01
    weight_decay: float = 0.0005
    optimizer: str = "auto"
    augment: bool = True
    flip: bool = True
    multi_scale: float = 0.0
    class_balance: float = 0.0
    teacher_weight: float = 6.0
    patience: int = 0
    bgr: bool = False
    seed: int = 0


def read_ultralytics_options(parameters: Mapping[str, Any], input_spec: InputSpec) -> UltralyticsOptions:
    """Return the options that a step's parameters hold by their names, for images as ``input_spec`` says."""
    names = {field.name for field in fields(UltralyticsOptions)}
    found = {name: value for name, value in parameters.items() if name in names}
    found["image_size"] = max(input_spec.height, input_spec.width)
    return UltralyticsOptions(**{**found, "bgr": input_spec.color == "BGR"})


@dataclass(frozen=True, slots=True)
class UltralyticsRecord:
    """What training did. ``losses`` are Ultralytics' mean training losses by epoch, ``scores`` mAP50-95 on
    the held-out images (empty without any); ``epoch`` is the one whose weights were kept, from 1."""

    epochs: int
    epoch: int
    images: int
    held_out: int
    losses: tuple[Mapping[str, float], ...]
    scores: tuple[float, ...]
    parameters: int
    options: UltralyticsOptions
    notes: tuple[str, ...] = field(default_factory=tuple)

    def describe(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {**asdict(self), "trainer": "ultralytics", "notes": list(self.notes)}


def train_ultralytics(
    module: torch.nn.Module,
    dataset: YoloFolder,
    options: UltralyticsOptions,
    *,
    teacher: torch.nn.Module | None = None,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> UltralyticsRecord:
    """Train ``module`` (Ultralytics' DetectionModel, of any widths) in place; its architecture stays.

    ``teacher`` is another DetectionModel with as many head levels; its features teach ``module`` beside the
    labels (Ultralytics' ``distill_model``). The weights kept are the moving average after the best epoch by
    held-out mAP, or after the last one where no images are held out.

    Raises:
        DependencyMissing: Ultralytics is not installed.
        EngineError: DISTILL_HEADS_DIFFER; TRAINING_DIVERGED, when no epoch ended with numbers;
            TRAINING_FAILED, with Ultralytics' own words.
    """
    ultralytics = prepare_ultralytics()
    from boardwright.compiler.engine.training.ultralytics_trainer import KeepingTrainer

    if teacher is not None:
        check_heads(module, teacher)
    ultralytics.settings.update({name: False for name in _INTEGRATIONS if name in ultralytics.settings})
    before = _shapes(module)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = None
        try:
            trainer = KeepingTrainer(
                module, _data(module, dataset), _overrides(module, options, Path(folder)), teacher=teacher,
                on_epoch=on_epoch,
            )  # fmt: skip
            trainer.train()
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
            raise EngineError(
                "TRAINING_FAILED",
                f"Ultralytics' trainer stopped: {first_line(error)}. Check that images, labels and batch "
                "size fit the model.",
            ) from error
    if trainer.state is None:
        raise EngineError(
            "TRAINING_DIVERGED",
            "The loss was no number after the first epoch. Lower learning_rate, or raise batch_size.",
        )
    _settle(module, trainer.state, options)
    if _shapes(module) != before:
        raise EngineError("TRAINING_FAILED", "Training changed the network's architecture; nothing was kept.")
    notes = (_diverged_note(trainer.best_epoch),) if trainer.diverged else ()
    return UltralyticsRecord(
        epochs=len(trainer.losses),
        epoch=trainer.best_epoch,
        images=dataset.training,
        held_out=dataset.held_out,
        losses=tuple(trainer.losses),
        scores=tuple(trainer.scores),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        options=options,
        notes=notes,
    )


def check_heads(student: Any, teacher: Any) -> None:
    """Check that teacher and student have as many feature levels and the same classes.

    Raises:
        EngineError: DISTILL_HEADS_DIFFER, DISTILL_CLASSES_DIFFER.
    """
    levels = [_head_levels(student), _head_levels(teacher)]
    if 0 in levels or levels[0] != levels[1]:
        raise EngineError(
            "DISTILL_HEADS_DIFFER",
            f"The student's detection head reads {levels[0]} feature levels and the teacher's {levels[1]}; "
            "feature distillation needs the same number. Choose a teacher with as many (not a -p2 or -p6 "
            "variant), or the objective detection, which compares decoded answers.",
        )
    ours, theirs = int(student.model[-1].nc), int(teacher.model[-1].nc)
    if ours != theirs:
        raise EngineError(
            "DISTILL_CLASSES_DIFFER",
            f"The student knows {ours} classes and the teacher {theirs}: what the one says cannot teach the "
            "other. Train the teacher on the student's classes first.",
        )


def save_ultralytics(module: torch.nn.Module, path: Path, image_size: int) -> None:
    """Write ``module`` as a ``.pt`` file that ``checkpoint.load_ultralytics`` loads: float32, no paths."""
    import torch

    torch.save(
        {
            "epoch": -1,
            "model": module,
            "train_args": {"imgsz": image_size, "task": "detect"},
            "version": prepare_ultralytics().__version__,
            "license": "AGPL-3.0 (https://ultralytics.com/license)",
        },
        path,
    )


def _data(module: Any, dataset: YoloFolder) -> dict[str, Any]:
    names = dict(module.names) if getattr(module, "names", None) else {}
    count = int(module.model[-1].nc)
    return {
        "path": dataset.path,
        "train": dataset.images("train"),
        "val": dataset.images("val" if dataset.held_out else "train"),
        "names": {index: str(names.get(index, index)) for index in range(count)},
        "nc": count,
        "channels": int(getattr(module, "yaml", {}).get("channels", 3)),
    }


def _overrides(module: Any, options: UltralyticsOptions, folder: Path) -> dict[str, Any]:
    stride = max(int(module.stride.max()), 32)
    optimizer = options.optimizer if options.learning_rate is not None else "auto"
    names = {"adamw": "AdamW", "sgd": "SGD", "auto": "auto"}
    mixing = {} if options.augment else dict.fromkeys(_AUGMENTATIONS, 0.0)
    return {
        "task": "detect",
        "mode": "train",
        "model": "given.yaml",
        "data": "given.yaml",
        "imgsz": -(-options.image_size // stride) * stride,
        "epochs": options.epochs,
        "batch": options.batch_size,
        "nbs": options.batch_size,  # every batch is a step: few images would give one step per epoch
        "lr0": options.learning_rate if options.learning_rate is not None else 0.01,
        "lrf": options.final_learning_rate,
        "optimizer": names[
            "adamw" if optimizer == "auto" and options.learning_rate is not None else optimizer
        ],
        "weight_decay": options.weight_decay,
        "warmup_epochs": min(3.0, options.epochs / 10),
        "warmup_bias_lr": options.learning_rate if options.learning_rate is not None else 0.1,
        "patience": options.patience,
        "multi_scale": options.multi_scale,
        "cls_pw": options.class_balance,
        "dis": options.teacher_weight,
        "close_mosaic": max(1, options.epochs // 10),
        "bgr": 1.0 if options.bgr else 0.0,
        **mixing,
        "fliplr": 0.5 if options.flip else 0.0,
        "seed": options.seed,
        "deterministic": True,
        "device": "cpu",
        "workers": 0,
        "amp": False,
        "plots": False,
        "save": True,
        "val": True,
        "verbose": False,
        "project": str(folder),
        "name": "run",
        "exist_ok": True,
    }


_AUGMENTATIONS = ("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "mosaic", "erasing")


def _settle(module: Any, state: Mapping[str, Any], options: UltralyticsOptions) -> None:
    """Put the kept weights in, and take off what training hung onto the module."""
    module.load_state_dict(state)
    module.criterion = None
    module.args = {"imgsz": options.image_size, "task": "detect"}
    for name in ("class_weights", "pt_path"):
        if hasattr(module, name):
            delattr(module, name)
    module._forward_hooks.clear()
    for layer in module.modules():
        layer._forward_hooks.clear()
    module.eval()


def _head_levels(module: Any) -> int:
    return int(getattr(module.model[-1], "nl", 0))


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _diverged_note(epoch: int) -> str:
    return (
        f"Training stopped where the loss was no number any more; the weights after epoch {epoch} are kept."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ultralytics' tables and bars out of the step's output."""
    logger = logging.getLogger("ultralytics")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            yield
        finally:
            logger.setLevel(level)
