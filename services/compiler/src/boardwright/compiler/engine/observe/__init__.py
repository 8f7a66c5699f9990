"""Pass ``observe``: what every activation takes over calibration samples, for any method and any toolchain.

One run over the samples gives exact ranges, channel ranges and channel means, and histograms over fixed bins;
the ranges of every method follow from those afterwards (``CalibrationRecord.with_method``). Memory does not
grow with the samples, records of parts merge.

- ``observer``: ``observe`` and ``Observer``; ``watch``: the session that counts; ``setup``: what comes before
  and after it.
- ``optimised``: the fused graph in the fast kernels' layout, and where the tensors are in it; ``plan``: which
  to read and how others follow; ``probes`` and ``views``: what reads them; ``derived``: what follows.
- ``record``, ``histogram``, ``methods``: what is kept and the ranges made of it; ``tails``: the large values
  that sampled histograms miss.
- ``exporters``: the record in the words of other toolchains.
"""

from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.observe.graph_values import float_activations, infinite_tensors, layer_inputs
from boardwright.compiler.engine.observe.observer import Observer, observe
from boardwright.compiler.engine.observe.record import (
    METHODS,
    CalibrationRecord,
    ChannelStatistics,
    TensorRange,
    TensorStatistics,
)

__all__ = [
    "METHODS",
    "CalibrationRecord",
    "ChannelStatistics",
    "Feed",
    "Observer",
    "TensorRange",
    "TensorStatistics",
    "float_activations",
    "infinite_tensors",
    "layer_inputs",
    "observe",
]
