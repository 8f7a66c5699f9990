"""Images as a graph's session takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.inspect import graph_inputs
from boardwright.model import ModelError, preprocess

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from boardwright.model import InputSpec

Feed = Mapping[str, "np.ndarray[Any, Any]"]
"""What a session runs on: arrays by the names of inputs."""


def batch_of(model: onnx.ModelProto, spec: InputSpec) -> int:
    """Return the batch that the graph's image input is fixed to, 1 where it is free."""
    axis = graph_inputs(model)[spec.name][0][0]
    return axis if isinstance(axis, int) and axis > 0 else 1


def feed_of(
    image: Any, spec: InputSpec, batch: int = 1, *, sample: str = ""
) -> dict[str, np.ndarray[Any, Any]]:
    """Return one image (Pillow's, or (H, W, C) uint8) as a session's inputs, repeated to ``batch``.

    ``sample`` names the image in the error.

    Raises:
        DatasetUnfit: IMAGE_DOES_NOT_FIT.
    """
    import numpy as np

    return {spec.name: np.repeat(tensor_of(image, spec, sample), batch, axis=0)}


def tensor_of(image: Any, spec: InputSpec, sample: str = "") -> np.ndarray[Any, Any]:
    """Return one image as a tensor of batch 1; see ``feed_of``."""
    try:
        return preprocess(image, spec)[0]
    except ModelError as error:
        named = f"Sample {sample!r}: " if sample else ""
        raise DatasetUnfit(
            error.reason, f"{named}{error.message}. Correct the dataset or the input spec."
        ) from error
