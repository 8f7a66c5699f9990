import json
import zipfile
from pathlib import Path

import pytest

from boardwright.model import ModelError, ModelFormat, detect_format

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    state = tmp_path / "a.pt"
    with zipfile.ZipFile(state, "w") as writer:
        writer.writestr("archive/data.pkl", b"\x80\x02ccollections\nOrderedDict\n.")
    yolo = tmp_path / "b.pt"
    with zipfile.ZipFile(yolo, "w") as writer:
        writer.writestr("best/data.pkl", b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n.")
    script = tmp_path / "c.pt"
    with zipfile.ZipFile(script, "w") as writer:
        writer.writestr("m/data.pkl", b"\x80\x02.")
        writer.writestr("m/code/__torch__.py", b"")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    tensors = tmp_path / "d.bin"
    tensors.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    onnx = tmp_path / "e"
    onnx.write_bytes(b"\x08\x0a\x12\x07pytorch")
    assert detect_format(state) is ModelFormat.TORCH_STATE_DICT
    assert detect_format(yolo) is ModelFormat.ULTRALYTICS
    assert detect_format(script) is ModelFormat.TORCHSCRIPT
    assert detect_format(tensors) is ModelFormat.SAFETENSORS
    assert detect_format(onnx) is ModelFormat.ONNX
    bare = tmp_path / "f.pth"
    bare.write_bytes(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.")
    assert detect_format(bare) is ModelFormat.TORCH_STATE_DICT


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data (real models and images) is absent")
def test_formats_of_real_files() -> None:
    assert detect_format(DATA / "models/yolov5n.pt") is ModelFormat.ULTRALYTICS
    assert detect_format(DATA / "models/yolov5n.onnx") is ModelFormat.ONNX


def test_unknown_and_broken_files_say_what_is_known(tmp_path: Path) -> None:
    for content, message in [
        (b"GIF89a", "none of the known formats"),
        (b"PK\x03\x04broken", "broken zip file"),
    ]:
        path = tmp_path / "x.pt"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message) as caught:
            detect_format(path)
        assert caught.value.reason == "MODEL_FORMAT_UNKNOWN"


def test_what_other_frameworks_wrote_is_named_with_its_way_to_onnx(tmp_path: Path) -> None:
    program, keras = tmp_path / "a.pt2", tmp_path / "b.keras"
    with zipfile.ZipFile(program, "w") as writer:
        writer.writestr("net/archive_format", "pt2")
        writer.writestr("net/models/model.json", "{}")
    with zipfile.ZipFile(keras, "w") as writer:
        writer.writestr("config.json", "{}")
        writer.writestr("model.weights.h5", b"")
    for path, content, message in [
        (program, None, r"torch\.export.*torch\.onnx\.export"),
        (keras, None, r"Keras.*format='onnx'"),
        (tmp_path / "c.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
        (tmp_path / "d.tflite", b"\x1c\0\0\0TFL3", "TFLite"),
        (tmp_path / "saved_model.pb", b"\x0a\x10graph", "tf2onnx"),
    ]:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=message) as caught:
            detect_format(path)
        assert caught.value.reason == "MODEL_FORMAT_UNKNOWN"
