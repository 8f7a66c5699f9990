"""Random damage, from fixed seeds: the answer is an image, a sample or a plain refusal."""

import contextlib
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


LONG = "x" * 5000
NAMES_OF_NAMES = "a: &a [x, y]\nb: &b [*a, *a]\nnames: [*b]\ntrain: images\n"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "train: images\nnames: !!int x\n",
        "train: 2026-02-31\n",
        NAMES_OF_NAMES,
        "train: images\nnames: {.inf: a}\n",
        f"train: {LONG}\n",
    ],
)
def test_a_description_that_yaml_cannot_make_sense_of(tmp_path: Path, picture: Picture, text: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(picture())
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(SampleError) as caught:
        list(read_layout(tmp_path))
    assert caught.value.reason == "LAYOUT_INVALID" and str(tmp_path / "data.yaml") in caught.value.message


@pytest.mark.parametrize("name", ["classes.txt", "train.txt"])
def test_a_list_that_is_no_text_is_named(tmp_path: Path, picture: Picture, name: str) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images/a.png").write_bytes(picture())
    if name == "train.txt":
        (tmp_path / "data.yaml").write_text("train: train.txt\n")
    (tmp_path / name).write_bytes(b"images/\xff.png\n")
    with pytest.raises(SampleError, match=f"{name}: not text in UTF-8"):
        list(read_layout(tmp_path))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("images", "id"), []),
        (("images", "file_name"), LONG),
        (("images", "width"), 10**400),
        (("annotations", "image_id"), {}),
        (("annotations", "category_id"), []),
        (("annotations", "bbox"), [0, 0, 10**400, 1]),
        (("annotations", "bbox"), [0, 0, float("nan"), 1]),
    ],
)
def test_a_coco_document_with_one_wrong_value(
    tmp_path: Path, picture: Picture, place: tuple[str, str], value: object
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(picture())
    document = json.loads(DESCRIPTIONS["coco.json"])
    document[place[0]][0][place[1]] = value
    (tmp_path / "coco.json").write_text(json.dumps(document))
    (sample,) = read_layout(tmp_path / "coco.json")
    assert isinstance(sample, BadSample) or sample.label == ()


def test_a_long_name_in_a_table_is_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"file,class_index\n{LONG}.png,0\n")
    (sample,) = read_layout(tmp_path)
    assert isinstance(sample, BadSample) and sample.line == 2 and "is missing" in sample.reason


def test_arrays_whose_header_or_stream_is_damaged(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8))
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "plain.npy", np.zeros((4, 8, 8), np.uint8))
    plain = (tmp_path / "plain.npy").read_bytes()
    broken = [whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :] for place in range(30, 90)]
    for number, data in enumerate([*broken, plain.replace(b"8)", b"8\xff")]):
        path = tmp_path / f"{number}.{'npz' if number < len(broken) else 'npy'}"
        path.write_bytes(data)
        with contextlib.suppress(SampleError):  # a changed pixel is no damage that shows
            list(read_layout(path))
