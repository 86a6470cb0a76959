"""One step of the optimizer: augment, mix, forward, backward, clip, step, average."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..augment.mixup import Mixed, Mixing
from ..augment.planes import draws
from ..errors import TrainError
from ..recipes import Recipe
from .model import Model
from .optimizers import build_optimizer


class TrainStep:
    """The optimizer of a model, with all that a step needs.

    Args:
        model: The network on its device.
        recipe: How it is trained.
        seed: Seed of the augmentation, of mixing and of dropout.
        partners: int64 (batch size,), the position that each position of a batch is mixed with
            (`EpochSampler.partners`); neighbours by default.
    """

    def __init__(self, model: Model, recipe: Recipe, seed: int = 0, partners: NDArray[np.int64] | None = None) -> None:
        self.model, self._recipe, self._seed = model, recipe, seed
        self.optimizer = build_optimizer(model.network, recipe)
        self._mixing = Mixing(seed, recipe.mixup, recipe.cutmix, partners)
        self._criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing, reduction="none")
        self._scaler = torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def __call__(
        self, x: torch.Tensor, y: torch.Tensor, number: int, lr: float, first: int = 0, total: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Do one step.

        Args:
            x: int8 or float16 (n, 3, P, P) or (n, bands, 3, P, P), the stored coefficients of this rank's samples.
            y: int64 (n,), their classes.
            number: The step, counted from 0 over the run.
            lr: Learning rate.
            first: The position of the first sample in the batch of all ranks.
            total: Samples of the batch of all ranks; 0 if these are all.

        Returns:
            The sum of the samples' losses and the count of correct answers in this rank: float64 scalars on the device.
        """
        model, total = self.model, total or len(y)
        x, y = model.to_device(x, y)
        torch.manual_seed(dropout_seed(self._seed, number, model.ranks.rank))
        random = draws(self._seed, number, total)[:, first : first + len(y)].to(model.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        inputs = model.augmentation(x, random)
        mixed = self._mixing(inputs, y, number, first, total) if self._mixing else Mixed(inputs, y, None)
        sums = torch.zeros(2, dtype=torch.float64, device=model.device)
        parts = max(min(self._recipe.grad_accum_steps, len(y) // 2), 1)  # batch norm wants two
        for part in range(parts):
            at = slice(part * len(y) // parts, (part + 1) * len(y) // parts)
            with nullcontext() if part == parts - 1 else model.without_sync():
                sums += self._backward(mixed.part(at), y[at], total)
        if self._recipe.clip_grad:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(model.network.parameters(), self._recipe.clip_grad)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if model.ema is not None:
            model.ema.update(model.network, number)
        return sums[0], sums[1]

    def _backward(self, mixed: Mixed, y: torch.Tensor, total: int) -> torch.Tensor:
        """Add to the gradients. Returns the summed loss and the correct answers: float64 (2,)."""
        with self.model.autocast():
            logits = self.model(mixed.x)
            losses = self._criterion(logits, y)
            if mixed.share is not None:
                losses = torch.lerp(self._criterion(logits, mixed.other), losses, mixed.share)
        loss = losses.sum()
        # the ranks' gradients are averaged: the sums over all samples have to come out divided by the total
        self._scaler.scale(loss * (self.model.ranks.world_size / total)).backward()
        return torch.stack([loss.detach().double(), (logits.detach().argmax(1) == y).sum().double()])

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, besides the samples."""
        return {
            **self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises TrainError if it is not of this network."""
        try:
            self.model.load_state_dict(state)
            here = [{name: group.get(name) for name in ("fused", "foreach")} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, flags in zip(self.optimizer.param_groups, here, strict=True):
                group.update(flags)  # of this device, not of the one that it was saved on
            if self._scaler.is_enabled() and state["scaler"]:  # a run in another precision saved none
                self._scaler.load_state_dict(state["scaler"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainError(f"the checkpoint does not fit the network ({str(error).splitlines()[0]})") from None


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of torch's generator for a step: after a resume the same is dropped, with no state to keep."""
    return int(np.random.SeedSequence(seed, spawn_key=(3, step, rank)).generate_state(1, np.uint64)[0])
