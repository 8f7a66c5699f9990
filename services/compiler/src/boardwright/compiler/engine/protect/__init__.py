"""Pass ``protect``: what must stay in floating point, found by structure and ranges, explained in sentences.

No rule knows any architecture. In ``rules`` they come together:

- ``infinities``: masks and paddings of infinity, and what reads them.
- ``joins``: inputs of very different magnitude under one scale (Concat, Where, Scatter, Add).
- ``decode``: what follows the last layers, and what leads to choices and coordinates in mid-network.
- ``answers``: small last layers of a dense head.
- ``attention``, ``normalization``: softmax over positions, and norms that an exporter wrote out.
- ``weights``: channels too different for per-tensor kernels.
- ``conversions``: what each island of floats costs, and pockets that should be part of one.
- ``measured``: first layers, last layers and gates, where a measurement says that it pays.

``sensitivity`` says what each unit costs at the outputs (with ``noise`` and ``propagation``). ``budget``
keeps layers in floating point until a loss or a latency is met (with ``metric`` and ``latency``). ``cause``
names what made a quantized model collapse: ``find_cause(model, feeds)`` serves the pass ``diagnose``.
``structure`` is what they all ask of a graph; ``exclusion`` is what they give; ``protection`` puts them
together into the file that ``quantize`` reads.
"""

from boardwright.compiler.engine.protect.budget import Budget, BudgetResult, fit_budget
from boardwright.compiler.engine.protect.cause import Cause, find_cause
from boardwright.compiler.engine.protect.exclusion import Exclusion, excluded_names
from boardwright.compiler.engine.protect.joins import JOIN_RATIO, wide_join_ratio
from boardwright.compiler.engine.protect.measured import measured_exclusions
from boardwright.compiler.engine.protect.metric import TaskMetric
from boardwright.compiler.engine.protect.protection import (
    ALL_RULES,
    Protection,
    ProtectionOptions,
    protect_model,
    read_exclusions,
)
from boardwright.compiler.engine.protect.rules import RULES, protect
from boardwright.compiler.engine.protect.sensitivity import Sensitivity, measure_sensitivity

__all__ = [
    "ALL_RULES",
    "JOIN_RATIO",
    "RULES",
    "Budget",
    "BudgetResult",
    "Cause",
    "Exclusion",
    "Protection",
    "ProtectionOptions",
    "Sensitivity",
    "TaskMetric",
    "excluded_names",
    "find_cause",
    "fit_budget",
    "measure_sensitivity",
    "measured_exclusions",
    "protect",
    "protect_model",
    "read_exclusions",
    "wide_join_ratio",
]
