"""Generate the Python code beside the protos; run by `make proto` in an environment of its own.

Usage: python proto/generate.py
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent / "src"


def main() -> int:
    """Run protoc over every proto; returns its exit status."""
    protos = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{well_known}",
            f"--python_out={ROOT}",
            f"--grpc_python_out={ROOT}",
            f"--mypy_out=quiet:{ROOT}",
            f"--mypy_grpc_out=quiet:{ROOT}",
            *protos,
        ]
    )
    for folder in {(ROOT / proto).parent for proto in protos}:
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
    for proto in protos:
        # A proto without a service gets empty gRPC stubs; they only mislead.
        if "\nservice " not in (ROOT / proto).read_text():
            for leftover in ROOT.glob(f"{proto.removesuffix('.proto')}_pb2_grpc.py*"):
                leftover.unlink()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
