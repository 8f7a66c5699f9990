"""Toolchains whose vendor tool runs only elsewhere: everything up to the command line is here.

They build nothing and pretend nothing. An agent on a machine that has the SDK leases the same step and runs
the line that ``vendor_commands`` gives.
"""

from __future__ import annotations

import shlex

from boardwright.toolchains.errors import ToolchainNeedsAgent
from boardwright.toolchains.port import Availability, BuildRequest, BuiltModel, Session, Toolchain


class AgentToolchain(Toolchain):
    """A toolchain that waits for an agent; subclasses say for which and give the lines."""

    waits_for: str

    def availability(self) -> Availability:
        return Availability(version="", waits_for=self.waits_for)

    def build(self, request: BuildRequest) -> BuiltModel:
        commands = self.vendor_commands(request)
        lines = "\n".join(f"  {shlex.join(command)}" for command in commands)
        raise ToolchainNeedsAgent(
            f"Toolchain {self.name} cannot build for {request.board} here: it waits for {self.waits_for}. "
            f"The agent would run:\n{lines}",
            commands,
        )

    def open(self, built: BuiltModel, threads: int) -> Session:
        raise ToolchainNeedsAgent(
            f"{built.entry} runs only on its board: it waits for {self.waits_for}.", command=()
        )
