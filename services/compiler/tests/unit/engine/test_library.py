"""The passes one after the other, as the package's docstring has them."""

import numpy as np
import onnx

from boardwright.compiler import engine
from boardwright.compiler.engine.evaluate import Sample, evaluate
from boardwright.compiler.engine.feeds import feed_of
from boardwright.compiler.engine.graph.prepare import prepare_graph
from boardwright.compiler.engine.importing import Declared, import_checkpoint
from boardwright.compiler.engine.observe import observe
from boardwright.compiler.engine.protect import protect_model
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.recover import recover
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.model import InputSpec, OutputSpec


def test_the_passes_chain_as_the_package_says(classifier, tmp_path):
    onnx.save(classifier, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    names = {
        "path": tmp_path / "model.onnx",
        "input_spec": InputSpec(height=16, width=16, scale=1 / 255),
        "output_spec": OutputSpec(task="classification", head="logits", num_classes=3, name="logits"),
        "images": images,
        "samples": [
            Sample(str(number), image, class_index=int(image.mean((0, 1)).argmax()))
            for number, image in enumerate(images)
        ],
        "scheme": PROFILES["x86-vnni"],
        "Declared": Declared, "import_checkpoint": import_checkpoint, "feed_of": feed_of, "observe": observe,
        "prepare_graph": prepare_graph, "protect_model": protect_model, "recover": recover,
        "quantize": quantize, "evaluate": evaluate,
    }  # fmt: skip
    assert engine.__doc__ is not None
    example = engine.__doc__.partition("::\n")[2]
    exec("\n".join(line.removeprefix("    ") for line in example.splitlines()), names)

    assert names["told"].accuracy["top1"] > 0.7
    assert names["small"].ByteSize() > 0
    assert any(node.op_type == "DequantizeLinear" for node in names["small"].graph.node)
