"""Pass ``import``: a checkpoint of any known format becomes ONNX with its InputSpec and OutputSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.checkpoint.onnx_file import load_onnx
from boardwright.compiler.engine.errors import EngineError, NetworkFailed, SpecMismatch
from boardwright.compiler.engine.export import DEFAULT_OPSET, export_network, export_ultralytics
from boardwright.compiler.engine.graph.canonical import (
    dequantize_weights,
    drop_initializer_inputs,
    drop_unread_inputs,
)
from boardwright.compiler.engine.graph.inspect import drop_metadata, fix_input_shape, graph_inputs
from boardwright.compiler.engine.graph.leftovers import unwrap_maps
from boardwright.compiler.engine.graph.prepare import name_nodes, opset_of, tell_output_shapes, told_quantized
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.widen import to_float32
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, Limits
from boardwright.compiler.engine.specs import (
    RTDETR_HEAD,
    YoloMetadata,
    read_yolo_metadata,
    settle_input_spec,
    settle_output_spec,
    yolo_input_spec,
)
from boardwright.model import InputSpec, ModelError, ModelFormat, OutputSpec, decode, preprocess

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True, slots=True)
class Declared:
    """What the pusher says of a checkpoint; everything that is None or empty is found out or derived.

    ``module`` is a Python file and ``builder`` the callable in it that returns the network; ``arguments`` are
    passed to it by name.
    """

    format: ModelFormat | None = None
    task: str = ""
    input_spec: InputSpec | None = None
    output_spec: OutputSpec | None = None
    module: Path | None = None
    builder: str = "build_network"
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A float32 graph with fixed shapes, how to feed it and how to read it. ``notes`` are plain sentences."""

    model: onnx.ModelProto
    input_spec: InputSpec
    output_spec: OutputSpec
    format: ModelFormat
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "format": self.format.value,
            "opset": opset_of(self.model),
            "nodes": len(self.model.graph.node),
            "parameters": count_parameters(self.model),
            "notes": list(self.notes),
        }


def import_checkpoint(
    path: Path,
    declared: Declared | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    limits: Limits = DEFAULT_LIMITS,
) -> ImportedModel:
    """Read a checkpoint and return it as ONNX, run once on a grey image and decoded.

    Raises:
        CheckpointRefused, CheckpointTooLarge, CheckpointUnreadable: the file is hostile, too large or
        damaged.
        NetworkFailed: the user's module does not build a network for these weights, or it cannot be exported.
        SpecMismatch: a spec is needed, or does not fit the graph.
        DependencyMissing: a library that the format needs is not installed.
    """
    declared = declared or Declared()
    kind = declared.format or _detect(path)
    loaders = {
        ModelFormat.ONNX: _from_onnx,
        ModelFormat.TORCH_STATE_DICT: _from_weights,
        ModelFormat.SAFETENSORS: _from_weights,
        ModelFormat.TORCHSCRIPT: _from_torchscript,
        ModelFormat.ULTRALYTICS: _from_ultralytics,
    }
    loaded = loaders[kind](path, replace(declared, format=kind), opset, limits)
    notes = list(loaded.notes)
    model = loaded.model
    drop_initializer_inputs(model)
    unread = drop_unread_inputs(model)
    if unread:
        notes.append(f"Nothing reads the input {', '.join(map(repr, unread))}: the graph is without it now.")
    input_spec = settle_input_spec(loaded.input_spec, model, loaded.metadata)
    notes += fix_input_shape(model, input_spec.name, _fixed_shape(model, input_spec))
    tell_output_shapes(model)
    output_spec = settle_output_spec(declared.output_spec, model, loaded.metadata, declared.task)
    if declared.output_spec is None and output_spec.name in loaded.labels:
        output_spec = replace(output_spec, labels=loaded.labels[output_spec.name])
    drop_metadata(model)
    name_nodes(model.graph)
    _try_out(model, input_spec, output_spec)
    return ImportedModel(model, input_spec, output_spec, kind, tuple(notes))


def count_parameters(model: onnx.ModelProto) -> int:
    """Return how many numbers the graph's initializers hold."""
    total = 0
    for tensor in model.graph.initializer:
        count = 1
        for length in tensor.dims:
            count *= length
        total += count
    return total


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: onnx.ModelProto
    input_spec: InputSpec | None
    metadata: YoloMetadata | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _detect(path: Path) -> ModelFormat:
    from boardwright.model import detect_format

    try:
        return detect_format(path)
    except (ModelError, OSError) as error:
        raise EngineError(
            "CHECKPOINT_FORMAT", f"{error}. Declare the format, if it is one of {', '.join(ModelFormat)}."
        ) from error


def _from_onnx(path: Path, declared: Declared, opset: int, limits: Limits) -> _Loaded:
    found = load_onnx(path, limits)
    metadata = read_yolo_metadata({entry.key: entry.value for entry in found.model.metadata_props})
    notes: tuple[str, ...] = (_non_finite_sentence(found.non_finite),) if found.non_finite else ()
    spec = declared.input_spec
    widened = to_float32(found.model)
    if widened:
        told = ", ".join(f"{count} tensors of {name}" for name, count in sorted(widened.items()))
        notes += (f"{told} became float32: every pass starts from float32, and boards round from there.",)
        if spec is not None and spec.dtype == "float16":
            spec = replace(spec, dtype="float32")
    restored = dequantize_weights(found.model)
    if told := told_quantized(found.model):
        notes += (told,)
    if restored:
        notes += (f"{restored} weights stored as integers became float32 again: passes round them anew.",)
    labels = unwrap_maps(found.model)
    if labels:
        told = ", ".join(repr(name) for name in labels)
        notes += (f"The output {told} was a dictionary of scores (ZipMap); it is the scores themselves now.",)
    return _Loaded(found.model, spec, metadata, labels, notes)


