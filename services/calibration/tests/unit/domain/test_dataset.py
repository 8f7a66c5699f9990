from dataclasses import replace

import pytest

from boardwright.calibration.domain.dataset import Sample, classes_problem
from boardwright.samples import Box

DIGEST = "sha256:" + "a" * 64
SAMPLE = Sample("cats/1.png", DIGEST, 10, "image/png", DIGEST, 512, 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": ""}, "the name must have 1 to 1024"),
        ({"name": "x" * 1025}, "the name must have 1 to 1024"),
        ({"name": "/abs.png"}, "relative path"),
        ({"name": "a/../b.png"}, "relative path"),
        ({"name": "a\nb"}, "relative path"),
        ({"digest": "sha256:xyz"}, "digest must be sha256:"),
        ({"pack_digest": ""}, "pack_digest must be sha256:"),
        ({"size_bytes": 0}, "size_bytes must be 1 to"),
        ({"size_bytes": 1 << 40}, "size_bytes must be 1 to"),
        ({"pack_offset": -1}, "must not be negative"),
        ({"media_type": "text/plain"}, "must be an image's"),
    ],
)
def test_samples_that_are_refused(change: dict[str, object], problem: str) -> None:
    assert SAMPLE.problem() == ""
    assert problem in replace(SAMPLE, **change).problem()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "task", "problem"),
    [
        (None, "classification", ""),
        (None, "", ""),
        (1, "classification", ""),
        ((), "detection", ""),
        ((Box(1, 0.5, 0.5, 0.1, 0.1),), "detection", ""),
        (0, "", "the dataset is unlabelled"),
        (0, "detection", "its labels are boxes"),
        ((), "classification", "its labels are class ids"),
        (2, "classification", "class 2 is beyond the 2 known classes"),
        (-1, "classification", "class -1 is negative"),
        (
            (Box(0, 0.5, 0.5, 0.1, 0.1), Box(0, 2, 0.5, 0.1, 0.1)),
            "detection",
            "box 1: a coordinate is outside",
        ),
        ((Box(5, 0.5, 0.5, 0.1, 0.1),), "detection", "class 5 is beyond"),
    ],
)
def test_labels(label: object, task: str, problem: str) -> None:
    found = replace(SAMPLE, label=label).label_problem(task, ("cat", "dog"))  # type: ignore[arg-type]
    assert problem in found if problem else found == ""


def test_labels_need_classes() -> None:
    assert "the version has no classes" in SAMPLE.label_problem("classification", ())


def test_class_names() -> None:
    assert classes_problem(["a", "b"]) == ""
    assert "two classes are called 'a'" in classes_problem(["a", "a"])
    assert "class 1 must have a name" in classes_problem(["a", ""])
    assert "at most" in classes_problem(str(n) for n in range(100_001))
