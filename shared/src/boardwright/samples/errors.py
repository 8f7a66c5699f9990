"""The one exception of this package."""


class SampleError(ValueError):
    """A dataset, pack, manifest or image cannot be used as it is.

    ``reason`` is stable (``LAYOUT_UNKNOWN``, ``IMAGE_CORRUPT``, ``MANIFEST_INVALID``…); the message names
    the file and says what to do next.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
