"""Costs and times of a graph side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.profiling.costs import GraphCosts, graph_costs
from boardwright.compiler.engine.profiling.runtime import KernelTime, RuntimeProfile, profile_runtime
from boardwright.compiler.engine.profiling.torch_operators import TorchOperator, profile_torch

if TYPE_CHECKING:
    import numpy as np
    import onnx

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything the pass found. ``torch_note`` says why there are no PyTorch figures."""

    costs: GraphCosts
    runtime: RuntimeProfile
    torch: tuple[TorchOperator, ...]
    torch_note: str = ""

    def costliest(self, count: int = _SHOWN) -> tuple[KernelTime, ...]:
        """Return the kernels that took longest."""
        return tuple(sorted(self.runtime.kernels, key=lambda kernel: -kernel.milliseconds)[:count])

    def describe(self) -> dict[str, Any]:
        """Return the profile as JSON-able values. ``share`` is a kernel's part of all kernels' time, of 1."""
        total = sum(kernel.milliseconds for kernel in self.runtime.kernels) or 1.0
        return {
            "runs": self.runtime.runs,
            "threads": self.runtime.threads,
            "run_ms": self.runtime.run_ms,
            "macs": self.costs.macs,
            "parameters": self.costs.parameters,
            "weight_bytes": self.costs.weight_bytes,
            "peak_activation_bytes": self.costs.peak_activation_bytes,
            "runtime_peak_memory_bytes": self.runtime.peak_memory_bytes,
            "operators_ms": self.runtime.by_operator(),
            "layers": [
                {
                    "name": kernel.node,
                    "operator": kernel.operator,
                    "ms": kernel.milliseconds,
                    "share": kernel.milliseconds / total,
                    "macs": kernel.macs,
                    "parameter_bytes": kernel.parameter_bytes,
                    "output_bytes": kernel.output_bytes,
                    "output_shape": list(kernel.output_shape),
                }
                for kernel in self.runtime.kernels
            ],
            "torch_operators": [
                {"operator": found.operator, "calls": found.calls, "ms": found.milliseconds}
                for found in self.torch
            ],
            "torch_note": self.torch_note,
            "shapes_unknown": list(self.costs.unknown),
        }


def profile_graph(
    model: onnx.ModelProto,
    feed: Mapping[str, np.ndarray[Any, Any]],
    *,
    threads: int = 1,
    runs: int = 20,
    torch: bool = True,
) -> Profile:
    """Profile a graph on one preprocessed input.

    ``threads`` 0 leaves the runtime's default. ``torch`` runs float graphs under ``torch.profiler`` too.

    Raises:
        EngineError: RUNTIME_REFUSED.
    """
    costs = graph_costs(model)
    runtime = profile_runtime(model, feed, threads=threads, runs=runs)
    operators: tuple[TorchOperator, ...] = ()
    note = "not asked for"
    if torch:
        try:
            operators, note = profile_torch(model, feed), ""
        except EngineError as error:
            note = error.message
    return Profile(costs, runtime, operators, note)
