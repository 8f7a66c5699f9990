"""The builder's refusals. Each says what to do next; the reasons are those of builder.proto."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, NotFound


def board_not_found(name: str, nearest: Sequence[str], message: str) -> NotFound:
    """No board has this name."""
    return NotFound("BOARD_NOT_FOUND", message, board=name, nearest=",".join(nearest))


def host_unknown(machine: str) -> FailedPrecondition:
    """`host` was asked for, and this machine is no board of the catalogue."""
    return FailedPrecondition(
        "HOST_NOT_IN_CATALOGUE",
        f"this machine ({machine}) is no board of the catalogue; name one of `boardwright board ls`.",
    )


def toolchain_invalid(board: str, toolchain: str, known: Sequence[str]) -> InvalidArgument:
    """The board has no such toolchain."""
    return InvalidArgument(
        "FIELD_INVALID",
        f"{board} has the toolchains {', '.join(known)}, not {toolchain!r}.",
        field="toolchain",
    )


def needs_agent(
    board: str,
    toolchain: str,
    waits_for: str,
    commands: Sequence[Sequence[str]],
    alternatives: Sequence[str],
) -> FailedPrecondition:
    """The toolchain runs only where an agent is."""
    lines = "; ".join(shlex.join(command) for command in commands)
    other = (
        f" Or name the toolchain {' or '.join(alternatives)}, which builds here for the board's CPU."
        if alternatives
        else ""
    )
    return FailedPrecondition(
        "TOOLCHAIN_NEEDS_AGENT",
        f"{toolchain} for {board} waits for {waits_for}. The agent would run: {lines}.{other}",
        board=board,
        toolchain=toolchain,
        waits_for=waits_for,
        command=lines,
        alternatives=",".join(alternatives),
    )


def profile_mismatch(variant: str, made_for: str, board: str, why: str) -> FailedPrecondition:
    """The variant was quantized for kernels that the board does not have."""
    return FailedPrecondition(
        "PROFILE_MISMATCH",
        f"{variant} was quantized for {made_for}, which {board} cannot run: {why}",
        variant=variant,
        made_for=made_for,
        board=board,
    )


def board_needs_agent(board: str, host: str) -> FailedPrecondition:
    """No worker speaks for the board."""
    return FailedPrecondition(
        "BOARD_NEEDS_AGENT",
        f"no worker speaks for {board}; this installation's host is {host or 'no board of the catalogue'}. "
        "Start the board agent on one, or accept emulated figures, which say nothing about its speed.",
        board=board,
        host=host,
    )


def spec_not_fixed(version: str) -> FailedPrecondition:
    """The version has no InputSpec yet."""
    return FailedPrecondition(
        "SPEC_NOT_FIXED",
        f"{version} has no InputSpec yet: declare one at push, or let a recipe import it.",
        version=version,
    )


def boards_differ(boards: Sequence[str]) -> InvalidArgument:
    """Artifacts of several boards cannot be measured side by side."""
    return InvalidArgument(
        "FIELD_INVALID",
        f"the artifacts are for different boards ({', '.join(boards)}); measure each board's by themselves.",
        field="artifacts",
    )


def artifact_incomplete(artifact: str, missing: str) -> FailedPrecondition:
    """The artifact lacks a file that measuring needs."""
    return FailedPrecondition(
        "ARTIFACT_INCOMPLETE",
        f"{artifact} has no {missing}; build it again.",
        artifact=artifact,
        missing=missing,
    )
