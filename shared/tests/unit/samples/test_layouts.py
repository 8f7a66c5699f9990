import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from boardwright.samples import BadSample, Box, FoundSample, SampleError, decode_image, read_layout

Place = Callable[..., Path]
Picture = Callable[..., bytes]


def good(source: object) -> dict[str, object]:
    return {sample.name: sample.label for sample in source if isinstance(sample, FoundSample)}  # type: ignore[attr-defined]


def bad(source: object) -> list[str]:
    return [str(sample) for sample in source if isinstance(sample, BadSample)]  # type: ignore[attr-defined]


def test_names_that_are_no_text_are_told(place: Place, picture: Picture) -> None:
    """Such as Latin-1 gave them, on file systems that take any bytes."""
    root = place({"1.png": picture(), "caf\udce9.png": picture()})
    assert list(good(read_layout(root))) == ["1.png"]
    assert bad(read_layout(root)) == ["caf\\udce9.png: the name is not text in UTF-8: rename the file"]
    document = {"images": [{"id": 1, "file_name": "\ud800.png"}], "annotations": [], "categories": []}
    assert "rename" in bad(read_layout(place({"odd/coco.json": json.dumps(document)}) / "odd/coco.json"))[0]
    with pytest.raises(SampleError, match=r"the name caf\\udce9 is not text"):
        read_layout(place({"classes/caf\udce9/1.png": picture()}) / "classes")


