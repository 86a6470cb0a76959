"""A network on its device with all that a step needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from shards_manifest import BandManifest

from . import networks
from .errors import TrainError
from .inputs import Inputs, draws
from .plan import TrainPlan
from .ranks import ALONE, Ranks
from .reader import Batch


class Session:
    """One rank's copy of the network, the optimizer and the augmentation.

    network: of which the weights are kept; the ranks' copies are equal after every step.  Raises TrainError.
    """

    def __init__(self, manifest: BandManifest, plan: TrainPlan, ranks: Ranks = ALONE) -> None:
        recipe = plan.recipe
        torch.manual_seed(plan.seed)
        self.plan, self.recipe, self.ranks = plan, recipe, ranks
        self.device = plan.torch_device(ranks.local)
        self.dtype = plan.dtype(self.device)
        self.inputs = Inputs(manifest, recipe.flip, recipe.shift).to(self.device)
        self.network = networks.build(plan.network, manifest.geometry.crop, len(manifest.classes))
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._running: nn.Module = self.network
        if ranks.size > 1:
            self._running = nn.parallel.DistributedDataParallel(self.network)
        if plan.compile:
            self._running = torch.compile(self._running)  # type: ignore[assignment]
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="sum")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def on_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch on the device; the copy overlaps with computing where memory is pinned."""
        return batch.x.to(self.device, non_blocking=True), batch.y.to(self.device, non_blocking=True)

    def step(
        self, batch: Batch, number: int, lr: float, first: int = 0, total: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Optimizer step `number`; the summed loss and the correct answers of this rank, left on the device.

        batch: positions `first` and following of a batch of `total` samples over all ranks; 0 for only these.
        """
        x, y = self.on_device(batch)
        total = total or len(y)
        random = draws(self.plan.seed, number, total)[:, first : first + len(y)]
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.autocast():
            inputs = self.inputs(x, random.to(self.device, non_blocking=True))
            logits = self._running(inputs.contiguous(memory_format=torch.channels_last))
            loss = self.criterion(logits, y)
        self.optimizer.zero_grad(set_to_none=True)
        # the ranks' gradients are averaged: those of the sums over all samples have to come out divided by `total`
        self.scaler.scale(loss * (self.ranks.size / total)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, besides the samples."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises TrainError if it is not of this network."""
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainError(f"the checkpoint does not fit the network ({str(error).splitlines()[0]})") from None
