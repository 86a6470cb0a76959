"""The optimizers that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..recipes import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of a network's parameters, on the device that they are on."""
    parameters = list(network.parameters())
    fused = parameters[0].is_cuda  # which also finds float16's overflows without waiting for the GPU
    return BUILDERS[recipe.optimizer](parameters, recipe, fused)


def _sgd(parameters: list[nn.Parameter], recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def _adamw(parameters: list[nn.Parameter], recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    betas = (recipe.momentum, 0.999)
    return torch.optim.AdamW(parameters, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay, fused=fused)


# one for each of recipes.OPTIMIZERS
BUILDERS: dict[str, Callable[[list[nn.Parameter], Recipe, bool], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}
