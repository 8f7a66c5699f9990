"""Decoders for heads that this package does not know: an entry point, a function, one line in the spec.

A distribution declares the function::

    [project.entry-points."boardwright.output_heads"]
    "my-head" = "my_package.decoding:decode"

with this signature::

    from boardwright.model import RawDetections

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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import cast

import numpy as np

from boardwright.model.errors import ModelError
from boardwright.model.heads import (
    Arrays,
    FloatArray,
    Head,
    IndexArray,
    RawDetections,
    Size,
    class_indices,
    does_not_fit,
)
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
    """Let the declared decoder read the outputs, and check what it gives; lists and float64 are taken too.

    Raises:
        ModelError: as ``load_head``; ``OUTPUT_HEAD_FAILED`` when it raises; ``OUTPUTS_DO_NOT_FIT`` when what
            it gives does not fit the spec.
    """
    head = load_head(spec.plugin)
    with _blamed(spec.plugin):
        found = head(arrays, spec, size)
        if not isinstance(found, RawDetections):
            raise does_not_fit(
                f"the output head {spec.plugin!r} gave {type(found).__name__}, not RawDetections"
            )
        scores = np.asarray(found.scores, np.float32)
        classes = None if found.classes is None else class_indices(np.asarray(found.classes))
        whole = found.boxes if callable(found.boxes) else np.asarray(found.boxes, np.float32)
    rows = (len(scores),) if classes is not None else (len(scores), spec.num_classes)
    if scores.shape != rows or (classes is not None and classes.shape != rows):
        told = "" if classes is None else f" and classes {classes.shape}"
        raise does_not_fit(
            f"the output head {spec.plugin!r} gave scores {scores.shape}{told}, expected {rows}"
        )
    if not callable(whole):
        _check_boxes(whole, len(scores), spec)

    def boxes(wanted: IndexArray) -> FloatArray:
        if not callable(whole):
            return whole[wanted]
        with _blamed(spec.plugin):
            given = np.asarray(whole(wanted), np.float32)
        _check_boxes(given, len(wanted), spec)
        return given

    return replace(found, scores=scores, boxes=boxes, classes=classes)


def _check_boxes(boxes: FloatArray, count: int, spec: OutputSpec) -> None:
    if boxes.shape != (count, 4):
        raise does_not_fit(f"the output head {spec.plugin!r} gave boxes {boxes.shape} for {count} scores")


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Say whose error it is: a plug-in may raise anything, and give what is no array."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            "OUTPUT_HEAD_FAILED", f"the output head {name!r} raised {type(error).__name__}: {error}"
        ) from error
