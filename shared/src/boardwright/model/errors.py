"""The one exception of this package."""


class ModelError(ValueError):
    """A declaration, tensor or image does not fit.

    ``reason`` is stable (``INPUT_SPEC_INVALID``, ``OUTPUTS_DO_NOT_FIT``…), for programs to branch on; the
    message names the field and says what to do next.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