class TestFolder:
    def test_one_folder_per_class(self, place: Place, picture: Picture) -> None:
        image = picture()
        root = place(
            {"dog/1.png": image, "cat/deep/2.JPG": image, "cat/.hidden.png": image, "cat/a.txt": "x"}
        )
        source = read_layout(root)
        assert (source.layout, source.task, source.classes) == ("folder", "classification", ("cat", "dog"))
        assert good(source) == {"cat/deep/2.JPG": 0, "dog/1.png": 1} == good(source)

    def test_images_alone_are_unlabelled(self, place: Place, picture: Picture) -> None:
        source = read_layout(place({"2.png": picture(), "1.png": picture(), "notes.md": "x"}))
        assert source.task == "" and source.classes == ()
        assert good(source) == {"1.png": None, "2.png": None} and list(good(source)) == ["1.png", "2.png"]

    def test_splits_above_the_classes(self, place: Place, picture: Picture) -> None:
        root = place({"train/a/1.png": picture(), "train/b/2.png": picture(), "val/a/3.png": picture()})
        assert read_layout(root).splits == ("train", "val")
        assert good(read_layout(root, split="val")) == {"val/a/3.png": 0}
        with pytest.raises(SampleError, match="no split 'test' here; splits: train, val") as caught:
            read_layout(root, split="test")
        assert caught.value.reason == "SPLIT_UNKNOWN"

    def test_a_class_may_be_called_test(self, place: Place, picture: Picture) -> None:
        source = read_layout(place({"test/1.png": picture(), "blank/2.png": picture()}))
        assert source.classes == ("blank", "test") and source.splits == ()

    def test_an_image_beside_the_classes_is_named(self, place: Place, picture: Picture) -> None:
        source = read_layout(place({"a/1.png": picture(), "stray.png": picture()}))
        assert bad(source) == ["stray.png: the image lies beside the class folders: move it into one of them"]

    def test_a_link_out_of_the_folder_is_named_and_not_followed(
        self, place: Place, picture: Picture, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        outside = tmp_path_factory.mktemp("outside")
        (outside / "secret.png").write_bytes(picture())
        root = place({"cat/1.png": picture(), "dog/2.png": picture()})
        (root / "cat" / "link.png").symlink_to(outside / "secret.png")
        (root / "cat" / "own.png").symlink_to(root / "dog" / "2.png")
        (root / "eel").symlink_to(outside)
        (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
        reason = "the link leads out of the dataset's folder: put the image itself there"
        assert bad(read_layout(root)) == [f"cat/link.png: {reason}", f"eel/secret.png: {reason}"]
        assert good(read_layout(root)) == {
            "cat/1.png": 0,
            "cat/loop.png": 0,  # cannot be read, which is found when it is
            "cat/own.png": 0,
            "dog/2.png": 1,
        }

    def test_nor_is_one_among_unlabelled_images(
        self, place: Place, picture: Picture, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        secret = tmp_path_factory.mktemp("outside") / "secret"
        secret.write_text("root:x:0:0")
        root = place({"1.png": picture()})
        (root / "2.png").symlink_to(secret)
        assert [name.partition(":")[0] for name in bad(read_layout(root))] == ["2.png"]
        assert good(read_layout(root)) == {"1.png": None}

    def test_the_folder_itself_may_be_a_link(self, place: Place, picture: Picture) -> None:
        root = place({"data/cat/1.png": picture()})
        (root / "link").symlink_to(root / "data")
        assert good(read_layout(root / "link")) == {"cat/1.png": 0}


class TestTable:
    def test_class_indices_and_splits(self, place: Place, picture: Picture) -> None:
        rows = "file,class_index,split\na.png,2,calibration\nb.png,,evaluation\n"
        root = place({"labels.csv": rows, "images/a.png": picture(), "images/b.png": picture()})
        source = read_layout(root)
        assert (source.layout, source.classes) == ("csv", ("0", "1", "2"))
        assert source.splits == ("calibration", "evaluation")
        assert good(source) == {"images/a.png": 2, "images/b.png": None}
        assert good(read_layout(root / "labels.csv", split="calibration")) == {"images/a.png": 2}

    def test_class_names(self, place: Place, picture: Picture) -> None:
        root = place(
            {
                "any.csv": "\ufeffFilename,Label\na.png,zebra\nb.png,ant\n",
                "a.png": picture(),
                "b.png": picture(),
            }
        )
        source = read_layout(root)
        assert source.classes == ("ant", "zebra") and good(source) == {"a.png": 1, "b.png": 0}

    def test_classes_txt_names_the_indices(self, place: Place, picture: Picture) -> None:
        files = {"labels.csv": "file,class_id\na.png,1\nb.png,2\n", "classes.txt": "cat\ndog\n"}
        source = read_layout(place({**files, "a.png": picture(), "b.png": picture()}))
        assert source.classes == ("cat", "dog") and good(source) == {"a.png": 1}
        assert "labels.csv:3: class_id '2' is no class index" in bad(source)[0]

    def test_each_mistake_is_named_with_its_line(self, place: Place, picture: Picture) -> None:
        rows = "file,class_index\ngone.png,1\n../out.png,1\n,2\na.png,x\na.png,1\na.png,1\n"
        root = place({"labels.csv": rows, "a.png": picture()})
        table = root / "labels.csv"
        source = read_layout(root)
        assert bad(source) == [
            f"{table}:2: the image gone.png is missing",
            f"{table}:3: ../out.png leads out of the dataset's folder",
            f"{table}:4: column 'file' is empty",
            f"{table}:5: class_index 'x' is no class index (0, 1, 2…) that is known",
            f"{table}:7: a.png was named before, in line 6",
        ]
        assert good(source) == {"a.png": 1}

    def test_a_table_without_files_is_refused(self, place: Place) -> None:
        root = place({"labels.csv": "a,b\n1,2\n"})
        with pytest.raises(SampleError, match=r"labels\.csv:1: no column for the image's file"):
            read_layout(root / "labels.csv")
        (root / "labels.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SampleError, match="not a CSV in UTF-8"):
            read_layout(root / "labels.csv")


class TestYolo:
    def files(self, picture: Picture) -> dict[str, str | bytes]:
        return {
            "images/train/a.png": picture(1),
            "images/train/b.png": picture(2),
            "images/val/c.png": picture(3),
            "labels/train/a.txt": "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.1 0.1\n",
            "labels/val/c.txt": "0 0.5 0.5 1 1",
        }

    def test_without_a_description(self, place: Place, picture: Picture) -> None:
        root = place(self.files(picture))
        source = read_layout(root)
        assert (source.layout, source.task, source.classes) == ("yolo", "detection", ("0", "1"))
        assert source.splits == ("train", "val")
        assert good(read_layout(root, split="train")) == {
            "images/train/a.png": (Box(1, 0.5, 0.5, 0.2, 0.4), Box(0, 0.1, 0.1, 0.1, 0.1)),
            "images/train/b.png": (),
        }
        assert good(read_layout(root / "images/val")) == {"c.png": (Box(0, 0.5, 0.5, 1, 1),)}

    @pytest.mark.parametrize("names", ["[cat, dog]", "{0: cat, 1: dog}"])
    def test_with_a_description(self, place: Place, picture: Picture, names: str) -> None:
        description = f"path: ../anywhere\ntrain: images/train\nval: ../images/val\nnames: {names}\n"
        root = place({**self.files(picture), "data.yaml": description})
        source = read_layout(root)
        assert source.classes == ("cat", "dog") and source.splits == ("train", "val")
        assert set(good(read_layout(root / "data.yaml", split="val"))) == {"images/val/c.png"}

    def test_a_list_of_files(self, place: Place, picture: Picture) -> None:
        files = {**self.files(picture), "train.txt": "images/train/b.png\nimages/train/gone.png\n"}
        root = place({**files, "data.yaml": "train: train.txt\nval: images/val\nnames: [a, b]\n"})
        source = read_layout(root, split="train")
        assert good(source) == {"images/train/b.png": ()}
        assert bad(source) == [f"{root}/images/train/gone.png: the image is missing"]

    def test_images_without_any_label_are_unlabelled(self, place: Place, picture: Picture) -> None:
        root = place({"images/a.png": picture(), "labels/readme.md": ""})
        assert good(read_layout(root)) == {"images/a.png": None}

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("0 0.5 0.5 0.2", "4 values instead of five"),
            ("0 0.1 0.1 0.2 0.2 0.3 0.3", "7 values are a polygon"),
            ("x 0.5 0.5 0.2 0.2", "not a number"),
            ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is no whole number"),
            ("7 0.5 0.5 0.2 0.2", r"class 7 is beyond the 2 known classes \(0 to 1\)"),
            ("-1 0.5 0.5 0.2 0.2", "class -1 is negative"),
            ("0 320 240 50 50", "outside of 0 to 1 .*not pixels"),
            ("0 nan 0.5 0.2 0.2", "not a finite number"),
            ("0 0.5 0.5 0 0.2", "the box has no area"),
        ],
    )
    def test_each_mistake_is_named_with_its_line(
        self, place: Place, picture: Picture, line: str, reason: str
    ) -> None:
        files = {**self.files(picture), "labels/train/b.txt": f"0 0.5 0.5 0.1 0.1\n{line}\n"}
        root = place({**files, "data.yaml": "train: images/train\nnames: [a, b]\n"})
        found = [sample for sample in read_layout(root) if isinstance(sample, BadSample)]
        assert [(sample.name, sample.line) for sample in found] == [("images/train/b.png", 2)]
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(found[0].reason)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("train: [", "not YAML"),
            ("- 1", "expected keys"),
            ("names: [a]", "none of train, val and test"),
            ("train: nowhere", "train: nowhere does not exist"),
            ("train: images\nnames: {0: a, 2: b}", "keys must be 0 to 1"),
            ("train: images\nnames: {a: b}", "a key is no number"),
            ("train: images\nnames: 5", "must be a list or a mapping"),
        ],
    )
    def test_broken_descriptions(self, place: Place, picture: Picture, text: str, message: str) -> None:
        root = place({"images/a.png": picture(), "data.yaml": text})
        with pytest.raises(SampleError, match=message) as caught:
            read_layout(root)
        assert caught.value.reason == "LAYOUT_INVALID"


