"""A network on its device with all that a step needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...shards_manifest.manifest import BandManifest
from .. import networks
from ..augment.mixup import Mixed, Mixing
from ..augment.planes import Inputs, draws
from ..config import TrainPlan
from ..data.stream import Batch
from ..distributed import SINGLE_PROCESS, Ranks
from ..errors import TrainError
from ..recipes import Recipe
from .ema import Average


class Session:
    """One rank's copy of the network, the optimizer and the augmentation.

    network: of which the weights are kept; the ranks' copies are equal after every step.  partners: what is mixed
    with what, of `Epochs.partners`.  Raises TrainError.
    """

    def __init__(
        self,
        manifest: BandManifest,
        plan: TrainPlan,
        ranks: Ranks = SINGLE_PROCESS,
        partners: NDArray[np.int64] | None = None,
    ) -> None:
        recipe = plan.recipe
        torch.manual_seed(plan.seed)
        self.plan, self.recipe, self.ranks = plan, recipe, ranks
        self.device = plan.torch_device(ranks.local_rank)
        self.dtype = plan.dtype(self.device)
        self.inputs = Inputs(manifest, recipe.flip, recipe.random_shift).to(self.device)
        self.network = networks.build(plan.network, manifest.geometry.crop, len(manifest.classes))
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._running: nn.Module = self.network
        if ranks.world_size > 1:
            self._running = nn.parallel.DistributedDataParallel(self.network)
        if plan.compile:
            self._running = torch.compile(self._running)  # type: ignore[assignment]
        self.optimizer = _optimizer(self.network, recipe)
        self.average = Average(self.network, recipe.ema) if recipe.ema else None
        self.mixing = Mixing(plan.seed, recipe.mixup, recipe.cutmix, partners)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated: of the averaged weights where there are any."""
        return self.network if self.average is None else self.average.module

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
        torch.manual_seed(dropout_seed(self.plan.seed, number, self.ranks.rank))
        random = draws(self.plan.seed, number, total)[:, first : first + len(y)].to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        inputs = self.inputs(x, random)
        mixed = self.mixing(inputs, y, number, first, total) if self.mixing else Mixed(inputs, y, None)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        parts = max(min(self.recipe.grad_accum_steps, len(y) // 2), 1)  # batch norm wants two
        for part in range(parts):
            at = slice(part * len(y) // parts, (part + 1) * len(y) // parts)
            with nullcontext() if part == parts - 1 else self._without_sync():
                sums += self._backward(mixed.part(at), y[at], total)
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.follow(self.network, number)
        return sums[0], sums[1]

    def _backward(self, mixed: Mixed, y: torch.Tensor, total: int) -> torch.Tensor:
        """Add to the gradients; the summed loss and the correct answers, float64 (2,). total: the batch's samples."""
        with self.autocast():
            logits = self._running(mixed.x.contiguous(memory_format=torch.channels_last))
            losses = self.criterion(logits, y)
            if mixed.share is not None:
                losses = torch.lerp(self.criterion(logits, mixed.other), losses, mixed.share)
        loss = losses.sum()
        # the ranks' gradients are averaged: those of the sums over all samples have to come out divided by the total
        self.scaler.scale(loss * (self.ranks.world_size / total)).backward()
        return torch.stack([loss.detach().double(), (logits.detach().argmax(1) == y).sum().double()])

    def _without_sync(self) -> AbstractContextManager[object]:
        """For a part of a batch that is not the last: the ranks' gradients are not averaged yet."""
        running = getattr(self._running, "_orig_mod", self._running)  # of torch.compile
        return running.no_sync() if isinstance(running, nn.parallel.DistributedDataParallel) else nullcontext()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, besides the samples."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **({"average": self.average.module.state_dict()} if self.average is not None else {}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises TrainError if it is not of this network."""
        try:
            self.network.load_state_dict(state["network"])
            here = [{name: group.get(name) for name in ("fused", "foreach")} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, flags in zip(self.optimizer.param_groups, here, strict=True):
                group.update(flags)  # of this device, not of the one that it was saved on
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            if self.scaler.is_enabled() and state["scaler"]:  # none of another precision, to be evaluated in this
                self.scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainError(f"the checkpoint does not fit the network ({str(error).splitlines()[0]})") from None


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Of torch's generator for a step: what is dropped is the same after a resume, without a state to keep."""
    return int(np.random.SeedSequence(seed, spawn_key=(3, step, rank)).generate_state(1, np.uint64)[0])


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    fused = parameters[0].is_cuda  # which also tells float16's overflows without waiting for the GPU
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(parameters, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
