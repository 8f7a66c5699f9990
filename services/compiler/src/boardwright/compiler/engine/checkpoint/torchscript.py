"""TorchScript archives: no Python in them, but operators that touch files are refused before loading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.compiler.engine.checkpoint.archive import check_archive
from boardwright.compiler.engine.checkpoint.torch_file import LOAD_ERRORS
from boardwright.compiler.engine.errors import CheckpointRefused, CheckpointUnreadable, first_line
from boardwright.compiler.engine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import torch

_CODE_BYTES = 16 << 20
# As torch itself writes them, strings stand in double quotes on one line; other quotes are left to refuse.
_TEXT_OR_COMMENT = re.compile(r'((?<!")"(?:[^"\\\n]|\\.)*"(?!"))|#[^\n]*')
_AROUND_DOTS = re.compile(r"[\s\\]*\.[\s\\]*")
# An operator is "torch.relu" or "ops.library.operator"; behind a dot the same words are a class's name.
_FILE_OPERATORS = re.compile(r"(?<![\w.])(?:torch|ops\.aten|aten)\.(from_file|save|load)\b")
_FOREIGN_OPERATORS = re.compile(r"(?<![\w.])ops\.(?!aten\b|prim\b|quantized\b|torchvision\b)(\w+)\.(\w+)")
# torch and ops under another name, in parentheses or through getattr: these are reserved words, torch renames
# a model's own variables that are called so.
_HIDDEN_OPERATORS = re.compile(r"(?<![\w.])(?:(torch|aten)(?!\.\w|\w)|(ops)(?!\.\w+\.\w|\w))|([\"'])")


def load_torchscript(path: Path, limits: Limits = DEFAULT_LIMITS) -> torch.jit.ScriptModule:
    """Load a TorchScript archive in evaluation mode on the CPU.

    Loading runs ``__setstate__`` methods that the archive defines, so its code is read first.

    Raises:
        CheckpointRefused: its code opens files, or calls operators of a library that is not torch.
        CheckpointTooLarge, CheckpointUnreadable: see ``check_archive``.
    """
    archive = check_archive(path, limits)
    if archive.member("constants.pkl") is None:
        raise CheckpointUnreadable(
            "CHECKPOINT_FORMAT",
            f"{path.name} is not a TorchScript archive. If torch.save wrote it, declare it as "
            "torch-state-dict.",
        )
    for member in archive.members:
        if member.name.startswith("code/") and member.name.endswith(".py"):
            source = archive.read(member.name, _CODE_BYTES).decode("utf-8", errors="replace")
            check_code(source, f"{path.name}/{member.name}")
    import torch

    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except LOAD_ERRORS as error:
        raise CheckpointUnreadable(
            "CHECKPOINT_UNREADABLE",
            f"{path.name} cannot be loaded: {first_line(error)}. Save it again.",
        ) from error


def check_code(source: str, name: str) -> None:
    """Refuse TorchScript source that reaches beyond tensors.

    Judged is every operator that the source names, called or not, whatever stands around its dots.

    Raises:
        CheckpointRefused: it names an operator that opens files or that torch does not define, or hides
            which operator it means (``torch`` under another name) as torch never writes it.
    """
    source = _TEXT_OR_COMMENT.sub(lambda found: " 0 " if found.group(1) else " ", source)
    source = _AROUND_DOTS.sub(".", source)
    found = _FILE_OPERATORS.search(source)
    if found:
        raise CheckpointRefused(
            "CHECKPOINT_REFUSED",
            f"{name} calls torch.{found.group(1)}, which reads or writes files. Nothing of it was run. "
            "Leave file access out of forward() and save the module again.",
        )
    foreign = _FOREIGN_OPERATORS.search(source)
    if foreign:
        raise CheckpointRefused(
            "CHECKPOINT_REFUSED",
            f"{name} calls the operator {foreign.group(1)}.{foreign.group(2)} of another library. "
            "Export the model to ONNX where that library is installed, and push the ONNX file.",
        )
    hidden = _HIDDEN_OPERATORS.search(source)
    if hidden:
        word = next(filter(None, hidden.groups()))
        raise CheckpointRefused(
            "CHECKPOINT_REFUSED",
            f"{name} uses {word} as torch.jit.save never writes it, so its operators cannot be told. Nothing "
            "of it was run. Save the module again with torch.jit.save.",
        )
