"""PyTorch networks to ONNX, checked against the network they came from."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, NetworkFailed, first_line
from boardwright.compiler.engine.graph.session import open_session
from boardwright.model import InputSpec

if TYPE_CHECKING:
    import onnx
    import torch

DEFAULT_OPSET = 17
_RELATIVE_TOLERANCE = 1e-3


def export_network(network: torch.nn.Module, spec: InputSpec, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Return ``network`` in evaluation mode as ONNX with one fixed input of ``spec``'s shape and type.

    The tracing exporter is tried first: it is fast and takes TorchScript. Where it fails, ``torch.export``
    is. The result is run beside the network on noise, and the outputs compared.

    Raises:
        NetworkFailed: EXPORT_FAILED or NETWORK_FAILED, when neither exporter takes the network or it does not
            accept the spec's input.
        EngineError: EXPORT_DIFFERS, when the graph computes something else than the network.
    """
    import onnx
    import torch

    network = network.eval()
    sample = _sample(spec)
    with torch.no_grad(), _quiet():
        expected = _run_network(network, sample, spec)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            try:
                _export(network, sample, path, spec, opset, dynamo=False)
            except Exception as first:  # exporters raise whatever the network's operators raise
                if isinstance(network, torch.jit.ScriptModule):
                    raise _failed(first) from first
                try:
                    _export(network, sample, path, spec, max(opset, 18), dynamo=True)
                except Exception as second:
                    raise _failed(first) from second
            model = onnx.load(path)
    _compare(model, sample, spec, expected)
    return model


def export_ultralytics(yolo: Any, size: tuple[int, int], opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Return an Ultralytics model as ONNX, (height, width) as ``size``.

    Heads that can do without suppression of overlaps (YOLOv10, YOLO26) are exported that way
    (``nms=False``): raw boxes are what ``export`` gives by default. The file's metadata says which.

    Raises:
        NetworkFailed: EXPORT_FAILED, with Ultralytics' own words.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder, _quiet(), contextlib.chdir(folder):
        yolo.model.pt_path = yolo.ckpt_path = str(Path(folder) / "checkpoint.pt")  # written beside it
        try:
            options = {"nms": False} if _can_end_to_end(yolo) else {}
            written = yolo.export(
                format="onnx",
                imgsz=list(size),
                opset=opset,
                simplify=False,
                dynamic=False,
                device="cpu",
                **options,
            )
        except Exception as error:  # Ultralytics raises whatever torch raises
            raise _failed(error) from error
        return onnx.load(written)


def _can_end_to_end(yolo: Any) -> bool:
    return hasattr(yolo.model.model[-1], "one2one_cv2")


def _sample(spec: InputSpec) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = [1 if axis is None else axis for axis in spec.shape]
    return torch.rand(shape, generator=generator).to(getattr(torch, spec.dtype))


def _run_network(network: torch.nn.Module, sample: torch.Tensor, spec: InputSpec) -> list[torch.Tensor]:
    import torch

    try:
        result = network(sample)
    except Exception as error:
        raise NetworkFailed(
            "NETWORK_FAILED",
            f"The network fails on an input of shape {list(sample.shape)} ({spec.layout}, {spec.dtype}): "
            f"{first_line(error)}. Check the input spec's size, layout and channels.",
        ) from error
    outputs = [result] if isinstance(result, torch.Tensor) else result
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if not isinstance(outputs, list | tuple) or not all(isinstance(out, torch.Tensor) for out in outputs):
        raise NetworkFailed(
            "NETWORK_FAILED",
            f"The network returns {type(result).__name__}; it must return a tensor or a flat list of "
            "tensors.",
        )
    return list(outputs)


def _export(
    network: torch.nn.Module, sample: torch.Tensor, path: Path, spec: InputSpec, opset: int, *, dynamo: bool
) -> None:
    import torch

    options: dict[str, Any] = {"external_data": False} if dynamo else {}
    torch.onnx.export(
        network,
        (sample,),
        str(path),
        dynamo=dynamo,
        opset_version=opset,
        input_names=[spec.name],
        **options,
    )


def _compare(
    model: onnx.ModelProto, sample: torch.Tensor, spec: InputSpec, expected: list[torch.Tensor]
) -> None:
    import numpy as np

    session = open_session(model)
    actual = session.run(None, {spec.name: sample.numpy()})
    for index, (ours, theirs) in enumerate(zip(actual, expected, strict=False)):
        reference = theirs.numpy()
        scale = float(np.abs(reference).max(initial=0.0))
        if ours.shape != reference.shape:
            raise EngineError(
                "EXPORT_DIFFERS",
                f"Output {index} of the exported graph has shape {list(ours.shape)}, the network's "
                f"{list(reference.shape)}. Its shape must not depend on Python code that tracing cannot see.",
            )
        worst = float(np.abs(ours.astype(np.float64) - reference).max(initial=0.0))
        if not worst <= _RELATIVE_TOLERANCE * max(scale, 1e-6):
            raise EngineError(
                "EXPORT_DIFFERS",
                f"Output {index} of the exported graph differs from the network's by {worst:.3g} "
                f"(values reach {scale:.3g}). Look for randomness, or for Python branches on tensor values.",
            )


def _failed(error: Exception) -> NetworkFailed:
    return NetworkFailed(
        "EXPORT_FAILED",
        f"The network cannot be exported to ONNX: {first_line(error)}. Replace what it names, or export it "
        "yourself and push the ONNX file.",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters' progress and deprecation notices out of the step's output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        previous = os.environ.get("YOLO_VERBOSE")
        os.environ["YOLO_VERBOSE"] = "false"
        try:
            yield
        finally:
            if previous is None:
                os.environ.pop("YOLO_VERBOSE", None)
            else:
                os.environ["YOLO_VERBOSE"] = previous
