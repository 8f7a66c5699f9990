"""Real malicious and damaged files, made here, against every loader."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.checkpoint.archive import check_archive
from boardwright.compiler.engine.checkpoint.onnx_file import load_onnx
from boardwright.compiler.engine.checkpoint.state_dict import load_safetensors, load_torch_state_dict
from boardwright.compiler.engine.checkpoint.torch_file import check_torch_file
from boardwright.compiler.engine.checkpoint.torchscript import check_code, load_torchscript
from boardwright.compiler.engine.checkpoint.ultralytics_file import load_ultralytics
from boardwright.compiler.engine.errors import (
    CheckpointRefused,
    CheckpointTooLarge,
    CheckpointUnreadable,
    EngineError,
)
from boardwright.compiler.engine.limits import Limits

TINY = Limits(max_unpacked_bytes=1 << 20)


class RunsOnLoad:
    """Unpickling this creates a file: the proof that code ran."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.proof}",)


class HidesBehindGetattr:
    """Reaches ``os.system`` through ``getattr``, so that no opcode names it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"getattr(__import__('os'), 'sys' + 'tem')('touch {self.proof}')",)


@pytest.mark.parametrize("attack", [RunsOnLoad, HidesBehindGetattr])
@pytest.mark.parametrize("load", [load_torch_state_dict, load_ultralytics])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_never_runs_and_is_named(tmp_path, attack, load, zipped):
    proof = tmp_path / "ran"
    path = tmp_path / "model.pt"
    torch.save(
        {"weight": torch.zeros(2), "extra": attack(proof)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(CheckpointRefused) as caught:
        load(path)
    assert not proof.exists()
    assert ("posix.system" if attack is RunsOnLoad else "builtins.eval") in caught.value.message
    assert "torch.save(model.state_dict(), path)" in caught.value.message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_refused_whatever_its_protocol(tmp_path, protocol):
    proof = tmp_path / "ran"
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(RunsOnLoad(proof), protocol=protocol))
    with pytest.raises(CheckpointRefused, match=r"posix\.system"):
        load_torch_state_dict(path)
    assert not proof.exists()


def test_a_name_put_together_through_the_memo_is_still_resolved(tmp_path):
    # STACK_GLOBAL takes its two strings from the memo: a scan for the text "posix system" finds nothing.
    stream = b"\x80\x04\x8c\x06system\x94\x8c\x05posix\x94h\x01h\x00\x93\x8c\x04true\x85R."
    path = _torch_zip(tmp_path / "model.pt", stream)
    with pytest.raises(CheckpointRefused, match=r"posix\.system"):
        check_torch_file(path)


def test_a_whole_pickled_module_is_told_how_to_become_a_state_dict(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointRefused, match="not a state dict") as caught:
        load_torch_state_dict(path)
    assert "torch.nn.modules.linear.Linear" in caught.value.message


def test_harmless_data_beside_the_tensors_is_left_out_with_a_note(tmp_path):
    path = tmp_path / "model.pt"
    beside = {
        "best": np.float64(0.5),
        "epoch": 3,
        "args": Namespace(lr=0.1, out=Path("runs")),
        "a": np.ones(2),
    }
    torch.save({"model": {"w": torch.ones(3)}, **beside}, path)
    tensors, notes = load_torch_state_dict(path)
    assert tensors["w"].tolist() == [1.0, 1.0, 1.0]
    assert any("'model'" in note for note in notes)


def test_a_memo_index_that_would_exhaust_memory_is_refused(tmp_path):
    path = _torch_zip(tmp_path / "model.pt", b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(CheckpointUnreadable, match="exhaust memory"):
        check_torch_file(path)


def test_a_byte_string_longer_than_the_file_is_refused(tmp_path):
    path = _torch_zip(tmp_path / "model.pt", b"\x80\x04\x8e" + struct.pack("<Q", 10 << 30) + b"x.")
    with pytest.raises(CheckpointUnreadable, match="truncated"):
        check_torch_file(path)


def test_a_tensor_that_claims_ten_gigabytes_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(1).expand(10 << 28, 1)}, path)
    with pytest.raises(CheckpointTooLarge, match="claims 10,737,418,240 bytes"):
        load_torch_state_dict(path)


def test_tensor_data_cut_from_the_archive_is_noticed(tmp_path):
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"w": torch.zeros(64)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as result:
        for info in source.infolist():
            data = source.read(info)
            result.writestr(info.filename, data[:4] if info.filename.endswith("data/0") else data)
    with pytest.raises(CheckpointUnreadable, match="claims 256 bytes"):
        load_torch_state_dict(cut)


@pytest.mark.parametrize("load", [load_torch_state_dict, load_torchscript, load_ultralytics])
def test_a_zip_bomb_is_refused_by_its_directory(tmp_path, load):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(8 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointRefused, match=r"^model.pt holds archive/data.pkl, which .* zip bomb"):
        load(path)


def test_overlapping_members_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/a", os.urandom(5000))
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    record, end = data[central : data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06") :])
    end[8:12] = struct.pack("<HH", 4, 4)
    end[12:16] = struct.pack("<I", 4 * len(record))
    path.write_bytes(data[:central] + 4 * record + bytes(end))
    with pytest.raises(CheckpointRefused, match="overlap"):
        check_archive(path, Limits())


def test_names_that_leave_the_archive_and_sizes_beyond_the_limits_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/../../etc/passwd", b"x")
    with pytest.raises(CheckpointRefused, match="outside of the archive"):
        check_archive(path, Limits())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", os.urandom(2 << 20))
    with pytest.raises(CheckpointTooLarge, match="would unpack to"):
        check_archive(path, TINY)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_torch_file_is_told_at_every_length(tmp_path, zipped):
    whole = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(8, 8).state_dict(), whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(data) - 1, max(1, len(data) // 40)):
        path.write_bytes(data[:length])
        with pytest.raises(EngineError):
            load_torch_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_flipped_bit_of_a_torch_file_gives_tensors_or_a_clear_error(tmp_path, zipped):
    whole = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(4, 4).state_dict(), whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    path = tmp_path / "flipped.pt"
    reasons = []
    for place in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            load_torch_state_dict(path)
        except EngineError as error:
            reasons.append(error.reason)
    assert len(reasons) > 10
    assert all(reason.startswith("CHECKPOINT_") for reason in reasons)


def test_a_member_that_does_not_unpack_is_told(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(range(256)) * 4)
    data = bytearray(path.read_bytes())
    start = data.index(b"archive/data.pkl") + len(b"archive/data.pkl")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(CheckpointUnreadable, match="truncated or damaged"):
        load_torch_state_dict(path)


def test_safetensors_headers_are_held_against_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 10 << 30) + b"{}")
    with pytest.raises(CheckpointUnreadable, match="claims a header"):
        load_safetensors(path)
    path.write_bytes(_safetensors({"w": {"dtype": "F32", "shape": [1 << 32], "data_offsets": [0, 1 << 34]}}))
    with pytest.raises(CheckpointTooLarge, match="claims 17,179"):
        load_safetensors(path)
    path.write_bytes(_safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}))
    with pytest.raises(CheckpointUnreadable, match="truncated"):
        load_safetensors(path)
    path.write_bytes(_safetensors({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)))
    with pytest.raises(CheckpointUnreadable, match="not a valid safetensors file"):
        load_safetensors(path)


def test_torchscript_that_touches_files_is_refused_before_loading(tmp_path):
    proof = tmp_path / "ran"

    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path = tmp_path / "model.ts"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    assert load_torchscript(path)(torch.tensor([-1.0])).item() == 0.0
    rewritten = tmp_path / "evil.ts"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w") as result:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith(".py"):
                data += f'\n  x = torch.from_file("{proof}", True, 4)\n'.encode()
            result.writestr(info.filename, data)
    with pytest.raises(CheckpointRefused, match="from_file"):
        load_torchscript(rewritten)
    assert not proof.exists()
    with pytest.raises(CheckpointRefused, match=r"evil\.run"):
        check_code("x = ops.evil.run(y)", "code/net.py")
    for harmless in (
        "a : __torch__.torchvision.ops.misc.Conv2dNormActivation",
        "import __torch__.torchvision.ops.stochastic_depth",
        "return (self.loader).load(x)",
        "y = ops.torchvision.nms(a, b, 0.5)",
        'ops.prim.RaiseException("torch says \\"torch.save(x)\\": it\'s off", "builtins.ValueError")',
        'y = (getattr(self, "0")).forward(x)  # torch',
    ):
        check_code(harmless, "code/net.py")


@pytest.mark.parametrize(
    "spelling",
    [
        'torch . from_file("{proof}", True, 4)',
        '(torch.from_file)("{proof}", True, 4)',
        'torch.\\\n    from_file("{proof}", True, 4)',
        '(torch. # all of\n    from_file)("{proof}", True, 4)',
        'ops . aten . from_file("{proof}", True, 4)',
        '(torch).from_file("{proof}", True, 4)',
        't = torch\n    y = t.from_file("{proof}", True, 4)',
        'f = ops.aten.from_file\n    y = f("{proof}", True, 4)',
        'a = ops.aten\n    y = a.from_file("{proof}", True, 4)',
        'getattr(torch, "from_" "file")("{proof}", True, 4)',
        '"""a" + """ + torch.from_file("{proof}", True, 4) + ""',
        "'\"' + torch.from_file(\"{proof}\", True, 4) + '\"'",
    ],
)
def test_no_spelling_of_a_file_operator_runs_on_load(tmp_path, spelling):
    path, evil, proof = tmp_path / "model.ts", tmp_path / "evil.ts", tmp_path / "ran"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    on_load = "  def __setstate__(self, state: bool) -> NoneType:\n    y = "
    on_load += spelling.format(proof=proof) + "\n    return None\n"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as result:
        for info in source.infolist():
            data = source.read(info)
            result.writestr(info.filename, data + on_load.encode() if info.filename.endswith(".py") else data)
    with pytest.raises(CheckpointRefused, match=r"from_file|uses (torch|ops|\"|')"):
        load_torchscript(evil)
    assert not proof.exists()


