"""What the device protocol's documents may raise."""

from __future__ import annotations


class InvalidDocument(ValueError):
    """A bundle, an index, a token or a signature header is malformed; the message says where."""
