"""What the engine raises: one root, a stable reason, a sentence that ends with what to do next."""

from __future__ import annotations


class EngineError(Exception):
    """A pass refused its input or could not give a result it stands behind.

    ``reason`` is stable and machine-readable (``CHECKPOINT_REFUSED``). ``message`` is for people: what was
    wrong, where, and what to do. The failure is deterministic: the same input fails the same way.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CheckpointRefused(EngineError):
    """The file asks for something that a weights file has no business asking for. Nothing of it ran."""


class CheckpointUnreadable(EngineError):
    """The file is damaged, truncated, or not in the format it was declared to be in."""


class CheckpointTooLarge(EngineError):
    """The file is, or claims to unpack to, more than the limits allow."""


class SpecMismatch(EngineError):
    """The declared InputSpec or OutputSpec does not fit the graph."""


class NetworkFailed(EngineError):
    """The user's module could not be imported, or could not build a network that fits the weights."""


class DependencyMissing(EngineError):
    """A library that this format needs is not installed in the step's environment."""


class DatasetUnfit(EngineError):
    """The samples cannot be used for what the pass was asked to do (none left, no labels, wrong classes)."""


class QuantizationFailed(EngineError):
    """The graph cannot be quantized under the chosen scheme, or the result does not load."""


class InformationLost(EngineError):
    """The optimised model runs, but its outputs no longer tell inputs apart."""


def first_line(error: Exception) -> str:
    """What a library said, in one line: its first, or the error's name where it said nothing."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