class TestCoco:
    def document(self) -> dict[str, list[dict[str, object]]]:
        return {
            "images": [
                {"id": 7, "file_name": "a.png", "width": 200, "height": 100},
                {"id": 8, "file_name": "b.png", "width": 200, "height": 100},
            ],
            "categories": [{"id": 90, "name": "tooth"}, {"id": 3, "name": "car"}],
            "annotations": [
                {"image_id": 7, "category_id": 90, "bbox": [50, 20, 100, 40], "iscrowd": 1},
                {"image_id": 7, "category_id": 3, "bbox": [150, 50, 100, 100]},
            ],
        }

    def test_boxes_become_relative_and_are_cut_to_the_image(self, place: Place, picture: Picture) -> None:
        root = place(
            {
                "annotations/instances_val2017.json": json.dumps(self.document()),
                "images/val2017/a.png": picture(),
                "images/val2017/b.png": picture(),
            }
        )
        source = read_layout(root, "coco")
        assert source.classes == ("car", "tooth") and source.splits == ("val2017",)
        assert good(source) == {
            "images/val2017/a.png": (Box(1, 0.5, 0.4, 0.5, 0.4, crowd=True), Box(0, 0.875, 0.75, 0.25, 0.5)),
            "images/val2017/b.png": (),
        }
        assert good(read_layout(root / "annotations/instances_val2017.json")) == good(source)

    def test_mistakes_are_named(self, place: Place, picture: Picture) -> None:
        document = self.document()
        document["annotations"][1]["category_id"] = 5
        document["images"].append({"id": 9, "file_name": "../x.png"})
        document["images"].append({"id": 9})
        root = place({"a.json": json.dumps(document), "a.png": picture()})
        assert [line.partition(": ")[2] for line in bad(read_layout(root / "a.json"))] == [
            "annotations[1]: category_id 5 is not among the categories",
            "the image is missing",
            "images[2]: ../x.png leads out of the dataset's folder",
            "images[3] has no file_name",
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"images": [\n,', r"a\.json:2: not JSON"),
            ("[]", "expected an object"),
            ('{"images": 5}', "'images' must be a list"),
            ('{"images": [], "categories": [{"id": "x"}]}', r"categories\[0\] needs an id"),
        ],
    )
    def test_broken_documents(self, place: Place, text: str, message: str) -> None:
        with pytest.raises(SampleError, match=message):
            read_layout(place({"a.json": text}) / "a.json")


