"""Run every command of a guide and write its real output below it: `python docs/run.py docs/tour.md`.

A guide's ```console blocks hold commands (`$ …`) and their output. All commands of one guide run in one bash,
in order, in an empty folder of their own; a command that fails when the guide does not say so (`# exit 3` at
its end) stops the run, and the guide stays as it was.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND_SECONDS = 600.0
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPECTED = re.compile(r"# exit (\d+)\s*$")


class Shell:
    """One bash that keeps its folder and variables from command to command."""

    def __init__(self, folder: Path) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "COLUMNS": "110",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }
        self._folder = folder
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
        )
        self.run("set -o pipefail")

    def run(self, command: str) -> tuple[str, int]:
        """Return the command's output and exit status; machine folders are written as the reader has them."""
        assert self._process.stdin and self._process.stdout
        mark = uuid.uuid4().hex
        self._process.stdin.write(f"{command}\nprintf '\\n%s %s\\n' {mark} $?\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith(mark):
                output = "".join(lines).replace(str(self._folder), "~").replace(str(ROOT), "boardwright")
                return output.rstrip("\n"), int(line.split()[1])
            lines.append(line)
        raise SystemExit(f"the shell ended in: {command}")

    def close(self) -> None:
        """End the shell."""
        self._process.terminate()
        self._process.wait(10)


def commands(block: str) -> list[str]:
    """The commands of a block; a line that ends in a backslash goes on, and a here-document to its END."""
    found: list[str] = []
    open_document = False
    for line in block.splitlines():
        if open_document:
            found[-1] += f"\n{line}"
            open_document = line != "END"
        elif line.startswith("$ "):
            found.append(line[2:])
            open_document = "<<'END'" in line
        elif found and found[-1].endswith("\\"):
            found[-1] += f"\n{line}"
    return found


def rewrite(text: str, shell: Shell) -> str:
    """Return the guide with every block's output replaced by what its commands print now."""

    def fill(match: re.Match[str]) -> str:
        lines: list[str] = []
        for command in commands(match.group(1)):
            print("$", command, file=sys.stderr)  # noqa: T201
            output, status = shell.run(command)
            expected = _EXPECTED.search(command)
            if status != (int(expected.group(1)) if expected else 0):
                raise SystemExit(f"exit status {status}:\n{output}")
            lines.append(f"$ {command}")
            lines += [line.rstrip() for line in output.splitlines()]
        return "```console\n" + "\n".join(lines) + "\n```"

    return _BLOCK.sub(fill, text)


def main() -> None:
    """Rewrite the guides named on the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("guides", nargs="+", type=Path)
    parser.add_argument("--link", type=Path, help="a folder whose entries the guides find in theirs")
    options = parser.parse_args()
    for guide in options.guides:
        with tempfile.TemporaryDirectory() as folder:
            for entry in options.link.resolve().iterdir() if options.link else ():
                (Path(folder) / entry.name).symlink_to(entry)
            shell = Shell(Path(folder))
            try:
                guide.write_text(rewrite(guide.read_text(), shell))
            finally:
                shell.run("boardwright down || true")
                shell.close()


if __name__ == "__main__":
    main()
