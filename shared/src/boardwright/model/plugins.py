"""Decoders for heads that this package does not know: an entry point, a function, one line in the spec.

A distribution declares the function::

    [project.entry-points."boardwright.output_heads"]
    "my-head" = "my_package.decoding:decode"

with this signature::

    def decode(outputs, spec, size):
        \"\"\"One image's outputs to RawDetections.

        outputs: by name, without the batch axis. spec: the OutputSpec; spec.options is the user's own.
        size: (width, height) of the tensor in pixels.
        \"\"\"
        boxes = outputs["boxes"]                      # (N, 4) xyxy in pixels of the tensor
        return RawDetections(outputs["scores"], boxes)  # scores (N, C): thresholds and suppression follow

and the output spec names it::

    {"task": "detection", "head": "plugin", "plugin": "my-head", "num_classes": 3, "options": {"anchors": 9}}

It must be installed wherever outputs are read: in the environment of the workers, and on devices that decode.
It is imported by whoever decodes (a step's own process), never by a service.
"""

import importlib.metadata
from functools import cache
from typing import cast

import numpy as np

from boardwright.model.errors import ModelError
from boardwright.model.heads import Arrays, Head, RawDetections, Size, does_not_fit
from boardwright.model.output_spec import OutputSpec

ENTRY_POINT_GROUP = "boardwright.output_heads"


@cache
def load_head(name: str) -> Head:
    """Import the decoder that an installed distribution calls ``name``.

    Raises:
        ModelError: ``OUTPUT_HEAD_UNKNOWN`` when there is none, with those there are; ``OUTPUT_HEAD_FAILED``
            when its module cannot be imported.
    """
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise ModelError(
            "OUTPUT_HEAD_UNKNOWN",
            f"no installed distribution declares the output head {name!r} (entry point group "
            f"{ENTRY_POINT_GROUP}); there are: {', '.join(sorted(found)) or 'none'}",
        )
    try:
        return cast(Head, found[name].load())
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise ModelError(
            "OUTPUT_HEAD_FAILED",
            f"the output head {name!r} ({found[name].value}) cannot be imported: {error}",
        ) from error


def plugin(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Let the declared decoder read the outputs, and check what it gives.

    Raises:
        ModelError: as ``load_head``; ``OUTPUT_HEAD_FAILED`` when it raises; ``OUTPUTS_DO_NOT_FIT`` when what
            it gives does not fit the spec.
    """
    head = load_head(spec.plugin)
    try:
        found = head(arrays, spec, size)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            "OUTPUT_HEAD_FAILED", f"the output head {spec.plugin!r} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, RawDetections):
        raise does_not_fit(f"the output head {spec.plugin!r} gave {type(found).__name__}, not RawDetections")
    scores = np.asarray(found.scores, np.float32)
    rows = (len(scores),) if found.classes is not None else (len(scores), spec.num_classes)
    if scores.shape != rows:
        raise does_not_fit(f"the output head {spec.plugin!r} gave scores {scores.shape}, expected {rows}")
    if not callable(found.boxes) and np.shape(found.boxes) != (len(scores), 4):
        raise does_not_fit(
            f"the output head {spec.plugin!r} gave boxes {np.shape(found.boxes)} for {len(scores)} scores"
        )
    return found
