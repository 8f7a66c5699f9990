"""The layouts of the real datasets, from folder to pack and back."""

from pathlib import Path

import pytest

from boardwright.samples import BadSample, FoundSample, check_found, read_layout, write_packs

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (DATA / "coco").is_dir(), reason="../shared/data (real models and images) is absent"
    ),
]


def test_imagenet_table() -> None:
    for split, count in [("calibration", 300), ("evaluation", 400)]:
        source = read_layout(DATA / "imagenet", split=split)
        assert source.layout == "csv" and source.task == "classification"
        found = list(source)
        assert len(found) == count and all(isinstance(sample, FoundSample) for sample in found)


def test_coco_in_yolo_layout(tmp_path: Path) -> None:
    source = read_layout(DATA / "coco", split="val2017")
    assert (source.layout, len(source.classes)) == ("yolo", 80)
    found = [sample for sample in source if isinstance(sample, FoundSample)]
    assert len(found) == 128 and not [sample for sample in source if isinstance(sample, BadSample)]
    assert all(check_found(sample) is None for sample in found[:10])
    packs = list(write_packs(found, tmp_path))
    assert sum(len(pack.samples) for pack in packs) == 128
    assert max(pack.size_bytes for pack in packs) <= 32 * 1024 * 1024
