"""What a model takes in, what it gives out, and where it may run.

Everything that sees an image or a tensor goes through this package: calibration, evaluation, measurement
on a board, and the device agent. One implementation for all of them is the point: a model is judged with the
very preprocessing that the device will use. It needs NumPy, and Pillow for images; nothing else.

Map:

- ``input_spec``, ``output_spec``: the two declarations that travel with every model, as versioned JSON.
- ``preprocessing``: image to tensor, and the ``Placement`` that maps boxes back to the original image.
- ``decoding``, ``boxes``: output tensors to classifications and detections.
- ``heads``, ``priors``: one function per detection head; cells and prior boxes. ``plugins``: heads of others.
- ``classification``, ``detection``: accuracy and COCO mean average precision.
- ``pins``, ``host``: which machines an artifact was built for, and what this machine is.
- ``golden``: inputs with their expected outputs, which a device checks before it switches over.
- ``formats``: the checkpoint formats, told apart by their first bytes.
- ``errors``, ``documents``: the one exception, and the strict JSON reading behind every declaration.
"""

from boardwright.model.classification import ClassificationMeter, top_k_hits
from boardwright.model.decoding import Classification, Detections, decode, decode_batch, used_outputs
from boardwright.model.detection import ClassScores, DetectionMeter, DetectionScores
from boardwright.model.errors import ModelError
from boardwright.model.formats import ModelFormat, detect_format
from boardwright.model.golden import GoldenSamples, Verdict
from boardwright.model.heads import RawDetections
from boardwright.model.host import Host, detect_host
from boardwright.model.input_spec import InputSpec
from boardwright.model.output_spec import OutputSpec
from boardwright.model.pins import HardwarePin, mismatches
from boardwright.model.preprocessing import Placement, preprocess, preprocess_batch

__all__ = [
    "ClassScores",
    "Classification",
    "ClassificationMeter",
    "DetectionMeter",
    "DetectionScores",
    "Detections",
    "GoldenSamples",
    "HardwarePin",
    "Host",
    "InputSpec",
    "ModelError",
    "ModelFormat",
    "OutputSpec",
    "Placement",
    "RawDetections",
    "Verdict",
    "decode",
    "decode_batch",
    "detect_format",
    "detect_host",
    "mismatches",
    "preprocess",
    "preprocess_batch",
    "top_k_hits",
    "used_outputs",
]
