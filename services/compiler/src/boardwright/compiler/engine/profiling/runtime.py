"""ONNX Runtime's own profile of a graph: what each kernel took, and the chrome trace of it."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.profiling.costs import multiply_accumulates

if TYPE_CHECKING:
    import onnx

_WARM_UP = 3
_KERNEL_SUFFIX = "_kernel_time"
_LAYOUT_SUFFIXES = ("_nchwc", "_quant")


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One node of the optimised graph. ``node`` is its name without the optimiser's suffixes.

    ``milliseconds`` is the median over the runs. Shapes, ``macs`` and bytes are as the kernel ran: channels
    that it pads to its blocks count.
    """

    node: str
    operator: str
    milliseconds: float
    output_shape: tuple[int, ...]
    macs: int = 0
    parameter_bytes: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeProfile:
    """The kernels in running order, the whole run's median in milliseconds, and the trace as JSON bytes."""

    kernels: tuple[KernelTime, ...]
    run_ms: float
    runs: int
    threads: int
    peak_memory_bytes: int
    trace: bytes

    def by_operator(self) -> dict[str, float]:
        """Return the milliseconds of each operator, dearest first."""
        totals: dict[str, float] = {}
        for kernel in self.kernels:
            totals[kernel.operator] = totals.get(kernel.operator, 0.0) + kernel.milliseconds
        return dict(sorted(totals.items(), key=lambda entry: -entry[1]))


def profile_runtime(
    model: onnx.ModelProto, feed: Feed, *, threads: int = 1, runs: int = 20
) -> RuntimeProfile:
    """Run the fully optimised graph ``runs`` times on ``feed`` and return what its kernels took here.

    Raises:
        EngineError: RUNTIME_REFUSED.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        session = open_session(
            model,
            threads=threads,
            profile_prefix=Path(folder) / "trace",
            optimized_path=optimised,
            exact=False,
        )
        for _ in range(_WARM_UP + runs):
            session.run(None, dict(feed))
        trace = Path(session.end_profiling()).read_bytes()
        weights = _weight_shapes(optimised)
    events = json.loads(trace)
    kernels: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL_SUFFIX):
            kernels.setdefault(int(event["args"]["node_index"]), []).append(event)
    order = sorted(kernels.values(), key=lambda found: found[0]["ts"])
    peaks = [int(found[-1]["args"].get("mem_in_use_peak", 0)) for found in order]
    whole = [event["dur"] / 1000 for event in events if event.get("name") == "model_run"]
    return RuntimeProfile(
        tuple(_kernel(found[_WARM_UP:] or found, weights) for found in order),
        statistics.median(whole[_WARM_UP:]),
        runs,
        threads,
        max(peaks, default=0),
        trace,
    )


def _weight_shapes(optimised: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each node's largest constant: the trace leaves out repacked weights."""
    import onnx

    graph = onnx.load(optimised).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        own = [shapes[name] for name in node.input if name in shapes]
        if own:
            found[node.name] = max(own, key=prod)
    return found


def _kernel(events: list[dict[str, Any]], weights: Mapping[str, tuple[int, ...]]) -> KernelTime:
    full = str(events[0]["name"]).removesuffix(_KERNEL_SUFFIX)
    name = full
    for suffix in _LAYOUT_SUFFIXES:
        name = name.removesuffix(suffix)
    arguments = events[0]["args"]
    operator = str(arguments["op_name"])
    inputs, made = _shapes(arguments, "input_type_shape"), _shapes(arguments, "output_type_shape")
    shape = made[0] if made else ()
    return KernelTime(
        name,
        operator,
        statistics.median(event["dur"] / 1000 for event in events),
        shape,
        multiply_accumulates(operator, inputs[0] if inputs else (), weights.get(full, ()), shape),
        int(arguments.get("parameter_size", 0)),
        int(arguments.get("output_size", 0)),
    )


def _shapes(arguments: Mapping[str, Any], key: str) -> list[tuple[int, ...]]:
    return [tuple(shape) for entry in arguments.get(key, []) for shape in entry.values()]
