"""A network on its device: how it is run, in which precision, and which of its weights are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from ...shards_manifest.manifest import BandManifest
from ..augment.planes import BandAugmentation
from ..config import TrainPlan
from ..distributed import SINGLE_PROCESS, Ranks
from .ema import ExponentialMovingAverage


class Model:
    """One rank's copy of a network. The weights of all copies are equal after every step.

    Args:
        bands: The bands that the network reads, of one split.
        plan: Network, device, precision, seed, and what the recipe says of inputs and averaged weights.
        ranks: The processes that train it together.
        learned: As in `BandAugmentation`.

    Raises:
        TrainError: An unknown network, or a device that is not there.
    """

    def __init__(
        self,
        bands: Sequence[BandManifest],
        plan: TrainPlan,
        ranks: Ranks = SINGLE_PROCESS,
        learned: Sequence[BandManifest] | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.ranks = ranks
        self.device = plan.torch_device(ranks.local_rank)
        self.dtype = plan.dtype(self.device)
        recipe = plan.recipe
        self.augmentation = BandAugmentation(bands, recipe.flip, recipe.random_shift, plan.network.inputs, learned)
        self.augmentation.to(self.device)
        self.network = plan.network.build(plan.network.shape(bands))
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._train_model: nn.Module = self.network
        if ranks.world_size > 1:
            self._train_model = nn.parallel.DistributedDataParallel(self.network)
        if plan.compile:
            self._train_model = torch.compile(self._train_model)  # type: ignore[assignment]
        self.ema = ExponentialMovingAverage(self.network, plan.recipe.ema) if plan.recipe.ema else None

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated: the one with averaged weights if there is one."""
        return self.network if self.ema is None else self.ema.module

    def train(self) -> None:
        """Switch to training mode."""
        self.network.train()
        self.augmentation.train()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, classes) of network inputs float32 (n, 3 * bands, H, W), for training."""
        logits: torch.Tensor = self._train_model(x.contiguous(memory_format=torch.channels_last))
        return logits

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which forward passes have the model's precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def without_sync(self) -> AbstractContextManager[object]:
        """Return a context for a part of a batch that is not the last: gradients stay in this rank."""
        model = getattr(self._train_model, "_orig_mod", self._train_model)  # of torch.compile
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def to_device(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch on the device. The copy overlaps with computing where memory is pinned."""
        return x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, and the averaged ones if there are any."""
        averaged = {} if self.ema is None else {"ema": self.ema.module.state_dict()}
        return {"network": self.network.state_dict(), **averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take weights over. Raises KeyError or RuntimeError if they are not of this network."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
