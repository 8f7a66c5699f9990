from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.client import Client
from boardwright.client.ultralytics import attach, training_metrics
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, Unavailable

JOB = "projects/default/compileJobs/7"


class Yolo:
    task = "detect"
    model_name: str | None = None
    model: Any = None

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}

    def add_callback(self, event: str, function: Any) -> None:
        self.callbacks[event] = function


class Server:
    def __init__(self, error: Exception | None = None, recipe_error: Exception | None = None) -> None:
        self.pushed: list[tuple[Any, ...]] = []
        self.compiled: list[tuple[Any, ...]] = []
        self.waited: list[str] = []
        self.error, self.recipe_error = error, recipe_error
        self.jobs = SimpleNamespace(wait=self.waited.append)

    def compile(self, version: str, recipe: str, *, datasets: Any) -> Any:
        if self.recipe_error is not None:
            raise self.recipe_error
        self.compiled.append((version, recipe, datasets))
        return SimpleNamespace(name=JOB)

    def push(self, name: str, path: Path, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.pushed.append((name, path, options))
        return SimpleNamespace(name="projects/default/models/street/versions/1")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boardwright.client.ultralytics.importlib.util.find_spec", lambda name: object())


@pytest.fixture
def shown() -> Iterator[list[str]]:
    """What Ultralytics' logger, which passes nothing on to others, would show."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ultralytics")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def _trainer(folder: Path, *, best: bool = True) -> Any:
    (folder / "last.pt").write_bytes(b"last")
    if best:
        (folder / "best.pt").write_bytes(b"best")
    return SimpleNamespace(
        best=folder / "best.pt",
        last=folder / "last.pt",
        epochs=3,
        args=SimpleNamespace(data="street.yaml"),
        metrics={"metrics/mAP50-95(B)": 0.25, "fitness": 0.2},
    )


def test_the_best_weights_are_pushed_when_training_ends(tmp_path: Path) -> None:
    model, server = Yolo(), Server()
    attachment = attach(model, "street", client=server, labels={"site": "north"})  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    (name, path, options) = server.pushed[0]
    assert (name, path) == ("street", tmp_path / "best.pt")
    assert options["task"] == "detection"
    assert options["metrics"] == {"map50_95": 0.25, "fitness": 0.2}
    assert options["labels"] == {"epochs": "3", "data": "street.yaml", "site": "north"}
    assert attachment.version is not None and attachment.error is None


def test_without_best_weights_the_last_ones_go(tmp_path: Path) -> None:
    model, server = Yolo(), Server()
    attach(model, "street", client=server)  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path, best=False))
    assert server.pushed[0][1] == tmp_path / "last.pt"


def test_without_a_name_the_model_is_called_as_its_network(tmp_path: Path) -> None:
    model, server = Yolo(), Server()
    model.model_name = "configs/YOLO26n.yaml"
    attach(model, client=server)  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    assert server.pushed[0][0] == "yolo26n"
    assert attach(Yolo(), client=server).name == "model"  # type: ignore[arg-type]
    model.model_name = "runs/detect/train/weights/last.pt"
    assert attach(model, client=server).name == "last"  # type: ignore[arg-type]
    model.model = SimpleNamespace(yaml={"yaml_file": "yolo26n.yaml"})
    assert attach(model, client=server).name == "yolo26n"  # type: ignore[arg-type]


def test_a_failed_push_costs_no_training_and_says_how_to_repeat_it(tmp_path: Path, shown: list[str]) -> None:
    model, server = Yolo(), Server(Unavailable("SERVICE_UNREACHABLE", "the service cannot be reached"))
    attachment = attach(model, "street", client=server)  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    assert attachment.error is server.error
    # Without its task a new model would be refused.
    assert f"boardwright push street {tmp_path / 'best.pt'} --task detection" in shown[0]


def test_a_refused_recipe_costs_no_version(tmp_path: Path, shown: list[str]) -> None:
    model, server = Yolo(), Server(recipe_error=FailedPrecondition("DATASET_MISSING", "name a dataset"))
    attachment = attach(model, "street", client=server, recipe="default")  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    assert shown == [
        "Boardwright: street@1 was pushed",
        "Boardwright: street@1 was pushed, but then: name a dataset.",
    ]
    assert attachment.version is not None and attachment.error is server.recipe_error


def test_a_recipe_starts_after_the_push_and_is_waited_for_when_asked(
    tmp_path: Path, shown: list[str]
) -> None:
    model, server = Yolo(), Server()
    roles = {"calibration": "street"}
    attach(model, "street", client=server, recipe="quick", datasets=roles, wait=True)  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    assert server.compiled == [("projects/default/models/street/versions/1", "quick", roles)]
    assert server.waited == [JOB]
    assert shown[1:] == ["Boardwright: see its job with: boardwright job watch 7"]


def test_a_push_is_told_where_the_training_tells_its_own(tmp_path: Path, shown: list[str]) -> None:
    model = Yolo()
    attach(model, "street", client=Server())  # type: ignore[arg-type]
    model.callbacks["on_train_end"](_trainer(tmp_path))
    assert shown == ["Boardwright: street@1 was pushed"]


def test_mistakes_are_told_before_the_training() -> None:
    model = Yolo()
    with pytest.raises(InvalidArgument, match="Street Cameras"):
        attach(model, "Street Cameras")
    with pytest.raises(TypeError, match="dataset"):
        attach(model, "street", dataset="street")
    assert model.callbacks == {}


def test_it_follows_a_training_into_the_processes_of_several_gpus() -> None:
    model = Yolo()
    with Client("127.0.0.1:1", "secret", "vision") as client:
        attach(model, "street", client=client)
        assert (
            client.connection.registry and client.content._transfer()
        )  # open, which no other process can use
        there: Any = pickle.loads(pickle.dumps(model.callbacks["on_train_end"])).__self__
    assert (there.name, there._client.project) == ("street", "vision")
    assert there._client.connection.credentials == client.connection.credentials
    assert there._client.models._connection is there._client.connection


def test_strict_lets_the_script_fail(tmp_path: Path) -> None:
    model, server = Yolo(), Server(Unavailable("SERVICE_UNREACHABLE", "away"))
    attach(model, "street", client=server, strict=True)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        model.callbacks["on_train_end"](_trainer(tmp_path))


def test_without_ultralytics_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boardwright.client.ultralytics.importlib.util.find_spec", lambda name: None)
    with pytest.raises(FailedPrecondition, match="pip install ultralytics") as caught:
        attach(Yolo(), "street")
    assert caught.value.reason == "ULTRALYTICS_MISSING"


def test_what_cannot_be_compiled_is_refused_before_training() -> None:
    with pytest.raises(InvalidArgument, match="object"):
        attach(object(), "street")
    model = Yolo()
    for task in ("pose", "segment"):
        model.task = task
        with pytest.raises(InvalidArgument, match=f"{task}.*only those for detect and classify"):
            attach(model, "street")
    assert model.callbacks == {}


def test_metrics_get_plain_names() -> None:
    given = {"metrics/accuracy_top1": 0.9, "val/box_loss": 1, "val/cls_loss": float("nan")}
    assert training_metrics(given) == {
        "top1": 0.9,
        "box_loss": 1.0,
    }
