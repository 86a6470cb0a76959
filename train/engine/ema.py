"""Weights that follow the trained ones as a moving average. They are what is evaluated."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class ExponentialMovingAverage:
    """A copy of a network. Its values become decay * old + (1 - decay) * new after every step; new after the first.

    Batch norm's statistics are averaged too, as they belong to the weights. Nothing waits for the device; torch's own
    AveragedModel does.

    Args:
        network: The network to copy.
        decay: Share of the old value, 0 to 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = deepcopy(network).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        pairs = list(zip(self.module.state_dict().values(), network.state_dict().values(), strict=True))
        moving = [pair for pair in pairs if pair[0].is_floating_point()]
        share = 1 - self._decay if step else 1.0
        torch._foreach_lerp_([own for own, _ in moving], [new for _, new in moving], share)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)
