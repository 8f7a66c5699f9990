import pytest

from boardwright.model import ModelError, OutputSpec


def test_json_round_trip() -> None:
    spec = OutputSpec(task="detection", head="yolov8", num_classes=2, labels=("cat", "dog"), multi_label=True)
    assert OutputSpec.from_json(spec.to_json()) == spec
    assert spec.label(1) == "dog" and spec.label(9) == "9"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "logits"}, "head logits does not belong to detection; use one of yolov5"),
        ({"head": "yolov9"}, "head must be one of"),
        ({"labels": ["a"]}, "1 labels for 2 classes"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"score_threshold": 1.5}, "score_threshold must be 0 to 1"),
        ({"iou_treshold": 0.5}, "did you mean 'iou_threshold'"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    document = OutputSpec(task="detection", head="yolov5", num_classes=2).to_json() | change
    with pytest.raises(ModelError, match=message) as caught:
        OutputSpec.from_json(document)
    assert caught.value.reason == "OUTPUT_SPEC_INVALID"


def test_evaluation_lowers_the_threshold_of_detectors_only() -> None:
    assert (
        OutputSpec(task="detection", head="yolov5", num_classes=2).for_evaluation().score_threshold == 0.001
    )
    classifier = OutputSpec(task="classification", head="logits", num_classes=2)
    assert classifier.for_evaluation() is classifier
