"""Pass ``profile``: where a graph's time and memory go, layer by layer. Look before you optimise.

- ``costs``: what follows from shapes alone: MACs, parameters, activation memory.
- ``runtime``: what ONNX Runtime's kernels took, on this machine; its chrome trace is kept.
- ``torch_operators``: the same network under ``torch.profiler``, by operator.
- ``profile``: the two side by side.

Times are of the machine that ran the pass: they show where time goes, never what a board would take.
"""

from boardwright.compiler.engine.profiling.costs import GraphCosts, NodeCosts, graph_costs
from boardwright.compiler.engine.profiling.profile import Profile, profile_graph
from boardwright.compiler.engine.profiling.runtime import KernelTime, RuntimeProfile, profile_runtime

__all__ = [
    "GraphCosts",
    "KernelTime",
    "NodeCosts",
    "Profile",
    "RuntimeProfile",
    "graph_costs",
    "profile_graph",
    "profile_runtime",
]
