"""An average of the weights over the steps of training."""

from __future__ import annotations

from typing import Any

import torch


class Average:
    """An exponential moving average of the floating-point state; it forgets its start in the first steps."""

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self.count = 0
        self.state = copied_state(network)

    def update(self, network: torch.nn.Module) -> None:
        """Take in the network as it is after a step."""
        self.count += 1
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    self.state[name].lerp_(value, 1 - decay)
                else:
                    self.state[name].copy_(value)

    def store(self, network: torch.nn.Module) -> None:
        """Give the network the average."""
        network.load_state_dict(self.state)


def copied_state(network: torch.nn.Module) -> dict[str, Any]:
    """Return a copy of the network's weights and buffers that training leaves alone."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