class TestArrays:
    def test_images_and_labels(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 17, (3, 8, 8)).astype(float)
        np.savez(tmp_path / "digits.npz", images=images, labels=np.array([4, 0, 1]))
        source = read_layout(tmp_path)
        assert (source.layout, source.task, len(source.classes)) == ("numpy", "classification", 5)
        found = list(source)
        assert good(source) == {"00000.pgm": 4, "00001.pgm": 0, "00002.pgm": 1}
        assert isinstance(found[0], FoundSample)
        np.testing.assert_array_equal(np.asarray(decode_image(found[0].read())), images[0])

    def test_colour_images_alone(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
        np.save(tmp_path / "images.npy", images)
        source = read_layout(tmp_path)
        second = list(source)[1]
        assert isinstance(second, FoundSample) and second.label is None and second.name == "00001.ppm"
        decoded = decode_image(second.read())
        assert decoded.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(decoded), images[1])

    def test_bad_values_are_named(self, tmp_path: Path) -> None:
        images = np.zeros((3, 2, 2))
        images[0, 0, 0], images[1, 0, 0] = 0.5, 300
        np.savez(tmp_path / "x.npz", x=images, y=np.array([0, 1, -1]))
        assert [line.partition(": ")[2] for line in bad(read_layout(tmp_path))] == [
            "images[0]: values between whole numbers; scale the images to 0 to 255 and round them",
            "images[1]: a value is outside of 0 to 255",
            "labels[2] is -1, outside of 0 to 1",
        ]

    def test_pickled_arrays_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", images=np.array([object()], dtype=object), allow_pickle=True)
        with pytest.raises(SampleError, match="save plain arrays, without Python objects"):
            read_layout(tmp_path)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"other": np.zeros(3)}, "no array called images"),
            ({"images": np.zeros((2, 3))}, r"must have shape \(N, H, W\)"),
            ({"images": np.zeros((2, 2, 2), complex)}, "must hold numbers 0 to 255"),
            ({"images": np.zeros((2, 2, 2)), "labels": np.zeros(2)}, "labels must be 2 whole numbers"),
        ],
    )
    def test_arrays_of_another_shape(
        self, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
    ) -> None:
        buffer = BytesIO()
        np.savez(buffer, **arrays)
        (tmp_path / "x.npz").write_bytes(buffer.getvalue())
        with pytest.raises(SampleError, match=message):
            read_layout(tmp_path)


def test_what_is_no_dataset_says_what_was_looked_for(place: Place) -> None:
    root = place({"notes.txt": "nothing"})
    for path, reason in [
        (root, "LAYOUT_UNKNOWN"),
        (root / "notes.txt", "LAYOUT_UNKNOWN"),
        (root / "x", "DATASET_NOT_FOUND"),
    ]:
        with pytest.raises(SampleError) as caught:
            read_layout(path)
        assert caught.value.reason == reason
    with pytest.raises(SampleError, match="use auto or one of folder, csv, yolo, coco, numpy"):
        read_layout(root, "voc")
