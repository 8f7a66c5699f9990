"""Pass ``diagnose``: what really ran, why it is slower or worse than FP32 here, and what to try next.

- ``kernels``: which layers the optimised graph computes on integers, which on floats, and where it converts.
- ``timing``: both graphs in turns, with one thread and with the runtime's default.
- ``errors``: where on the way through the graph the answers begin to differ.
- ``findings``: sentences with their evidence and the next thing to try, the gravest first.
- ``diagnosing``: all of it for one graph beside its baseline.

Times are of the machine that ran the pass, and say so; a board's are measured on the board.
"""

from boardwright.compiler.engine.diagnose.diagnosing import Diagnosis, diagnose
from boardwright.compiler.engine.diagnose.errors import TensorError, tensor_errors
from boardwright.compiler.engine.diagnose.findings import Finding
from boardwright.compiler.engine.diagnose.kernels import KernelReport, report_kernels
from boardwright.compiler.engine.diagnose.timing import Latency, measure_both

__all__ = [
    "Diagnosis",
    "Finding",
    "KernelReport",
    "Latency",
    "TensorError",
    "diagnose",
    "measure_both",
    "report_kernels",
    "tensor_errors",
]
