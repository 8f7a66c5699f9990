"""What goes wrong with toolchains."""

from __future__ import annotations


class ToolchainError(Exception):
    """A toolchain refused or failed; ``reason`` is stable, ``message`` says what to do next.

    Reasons:
        GRAPH_UNREADABLE: the file is no valid ONNX graph (truncated, bit-flipped, something else).
        GRAPH_TOO_LARGE: the file is beyond what ONNX's container can hold.
        GRAPH_EXTERNAL_DATA: the graph keeps weights in other files; a Variant is one file.
        GRAPH_UNSUPPORTED: the runtime has no kernel for an operator; the message names it.
        TOOLCHAIN_UNKNOWN: no toolchain has this name.
        RUNTIME_UNKNOWN: nothing here opens models of this runtime.
        TOOLCHAIN_NEEDS_AGENT: only a machine with the vendor's SDK can run it.
        OPTION_INVALID: an option of the build is unknown or has a wrong value.
        ARCHITECTURE_UNSUPPORTED: the toolchain makes nothing for this processor.
        BUILD_FAILED: the runtime's converter failed; the message carries its words.
        INPUT_MISMATCH: the inputs given do not fit the graph's inputs.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ToolchainNeedsAgent(ToolchainError):
    """The vendor's tool is not here; ``command`` is the exact line an agent would run."""

    def __init__(self, message: str, command: tuple[tuple[str, ...], ...]) -> None:
        super().__init__("TOOLCHAIN_NEEDS_AGENT", message)
        self.command = command
