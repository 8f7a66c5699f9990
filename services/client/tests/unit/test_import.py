"""The SDK lives in other people's training environments."""

from __future__ import annotations

import subprocess
import sys

_HEAVY = (
    "grpc",
    "torch",
    "onnx",
    "onnxruntime",
    "sqlmodel",
    "PIL",
    "ultralytics",
    "pydantic",
    "rich",
    "typer",
)


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = (
        "import sys; from boardwright.client import Client; "
        f"print([name for name in {_HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
