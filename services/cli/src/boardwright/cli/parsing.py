"""Options of the form key=value."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def pairs(options: Iterable[str] | None, option: str) -> dict[str, str]:
    """`["a=1", "b=2"]` as a dictionary.

    Raises:
        typer.BadParameter: an entry has no "=".
    """
    held = {}
    for entry in options or ():
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{entry!r} is not key=value", param_hint=option)
        held[key] = value
    return held


def numbers(options: Iterable[str] | None, option: str) -> dict[str, float]:
    """`["top1=0.97"]` as a dictionary of numbers.

    Raises:
        typer.BadParameter: an entry has no "=", or no number behind it.
    """
    held = {}
    for key, value in pairs(options, option).items():
        try:
            held[key] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is not a number", param_hint=option) from None
    return held


def datasets(
    calibration: str | None, evaluation: str | None, more: Iterable[str] | None, training: str | None = None
) -> dict[str, str]:
    """Datasets by role, from the options that name them.

    Raises:
        typer.BadParameter: an entry has no "=".
    """
    held = pairs(more, "--dataset")
    if calibration:
        held["calibration"] = calibration
    if evaluation:
        held["evaluation"] = evaluation
    if training:
        held["training"] = training
    return held