def _from_weights(path: Path, declared: Declared, opset: int, limits: Limits) -> _Loaded:
    from boardwright.compiler.engine.checkpoint import state_dict

    notes: tuple[str, ...] = ()
    if declared.format is ModelFormat.SAFETENSORS:
        tensors = state_dict.load_safetensors(path, limits)
    else:
        tensors, notes = state_dict.load_torch_state_dict(path, limits)
    spec = _needed_spec(declared)
    if declared.module is None:
        raise NetworkFailed(
            "NETWORK_MODULE_NEEDED",
            f"{path.name} holds weights without their network. Push it with the Python file that builds the "
            f"network (a function {declared.builder}() that returns a torch.nn.Module).",
        )
    network = state_dict.build_network(declared.module, declared.builder, declared.arguments)
    state_dict.load_weights(network, tensors, path.name)
    network = network.float()
    notes += _non_finite_note(network)
    return _Loaded(export_network(network, spec, opset), spec, notes=notes)


def _from_torchscript(path: Path, declared: Declared, opset: int, limits: Limits) -> _Loaded:
    from boardwright.compiler.engine.checkpoint.torchscript import load_torchscript

    network = load_torchscript(path, limits)
    spec = _needed_spec(declared)
    return _Loaded(export_network(network, spec, opset), spec, notes=_non_finite_note(network))


def _from_ultralytics(path: Path, declared: Declared, opset: int, limits: Limits) -> _Loaded:
    from boardwright.compiler.engine.checkpoint.ultralytics_file import load_ultralytics

    checkpoint = load_ultralytics(path, limits)
    if checkpoint.task not in ("detect", "classify"):
        raise SpecMismatch(
            "TASK_UNSUPPORTED",
            f"{path.name} is a model for the task {checkpoint.task!r}; detection and classification are "
            "supported. If it finds boxes as well, export it to ONNX and push it with an output spec of head "
            "'plugin' that reads them.",
        )
    spec = declared.input_spec or yolo_input_spec(
        checkpoint.task, checkpoint.image_size, queries=checkpoint.head == RTDETR_HEAD
    )
    model = export_ultralytics(checkpoint.model, (spec.height, spec.width), opset)
    metadata = read_yolo_metadata({entry.key: entry.value for entry in model.metadata_props})
    return _Loaded(model, spec, metadata)


def _needed_spec(declared: Declared) -> InputSpec:
    if declared.input_spec is None:
        raise SpecMismatch(
            "INPUT_SPEC_NEEDED",
            "Weights do not say how images become their input. Push them with an input spec, for example "
            '{"height": 224, "width": 224, "color": "RGB", "scale": 0.00392156862745098, '
            '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": "center-crop"}.',
        )
    return declared.input_spec


def _non_finite_note(network: torch.nn.Module) -> tuple[str, ...]:
    import torch

    bad = [
        name
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if not bad:
        return ()
    return (_non_finite_sentence(bad),)


def _non_finite_sentence(names: Sequence[str]) -> str:
    named = ", ".join(names[:5])
    return f"The weights {named} hold NaN or infinity: outputs that depend on them are meaningless."


def _fixed_shape(model: onnx.ModelProto, spec: InputSpec) -> list[int]:
    """Return the shape to fix: a batch that the spec leaves free keeps the graph's own, or becomes 1."""
    batch = graph_inputs(model)[spec.name][0][0]
    return [batch if isinstance(batch, int) and batch > 0 else 1, *spec.shape[1:]]


def _try_out(model: onnx.ModelProto, input_spec: InputSpec, output_spec: OutputSpec) -> None:
    """Run a grey image through the graph and decode it, so that specs that do not fit are found here."""
    import numpy as np

    session = open_session(model)
    grey = np.full((input_spec.height, input_spec.width, 3), 128, np.uint8)
    tensor, placement = preprocess(grey, input_spec)
    batch = session.get_inputs()[0].shape[0]
    names = [value.name for value in session.get_outputs()]
    try:
        outputs = session.run(None, {input_spec.name: np.repeat(tensor, batch, axis=0)})
        if batch > 1:
            outputs = [out[:1] if out.ndim and len(out) == batch else out for out in outputs]
        decode(dict(zip(names, outputs, strict=True)), output_spec, placement, input_spec)
    except ModelError as error:
        raise SpecMismatch(
            "OUTPUT_SPEC_DOES_NOT_FIT", f"{error.message}. Correct the output spec and push again."
        ) from error
    except Exception as error:  # the runtime's exceptions share no base class of their own
        text = str(error).strip().splitlines()
        raise EngineError(
            "MODEL_FAILED",
            f"The graph fails on a grey image of {input_spec.width}x{input_spec.height} px: "
            f"{text[0][:300] if text else type(error).__name__}. Check the input spec and the export.",
        ) from error
