"""Pass ``evaluate``: quality on labelled samples, and parity with the FP32 baseline as a figure of its own.

Accuracy says how good a model is; parity says how far it is from the model it was made of. A model may
keep its accuracy while it answers differently, and only parity tells. All figures are fractions of 1.

- ``samples``: what is judged with. ``views``: an image at several scales and mirrored.
- ``runner``: a graph as a function from views to decoded answers; ``merging``: several answers into one.
- ``classifying``, ``detecting``: figures of a task.
- ``intervals``: how sure a figure is. ``record``: what comes out.
"""

from boardwright.compiler.engine.evaluate.judge import evaluate
from boardwright.compiler.engine.evaluate.record import (
    HEADLINES,
    Evaluation,
    headline,
    label_note,
    view_note,
)
from boardwright.compiler.engine.evaluate.runner import RememberingRunner, Runner
from boardwright.compiler.engine.evaluate.samples import Sample
from boardwright.compiler.engine.evaluate.views import Augmentation

__all__ = [
    "HEADLINES",
    "Augmentation",
    "Evaluation",
    "RememberingRunner",
    "Runner",
    "Sample",
    "evaluate",
    "headline",
    "label_note",
    "view_note",
]
