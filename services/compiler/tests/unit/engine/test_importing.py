"""Checkpoints of every format become ONNX with specs, and every misfit is told."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from boardwright.compiler.engine.errors import EngineError, NetworkFailed, SpecMismatch
from boardwright.compiler.engine.graph.inspect import graph_inputs
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.model import InputSpec, ModelFormat, OutputSpec

MODULE = textwrap.dedent(
    """
    import torch

    def build_network(classes=4):
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 3, stride=2), torch.nn.BatchNorm2d(6), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(6 * 9, classes),
        )
    """
)
SPEC = InputSpec(height=8, width=8, channels=1, color="GRAY")


@pytest.fixture
def network(tmp_path):
    (tmp_path / "net.py").write_text(MODULE)
    scope: dict[str, object] = {}
    exec(MODULE, scope)
    torch.manual_seed(0)
    return scope["build_network"]().eval()


def declared(tmp_path, **changes):
    return replace(Declared(input_spec=SPEC, module=tmp_path / "net.py"), **changes)


def answers_like(model, network):
    sample = torch.rand(1, 1, 8, 8)
    ours = open_session(model).run(None, {"input": sample.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(ours, network(sample).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["torch-state-dict", "safetensors", "torchscript", "onnx"])
def test_every_format_gives_the_same_answers_as_the_network(tmp_path, network, kind):
    path = tmp_path / "checkpoint"
    if kind == "torch-state-dict":
        torch.save({"model": {f"module.{k}": v for k, v in network.state_dict().items()}, "epoch": 3}, path)
    elif kind == "safetensors":
        save_file(network.state_dict(), path)
    elif kind == "torchscript":
        torch.jit.trace(network, torch.rand(1, 1, 8, 8)).save(str(path))
    else:
        torch.onnx.export(
            network, (torch.rand(1, 1, 8, 8),), str(path), dynamo=False, input_names=["input"],
            dynamic_axes={"input": {0: "batch"}}, opset_version=17,
        )  # fmt: skip
    imported = import_checkpoint(path, declared(tmp_path))
    assert imported.format == ModelFormat(kind)
    answers_like(imported.model, network)
    assert imported.input_spec == SPEC
    assert imported.output_spec.task == "classification"
    assert imported.output_spec.head == "logits"
    assert imported.output_spec.num_classes == 4
    if kind == "onnx":
        assert "Axis 0 of the input 'input' was batch; it is fixed to 1." in imported.notes


def test_importing_twice_gives_the_same_bytes(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    first = import_checkpoint(path, declared(tmp_path)).model
    second = import_checkpoint(path, declared(tmp_path)).model
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert str(tmp_path) not in str(first)


def test_builder_arguments_reach_the_users_function(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    with pytest.raises(NetworkFailed, match=r"4\.weight: \[4, 54\] in the checkpoint, \[9, 54\] "):
        import_checkpoint(path, declared(tmp_path, arguments={"classes": 9}))


@pytest.mark.parametrize(
    ("module", "builder", "words"),
    [
        ("import nothing_like_that", "build_network", "importing it failed at line 1"),
        ("def build_netwrok(): pass", "build_network", "Did you mean 'build_netwrok'"),
        ("def build_network(): return 3", "build_network", "returned a int"),
        ("def build_network():\n    raise ValueError('no')", "build_network", "failed at line 2: ValueError"),
        ("import torch\ndef build_network(): return torch.nn.Linear(2, 2)", "build_network", "do not fit"),
    ],
)
def test_what_is_wrong_with_the_users_module_is_told(tmp_path, network, module, builder, words):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    (tmp_path / "net.py").write_text(module)
    with pytest.raises(NetworkFailed) as caught:
        import_checkpoint(path, declared(tmp_path, builder=builder))
    assert words in caught.value.message


def test_weights_without_their_network_or_spec_are_told_what_is_missing(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    with pytest.raises(NetworkFailed, match="the Python file that builds the network"):
        import_checkpoint(path, declared(tmp_path, module=None))
    with pytest.raises(SpecMismatch, match="Push them with an input spec"):
        import_checkpoint(path, declared(tmp_path, input_spec=None))


def test_a_network_that_does_not_take_the_specs_input_is_told(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    with pytest.raises(NetworkFailed, match="fails on an input of shape"):
        import_checkpoint(path, declared(tmp_path, input_spec=InputSpec(height=8, width=8)))


def test_a_network_that_answers_at_random_is_no_graph(tmp_path, network):
    path = tmp_path / "weights.pt"
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.w = torch.nn.Parameter(torch.ones(1))\n"
        "    def forward(self, x):\n"
        "        return (x * self.w * float(torch.rand(1))).flatten(1)\n"
        "build_network = Net\n"
    )
    torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(EngineError, match="differs from the network's"):
        import_checkpoint(path, declared(tmp_path))


def test_an_onnx_file_asks_for_an_input_spec_and_gives_one_to_start_from(tmp_path, classifier):
    path = tmp_path / "model.onnx"
    onnx.save(classifier, path)
    with pytest.raises(SpecMismatch) as caught:
        import_checkpoint(path)
    assert caught.value.reason == "INPUT_SPEC_NEEDED"
    assert '"height": 16, "width": 16' in caught.value.message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (InputSpec(height=32, width=16), "height is 32 but the graph's input 'input' has 16"),
        (InputSpec(height=16, width=16, layout="NHWC"), "layout NCHW"),
        (InputSpec(height=16, width=16, channels=1, color="GRAY"), "channels is 1"),
        (InputSpec(height=16, width=16, name="other"), "no input 'other'"),
        (InputSpec(height=16, width=16, dtype="uint8"), "dtype uint8"),
    ],
)
def test_an_input_spec_that_does_not_fit_is_told(tmp_path, classifier, spec, words):
    path = tmp_path / "model.onnx"
    onnx.save(classifier, path)
    with pytest.raises(SpecMismatch) as caught:
        import_checkpoint(path, Declared(input_spec=spec))
    assert caught.value.reason == "INPUT_SPEC_DOES_NOT_FIT"
    assert words in caught.value.message


def test_an_output_spec_that_does_not_fit_is_told(tmp_path, classifier):
    path = tmp_path / "model.onnx"
    onnx.save(classifier, path)
    wrong = OutputSpec(task="classification", head="logits", num_classes=10)
    with pytest.raises(SpecMismatch, match="3 class scores") as caught:
        import_checkpoint(path, Declared(input_spec=InputSpec(height=16, width=16), output_spec=wrong))
    assert caught.value.reason == "OUTPUT_SPEC_DOES_NOT_FIT"


@pytest.mark.data
def test_real_checkpoints_of_two_families(data):
    found = import_checkpoint(
        data / "models" / "yolov5n.onnx",
        Declared(input_spec=InputSpec(height=640, width=640, resize="letterbox")),
    )
    assert list(graph_inputs(found.model)) == ["input"]  # the declared spec is what the device was told
    assert (found.output_spec.head, found.output_spec.num_classes) == ("yolov5", 80)
    with pytest.raises(EngineError, match="whole model of the YOLOv5 repository"):
        import_checkpoint(data / "models" / "yolov5n.pt")
