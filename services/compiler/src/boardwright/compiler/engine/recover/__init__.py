"""Pass ``recover``: give back what rounding took, without labels and without training.

- ``recovery``: the pass: methods one after the other, each kept only if held-out samples say that it helps.
- ``ranges``: where to cut activations off, judged behind the function that reads them.
- ``equalization``: channels of one layer brought to like ranges, their factors taken back in the next.
- ``bias_correction``: the shift of each output channel's mean, taken back.
- ``rounding``: for each weight up or down, learnt from what the layer reads (AdaRound).
- ``reconstruction``, ``block``: blocks of layers taught to give what their float originals give (BRECQ).
- ``descent``: how both learn; ``judging``: the error of a quantized graph's outputs; ``boxes``: a detector's.
"""

from boardwright.compiler.engine.recover.bias_correction import correct_bias, mean_shift
from boardwright.compiler.engine.recover.block import ReconstructionOptions
from boardwright.compiler.engine.recover.recovery import (
    DEFAULT_METHODS,
    METHODS,
    MethodRecord,
    RecoverOptions,
    Recovery,
    recover,
)
from boardwright.compiler.engine.recover.rounding import RoundingOptions

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "MethodRecord",
    "ReconstructionOptions",
    "RecoverOptions",
    "Recovery",
    "RoundingOptions",
    "correct_bias",
    "mean_shift",
    "recover",
]
