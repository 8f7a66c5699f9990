"""A bad image is named before anything is sent, and leaves no open version behind."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.client.datasets import Datasets
from boardwright.rpc.errors import FailedPrecondition


class Server:
    """Stands for the connection and the content; notes what reaches it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.calibration = self

    def CreateDataset(self, request: Any) -> None:
        self.calls.append("CreateDataset")

    def CreateDatasetVersion(self, request: Any) -> pb.DatasetVersion:
        self.calls.append("CreateDatasetVersion")
        return pb.DatasetVersion(name=f"{request.parent}/versions/1")

    def AddSamples(self, request: Any) -> None:
        self.calls.append(f"AddSamples {len(request.samples)}")

    def stream(self, method: str, request: Any) -> list[pb.SealProgress]:
        self.calls.append(f"{method} {[(bad.sample, bad.reason) for bad in request.left_out]}")
        return [pb.SealProgress(version=pb.DatasetVersion(name=request.name))]

    def upload(self, path: Path) -> None:
        self.calls.append("upload")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def datasets(server: Server) -> Datasets:
    return Datasets(server, server, "default")  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_a_corrupt_image_is_named_before_anything_is_sent(
    datasets: Datasets, server: Server, folder: Path
) -> None:
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FailedPrecondition) as caught:
        datasets.add("faces", folder, seal=False)
    assert server.calls == []
    assert caught.value.reason == "SAMPLES_INVALID"
    assert caught.value.message.startswith("1 of 3 samples cannot be used:")
    assert "1.png: " in caught.value.message and "--skip-invalid" in caught.value.message


def test_one_sample_is_one_sample(datasets: Datasets, folder: Path) -> None:
    for number in (1, 2):
        (folder / f"{number}.png").unlink()
    (folder / "0.png").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match="1 of 1 sample cannot be used"):
        datasets.add("faces", folder, seal=False)


def test_good_images_are_sent(datasets: Datasets, server: Server, folder: Path) -> None:
    told: list[tuple[int, int, str]] = []
    datasets.add("faces", folder, seal=False, progress=lambda *step: told.append(step))
    assert server.calls == ["CreateDataset", "CreateDatasetVersion", "upload", "AddSamples 3"]
    assert (3, 3, "checking samples") in told


def test_sealing_leaves_bad_ones_out_when_told_to(datasets: Datasets, server: Server, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no image")
    datasets.add("faces", folder, skip_invalid=True, seal=False)
    assert "AddSamples 3" in server.calls


def test_a_version_lists_the_labels_that_were_left_out_before_sealing(
    datasets: Datasets, server: Server, folder: Path
) -> None:
    (folder / "labels.csv").write_text("file,class_index\n0.png,0\n1.png,one\n9.png,1\n")
    datasets.add("faces", folder, skip_invalid=True)
    bad = (
        "('1.png', \"labels.csv:3: class_index 'one' is no class index (0, 1, 2…) that is known\"), "
        "('9.png', 'labels.csv:4: the image 9.png is missing')"
    )
    assert server.calls[-2:] == ["AddSamples 1", f"SealDatasetVersion [{bad}]"]


def test_where_all_are_bad_one_of_them_is_named(datasets: Datasets, server: Server, folder: Path) -> None:
    (folder / "labels.csv").write_text("file,class_index\n8.png,0\n9.png,1\n")
    with pytest.raises(
        FailedPrecondition, match=r"none of 2 samples.*labels.csv:2: the image 8.png is missing"
    ):
        datasets.add("faces", folder, skip_invalid=True)
    assert server.calls == []
