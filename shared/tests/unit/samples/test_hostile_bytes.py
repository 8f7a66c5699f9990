"""Random damage, from fixed seeds: the answer is an image, a sample or a plain refusal."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boardwright.samples import BadSample, FoundSample, SampleError, decode_image, read_layout

Picture = Callable[..., bytes]

DESCRIPTIONS = {
    "labels.csv": b"file,class_index,split\na.png,1,x\nimages/a.png,2,y\n",
    "data.yaml": b"path: .\ntrain: images\nnames: {0: a, 1: b}\n",
    "labels/a.txt": b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n",
    "coco.json": json.dumps(
        {
            "images": [{"id": 1, "file_name": "images/a.png", "width": 10, "height": 10}],
            "categories": [{"id": 1, "name": "x"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0}],
        }
    ).encode(),
}
PIECES = [b"null", b"[]", b"{}", b'"x"', b"-1", b"1e999", b"nan", b"\0", b"\xff", b"\n", b",", b":", b"  "]
PIECES += [b"&a *a", b"!!python/object:os.system", b"true", b"9" * 20, b'"\n', b"- ", b"'"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM"])
def test_damaged_images(kind: str, picture: Picture) -> None:
    chance = random.Random(kind)
    refusals: list[SampleError] = []
    for _ in range(60):
        data = bytearray(picture(1, (40, 30), kind))
        for _ in range(chance.randrange(1, 10)):
            place = chance.randrange(min(len(data), chance.choice((40, 400, len(data)))))
            data[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        try:
            decoded = decode_image(bytes(data), max_pixels=1_000_000)
        except SampleError as error:
            refusals.append(error)
        else:
            assert decoded.mode in ("L", "RGB")
    assert refusals and all(error.message for error in refusals)
    assert {error.reason for error in refusals} <= {"IMAGE_CORRUPT", "IMAGE_TOO_LARGE"}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_damaged_descriptions(name: str, tmp_path: Path, picture: Picture) -> None:
    chance = random.Random(name)
    refusals: list[SampleError] = []
    bad: list[BadSample] = []
    for number in range(60):
        root = tmp_path / str(number)
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True)
        (root / "images/a.png").write_bytes(picture())
        text = bytearray(DESCRIPTIONS[name])
        for _ in range(chance.randrange(1, 6)):
            start = chance.randrange(len(text) + 1)
            text[start : start + chance.randrange(6)] = chance.choice(PIECES)
        if name == "labels/a.txt":
            (root / "data.yaml").write_bytes(DESCRIPTIONS["data.yaml"])
        (root / name).write_bytes(text)
        try:
            found = list(read_layout(root if name.startswith("labels/") else root / name))
        except SampleError as error:
            refusals.append(error)
        else:
            assert all(isinstance(sample, (FoundSample, BadSample)) for sample in found)
            bad += [sample for sample in found if isinstance(sample, BadSample)]
    assert refusals or bad
    assert all(error.message for error in refusals) and all(sample.reason for sample in bad)


def test_a_class_index_beyond_reason_is_named_and_not_counted_up_to(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "labels.csv").write_text(f"file,class_index\na.png,{10**20}\n")
    source = read_layout(tmp_path)
    assert source.classes == ()
    (sample,) = source
    assert isinstance(sample, BadSample) and sample.line == 2 and "is no class index" in sample.reason
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 2, 2)), labels=np.array([10**15]))
    with pytest.raises(SampleError, match="is too large"):
        read_layout(tmp_path / "a.npz")
