"""Push at the end of an Ultralytics training run.

    from ultralytics import YOLO
    from boardwright.client.ultralytics import attach

    model = YOLO("yolo26n.yaml")
    attach(model, "street")
    model.train(data="street.yaml", epochs=100)

Ultralytics is AGPL-3.0 and is not installed with this package; only `attach` needs it.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.client import references
from boardwright.rpc.errors import BoardwrightError, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from boardwright.api.registry.v1.registry_pb2 import ModelVersion
    from boardwright.client.client import Client

TASKS: Mapping[str, str] = {"detect": "detection", "classify": "classification"}
"""Boardwright's tasks by Ultralytics' names: those that import takes."""

_log = logging.getLogger("ultralytics")
"""Ultralytics' own: what it says is shown beside the training's other lines, where its user looks."""


@dataclass
class Attachment:
    """What `attach` returns. After training, `version` is what was pushed, and `error` says what was refused.

    A training on several GPUs runs, and pushes, in processes of its own: both stay None here then.
    """

    name: str
    version: ModelVersion | None = None
    error: BoardwrightError | None = None
    _client: Client | None = field(default=None, repr=False)
    _options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _strict: bool = False

    def on_train_end(self, trainer: Any) -> None:
        """Ultralytics' callback: push the best weights, or the last where there are no best.

        Raises:
            BoardwrightError: only when attached with `strict`; else it is logged, since the weights are safe
                on disk and the training was not in vain.
        """
        weights = next((path for path in (Path(trainer.best), Path(trainer.last)) if path.is_file()), None)
        if weights is None:
            _log.warning("nothing to push: training of %s saved no weights", self.name)
            return
        self.version = self.error = None
        try:
            self._push(weights, trainer)
        except BoardwrightError as error:
            self.error = error
            if self._strict:
                raise
            _log.error("Boardwright: %s", self._refusal(error, weights))

    def _refusal(self, error: BoardwrightError, weights: Path) -> str:
        why = references.shorten_names(error.message).rstrip(".")
        if self.version is not None:
            return f"{references.shorten(self.version.name)} was pushed, but then: {why}."
        again = shlex.join(["boardwright", "push", self.name, str(weights), "--task", self._options["task"]])
        return f"{self.name} was not pushed: {why}. The weights are safe; push them with: {again}"

    def _push(self, weights: Path, trainer: Any) -> None:
        """Push, and then start the recipe: one that is refused shall not cost the version."""
        from boardwright.client.catalogue import IMPORT_RECIPE
        from boardwright.client.client import Client

        options = dict(self._options)
        labels = {"epochs": str(trainer.epochs), "data": str(trainer.args.data or "")[:200]}
        labels.update(options.pop("labels", None) or {})
        metrics = training_metrics(trainer.metrics or {}) | dict(options.pop("metrics", None) or {})
        recipe, datasets = options.pop("recipe", None), options.pop("datasets", None)
        wait = options.pop("wait", False)
        client = self._client or Client()
        try:
            self.version = client.push(self.name, weights, labels=labels, metrics=metrics, **options)
            _log.info("Boardwright: %s was pushed", references.shorten(self.version.name))
            if recipe is None and not wait:
                return
            job = client.compile(self.version.name, recipe or IMPORT_RECIPE, datasets=datasets)
            _log.info("Boardwright: see its job with: boardwright job watch %s", references.shorten(job.name))
            if wait:
                client.jobs.wait(job.name)
        finally:
            if self._client is None:
                client.close()


def attach(
    model: Any, name: str = "", *, client: Client | None = None, strict: bool = False, **options: Any
) -> Attachment:
    """Push a model's best weights when its training ends.

    Args:
        model: an `ultralytics.YOLO`.
        name: the Boardwright model's id; by default what the network is called ("yolo26n").
        client: the server; found when the training ends, if not given.
        strict: let a failed push fail the training script instead of logging it.
        options: passed on to `Client.push` (recipe, datasets, labels, wait…).

    What is wrong with name or options is told here, not after hours of training.

    Raises:
        FailedPrecondition: ULTRALYTICS_MISSING.
        InvalidArgument: MODEL_UNKNOWN, it is no Ultralytics model; TASK_UNKNOWN; REFERENCE_INVALID.
        TypeError: an option that `Client.push` does not have.
    """
    from boardwright.client.client import Client

    if importlib.util.find_spec("ultralytics") is None:
        raise FailedPrecondition(
            "ULTRALYTICS_MISSING",
            "attach needs Ultralytics, which is not installed: pip install ultralytics (AGPL-3.0), or push "
            "the weights of another framework with Client().push",
        )
    if not hasattr(model, "add_callback") or not hasattr(model, "task"):
        raise InvalidArgument(
            "MODEL_UNKNOWN", f"attach needs an ultralytics.YOLO, not {type(model).__name__}"
        )
    task = TASKS.get(str(model.task))
    if task is None:
        raise InvalidArgument(
            "TASK_UNKNOWN",
            f"models for {model.task!r} cannot be compiled, only those for {' and '.join(TASKS)}",
        )
    name = name or references.identifier(_called(model))
    references.model_name("default", name)
    inspect.signature(Client.push).bind(client, name, "best.pt", **options)
    attachment = Attachment(
        name,
        _client=client,
        _options={"task": task, "run": None, **options},
        _strict=strict,
    )
    model.add_callback("on_train_end", attachment.on_train_end)
    return attachment


def _called(model: Any) -> str:
    """What the network is called: by its file, unless that only says which weights of a run it holds."""
    called = Path(str(getattr(model, "model_name", "") or "model")).stem
    if called in ("best", "last"):
        network = getattr(getattr(model, "model", None), "yaml", None) or {}
        called = Path(str(network.get("yaml_file") or called)).stem
    return called


def training_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Ultralytics' metrics under plain names: "metrics/mAP50-95(B)" becomes "map50_95".

    A loss that became infinite or NaN, as in half precision, is no figure to record.

    >>> training_metrics({"metrics/mAP50(B)": 0.5, "fitness": 0.4})
    {'map50': 0.5, 'fitness': 0.4}
    """
    plain = {}
    for key, value in metrics.items():
        short = key.partition("/")[2] or key
        short = short.removesuffix("(B)").lower().replace("-", "_").replace("accuracy_", "")
        if math.isfinite(value):
            plain[short] = float(value)
    return plain
