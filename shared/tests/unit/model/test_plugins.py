"""A head of somebody else: an installed distribution declares it, the output spec names it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boardwright.model import Detections, ModelError, OutputSpec, Placement, decode
from boardwright.model.plugins import load_head

WHOLE = Placement(100, 100, 1.0, 1.0, 0.0, 0.0)
MODULE = '''
import numpy as np
from boardwright.model import RawDetections

def corners_and_chances(outputs, spec, size):
    """Boxes as corners in halves of a pixel; chances in percent."""
    return RawDetections(outputs["chances"] / 100, outputs["corners"] / spec.options["parts"])

def one_class_only(outputs, spec, size):
    count = len(outputs["corners"])
    return RawDetections(np.full(count, 0.9), outputs["corners"], np.zeros(count, np.intp), suppressed=True)

def plain(outputs, spec, size):
    """Lists, and whole numbers as floats."""
    corners = (outputs["corners"] / 2).tolist()
    return RawDetections([0.9, 0.8, 0.7], lambda rows: [corners[row] for row in rows], [0.0, 1.0, 1.0])

def ragged(outputs, spec, size):
    return RawDetections([[0.9, 0.1], [0.8]], outputs["corners"])

def one_box_short(outputs, spec, size):
    return RawDetections([0.9, 0.8, 0.7], lambda rows: outputs["corners"][rows[1:]], [0, 1, 1])

def late(outputs, spec, size):
    return RawDetections([0.9, 0.8, 0.7], lambda rows: 1 / 0, [0, 1, 1])

def raises(outputs, spec, size):
    raise KeyError("anchors")

def wrong(outputs, spec, size):
    return RawDetections(np.zeros((3, 9), np.float32), np.zeros((3, 4), np.float32))

def nothing(outputs, spec, size):
    return None
'''
ENTRY_POINTS = """[boardwright.output_heads]
corners = somebodys_heads:corners_and_chances
single = somebodys_heads:one_class_only
plain = somebodys_heads:plain
ragged = somebodys_heads:ragged
short = somebodys_heads:one_box_short
late = somebodys_heads:late
raises = somebodys_heads:raises
wrong = somebodys_heads:wrong
nothing = somebodys_heads:nothing
absent = somebodys_missing_module:decode
"""
OUTPUTS = {
    "corners": np.array([[[20, 20, 60, 60], [22, 20, 62, 60], [100, 100, 180, 180]]], np.float32),
    "chances": np.array([[[90, 5], [80, 5], [10, 70]]], np.float32),
}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution as pip leaves it: a module beside its metadata."""
    (tmp_path / "somebodys_heads.py").write_text(MODULE)
    metadata = tmp_path / "somebodys_heads-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-heads\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    load_head.cache_clear()
    yield
    load_head.cache_clear()


def detect(name: str) -> Detections:
    spec = OutputSpec(task="detection", head="plugin", plugin=name, num_classes=2, options={"parts": 2})
    found = decode(OUTPUTS, spec, WHOLE)
    assert isinstance(found, Detections)
    return found


def test_thresholds_and_suppression_follow_what_the_plugin_gives() -> None:
    found = detect("corners")
    np.testing.assert_allclose(found.boxes, [[10, 10, 30, 30], [50, 50, 90, 90]])
    assert found.classes.tolist() == [0, 1] and found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_a_plugin_may_do_the_suppression_itself() -> None:
    assert len(detect("single")) == 3


def test_lists_and_other_types_are_taken() -> None:
    found = detect("plain")
    assert found.classes.tolist() == [0, 1, 1] and found.boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("cornes", "OUTPUT_HEAD_UNKNOWN", "no installed .* the output head 'cornes'.*corners"),
        ("absent", "OUTPUT_HEAD_FAILED", "cannot be imported: No module named 'somebodys_missing_module'"),
        ("raises", "OUTPUT_HEAD_FAILED", "raised KeyError"),
        ("ragged", "OUTPUT_HEAD_FAILED", "raised ValueError"),
        ("late", "OUTPUT_HEAD_FAILED", "raised ZeroDivisionError"),
        ("short", "OUTPUTS_DO_NOT_FIT", "gave boxes .2, 4. for 3 scores"),
        ("wrong", "OUTPUTS_DO_NOT_FIT", "gave scores .3, 9., expected .3, 2."),
        ("nothing", "OUTPUTS_DO_NOT_FIT", "gave NoneType, not RawDetections"),
    ],
)  # fmt: skip
def test_a_plugin_that_does_not_work_is_told(name: str, reason: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        detect(name)
    assert caught.value.reason == reason
