"""Samples: reading people's datasets, packing them into blobs, and reading sealed datasets back.

A dataset begins as somebody's folder and ends as a manifest over packs. The client reads the layout and
writes the packs (``read_layout``, ``write_packs``), the calibration service verifies and seals, and a step
reads what was sealed (``DatasetManifest``, ``DatasetReader``). Pillow, PyYAML and NumPy are imported where
they are used.

Map:

- ``labels``: what a sample may be labelled with, and its JSON form.
- ``found``: what a layout reader yields, good and bad.
- ``layouts``: folders, tables (CSV), YOLO, COCO JSON, NumPy arrays; and ``read_layout``, which tells them
  apart.
- ``images``: decoding with bounded pixels.
- ``packs``: deterministic tar files of samples.
- ``manifest``: the sealed dataset's document.
- ``reader``: iterating over a sealed dataset.
- ``errors``: the one exception.
"""

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.images import MAX_PIXELS, check_found, decode_image
from boardwright.samples.labels import Box, Label, label_from_json, label_to_json
from boardwright.samples.layouts import LAYOUTS, read_layout
from boardwright.samples.manifest import MANIFEST_MEDIA_TYPE, DatasetManifest, ManifestSample, PackEntry
from boardwright.samples.packs import PACK_MEDIA_TYPE, Pack, PackedSample, write_packs
from boardwright.samples.reader import DatasetReader, DatasetSample

__all__ = [
    "LAYOUTS",
    "MANIFEST_MEDIA_TYPE",
    "MAX_PIXELS",
    "PACK_MEDIA_TYPE",
    "BadSample",
    "Box",
    "DatasetManifest",
    "DatasetReader",
    "DatasetSample",
    "FoundSample",
    "Label",
    "ManifestSample",
    "Pack",
    "PackEntry",
    "PackedSample",
    "SampleError",
    "SampleSource",
    "check_found",
    "decode_image",
    "label_from_json",
    "label_to_json",
    "read_layout",
    "write_packs",
]