def test_a_state_dict_is_no_torchscript_and_the_other_way_round(tmp_path):
    state, script = tmp_path / "state.pt", tmp_path / "script.pt"
    torch.save({"w": torch.zeros(1)}, state)
    torch.jit.script(torch.nn.ReLU()).save(str(script))
    with pytest.raises(CheckpointUnreadable, match="torch-state-dict"):
        load_torchscript(state)
    with pytest.raises(CheckpointRefused, match="torchscript"):
        load_torch_state_dict(script)


def _small_onnx() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], name="conv")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_onnx_without_outputs_is_told(tmp_path):
    model = _small_onnx()
    del model.graph.output[:]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointUnreadable, match="no graph with nodes and outputs"):
        load_onnx(tmp_path / "model.onnx")


def test_a_truncated_onnx_is_told_at_every_length(tmp_path):
    data = _small_onnx().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(EngineError) as caught:
            load_onnx(path)
        assert caught.value.reason.startswith("CHECKPOINT_")


def test_every_flipped_bit_of_an_onnx_file_gives_a_model_or_a_clear_error(tmp_path):
    data = _small_onnx().SerializeToString()
    path = tmp_path / "model.onnx"
    draw = random.Random(0)
    reasons = []
    for _ in range(300):
        flipped = bytearray(data)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            load_onnx(path)
        except EngineError as error:
            reasons.append(error.reason)
    assert len(reasons) > 30
    assert all(reason.startswith("CHECKPOINT_") for reason in reasons)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "weights.bin"])
