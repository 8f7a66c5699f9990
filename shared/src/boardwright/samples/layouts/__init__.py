"""The layouts that people keep datasets in, and how to tell them apart."""

from boardwright.samples.layouts.detection import LAYOUTS, read_layout

__all__ = ["LAYOUTS", "read_layout"]
