from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from boardwright.cli.demo.subject import (
    EXAMPLE_DETECTOR_SPEC,
    EXAMPLE_INPUT_SPEC,
    check_checkpoint,
    own_subject,
)
from boardwright.rpc.errors import InvalidArgument


def _own(checkpoint: str, dataset: Path | None, evaluation: Path | None = None):  # type: ignore[no-untyped-def]
    return own_subject(
        Path(checkpoint), dataset, evaluation, model=None, module=None, input_spec=None, output_spec=None
    )


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "d" / name / f"{number}.png")
    return tmp_path / "d"


def test_a_dataset_without_splits_is_split_by_name_without_overlap(classes: Path) -> None:
    from boardwright.samples import read_layout

    subject = _own("m.onnx", classes)
    names = [sample.name for sample in read_layout(classes)]
    assert subject.evaluation is not None
    calibration = {name for name in names if subject.calibration.choose(name)}
    evaluation = {name for name in names if subject.evaluation.choose(name)}
    assert calibration | evaluation == set(names)
    assert not calibration & evaluation
    assert 5 <= len(calibration) <= 20
    assert subject.task == "classification"


def test_a_split_of_the_layout_is_used_as_it_is(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / "a.png")
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    subject = _own("yolo.onnx", tmp_path)
    assert (subject.calibration.split, subject.calibration.choose) == ("train2017", None)
    assert subject.evaluation is not None and subject.evaluation.split == "val2017"
    assert subject.task == "detection"


def test_unlabelled_images_calibrate_and_judge_nothing(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    assert _own("m.onnx", tmp_path).evaluation is None


def test_an_evaluation_set_of_its_own_leaves_the_dataset_whole(classes: Path) -> None:
    subject = _own("m.onnx", classes, classes)
    assert subject.calibration.choose is None
    assert subject.evaluation is not None and subject.evaluation.choose is None


def test_without_images_nothing_can_be_calibrated(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="--dataset"):
        _own("m.onnx", None)
    with pytest.raises(InvalidArgument, match="missing"):
        _own("m.onnx", tmp_path / "missing")


@pytest.mark.parametrize(
    ("file", "model"),
    [("MobileNet_v1.0.onnx", "mobilenet-v1-0"), ("7.onnx", "model-7"), ("__.onnx", "model")],
)
def test_the_model_is_called_after_its_file(classes: Path, file: str, model: str) -> None:
    assert _own(file, classes).model == model


def _onnx(path: Path, metadata: dict[str, str] | None = None) -> Path:
    onnx = pytest.importorskip("onnx", reason="onnx writes the file")
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, 1, [1, 3, 4, 4]) for name in ("images", "scores")]
    node = helper.make_node("Relu", ["images"], ["scores"])
    model = helper.make_model(helper.make_graph([node], "net", values[:1], values[1:]))
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


def test_a_file_that_does_not_tell_its_input_is_refused_with_a_spec_to_start_from(tmp_path: Path) -> None:
    from boardwright.model import InputSpec

    checkpoint = _onnx(tmp_path / "net.onnx")
    with pytest.raises(InvalidArgument) as caught:
        check_checkpoint(checkpoint, module=None, input_spec=None, output_spec=None)
    assert caught.value.reason == "INPUT_SPEC_NEEDED"
    for needed in ("net.onnx", "--input-spec FILE", "INPUT_SPEC=", EXAMPLE_INPUT_SPEC, EXAMPLE_DETECTOR_SPEC):
        assert needed in caught.value.message
    assert InputSpec.from_json(json.loads(EXAMPLE_INPUT_SPEC)).resize == "center-crop"
    assert InputSpec.from_json(json.loads(EXAMPLE_DETECTOR_SPEC)).resize == "letterbox"
    (tmp_path / "in.json").write_text(EXAMPLE_INPUT_SPEC)
    check_checkpoint(checkpoint, module=None, input_spec=tmp_path / "in.json", output_spec=None)


def test_what_ultralytics_exported_tells_its_input(tmp_path: Path) -> None:
    checkpoint = _onnx(tmp_path / "yolo.onnx", {"description": "a model", "author": "Ultralytics"})
    check_checkpoint(checkpoint, module=None, input_spec=None, output_spec=None)


def test_nothing_starts_for_a_checkpoint_without_its_spec(
    tmp_path: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boardwright.cli.demo import main
    from boardwright.cli.output import Format

    def never(*_: object, **__: object) -> None:
        raise AssertionError("services were started")

    monkeypatch.setattr(main, "_start", never)
    wishes = main.Wishes(tmp_path / "data", checkpoint=_onnx(tmp_path / "net.onnx"), dataset=classes)
    with pytest.raises(InvalidArgument, match="--input-spec FILE"):
        main.run(wishes, Format.TABLE)
    assert not (tmp_path / "data").exists()