def test_external_data_is_refused_wherever_it_lies(tmp_path, location):
    model = _small_onnx()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointRefused) as caught:
        load_onnx(path)
    assert caught.value.reason == "CHECKPOINT_EXTERNAL_DATA"
    assert location in caught.value.message
    assert "save_as_external_data=False" in caught.value.message


def test_an_onnx_tensor_that_claims_ten_gigabytes_is_refused(tmp_path):
    model = _small_onnx()
    model.graph.initializer[0].dims[:] = [10 << 28]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointTooLarge, match="claims 10,737,418,240 bytes"):
        load_onnx(path)
    model.graph.initializer[0].dims[:] = [4, 3, 3, 4]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointUnreadable, match="claims 576 bytes and holds 432"):
        load_onnx(path)


def test_a_file_beyond_the_size_limit_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(10 << 30)  # sparse: claims 10 GB, takes no disk
    with pytest.raises(CheckpointTooLarge, match="10,737,418,240"):
        load_onnx(path)
    with pytest.raises(CheckpointTooLarge, match="10,737,418,240"):
        load_torch_state_dict(path)


def test_nan_weights_are_noted(tmp_path):
    model = _small_onnx()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert load_onnx(path).non_finite == ("weight",)


def test_operators_of_unknown_libraries_are_named(tmp_path):
    model = _small_onnx()
    model.graph.node[0].domain = "my.company"
    model.opset_import.append(helper.make_opsetid("my.company", 1))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointUnreadable, match=r"my\.company\.Conv"):
        load_onnx(path)


def _torch_zip(path: Path, stream: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream)
        archive.writestr("archive/version", b"3\n")
    return path


def _safetensors(header: dict[str, object], data: bytes = b"") -> bytes:
    encoded = json.dumps(header).encode()
    buffer = io.BytesIO()
    buffer.write(struct.pack("<Q", len(encoded)) + encoded + data)
    return buffer.getvalue()
