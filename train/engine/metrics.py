"""What is measured of a network: metrics of an evaluation, and totals of an epoch of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import nn

from ..distributed import Ranks

# Sums over a batch, float64 scalars, from logits float32 (n, classes) and labels int64 (n,). All of them are logged.
METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "loss": lambda logits, y: nn.functional.cross_entropy(logits, y, reduction="sum").double(),
    "top1": lambda logits, y: hits(logits, y, 1),
    "top5": lambda logits, y: hits(logits, y, 5),
}


def hits(logits: torch.Tensor, y: torch.Tensor, first: int) -> torch.Tensor:
    """Return how many samples have their class among the first 1 to 5: a float64 scalar."""
    best = logits.topk(min(5, logits.shape[1])).indices[:, :first]
    return (best == y[:, None]).sum().double()


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a part found.

    Attributes:
        values: The mean of every metric of METRICS over the samples.
        lost: Samples that could not be read.
    """

    values: Mapping[str, float]
    lost: int = 0

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return self.values["loss"]

    @property
    def top1(self) -> float:
        """Top-1 accuracy, 0 to 1."""
        return self.values["top1"]

    @property
    def top5(self) -> float:
        """Top-5 accuracy, 0 to 1."""
        return self.values["top5"]


@dataclass
class EpochTotals:
    """What the steps of an epoch added up to so far.

    Attributes:
        loss: Sum of the samples' losses, over all ranks.
        correct: Samples whose class came first.
        lost: Samples that could not be read.
        data_wait: Seconds that this rank spent waiting for batches.
        seconds: Seconds of this rank's steps.
    """

    loss: float = 0.0
    correct: float = 0.0
    lost: float = 0.0
    data_wait: float = 0.0
    seconds: float = 0.0

    def add(self, other: EpochTotals) -> None:
        """Add the totals of some more steps."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


def summed(ranks: Ranks, device: torch.device, values: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Return the sums of scalars over all ranks. This waits for the device."""
    tensors = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in values.values()]
    return dict(zip(values, ranks.all_reduce_sum(torch.stack(tensors)).tolist(), strict=True))
