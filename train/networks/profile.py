"""What a network costs to store, to run and to train, counted without allocating it (--describe)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..recipes import Recipe
from . import InputShape, NetworkOptions

FLOAT = 4  # bytes
MIB = 2**20


@dataclass(frozen=True)
class NetworkProfile:
    """What a network costs.

    Attributes:
        options: the network and its size.
        shape: what it is built for.
        parameters: number of float32 parameters.
        buffers: number of float32 values in buffers, which are batch norm's.
        multiply_adds: of one image's forward pass.
        activations: float32 bytes that a training step keeps of one image for its backward pass.
    """

    options: NetworkOptions
    shape: InputShape
    parameters: int
    buffers: int
    multiply_adds: int
    activations: int

    def training_bytes(self, recipe: Recipe) -> int:
        """Return the peak memory of a training step in float32, in bytes, without what single operations need."""
        moments = 2 if recipe.optimizer == "adamw" else bool(recipe.momentum)
        copies = 2 + moments + bool(recipe.ema)  # weights, gradients, ...
        images = -(-recipe.batch_size // recipe.grad_accum_steps)
        return FLOAT * (copies * self.parameters + self.buffers) + images * self.activations

    def text(self, recipe: Recipe) -> str:
        """Return the profile in lines for a user."""
        parts = f" in {recipe.grad_accum_steps} parts" if recipe.grad_accum_steps > 1 else ""
        size = FLOAT * self.parameters / MIB
        both = FLOAT * (self.parameters + self.buffers) / MIB
        return "\n".join(
            (
                f"{self.options} on {self.shape}",
                f"parameters     {self.parameters:,}",
                f"size           {size:.2f} MiB in float32, {both:.2f} with batch norm's buffers",
                f"multiply-adds  {self.multiply_adds / 1e9:.3f} G an image",
                f"memory         about {self.training_bytes(recipe) / MIB:,.0f} MiB for a training step of "
                f"{recipe.batch_size} images{parts} in float32",
            )
        )

    def to_json(self, recipe: Recipe) -> dict[str, object]:
        """Return the profile as values of JSON."""
        return {
            "network": vars(self.options),
            "inputs": vars(self.shape),
            "parameters": self.parameters,
            "buffers": self.buffers,
            "multiply_adds": self.multiply_adds,
            "training_bytes": self.training_bytes(recipe),
        }


@lru_cache(maxsize=512)  # building a network takes a while, and choosing one asks for many
def multiply_adds(options: NetworkOptions, shape: InputShape) -> int:
    """Return the multiply-adds of one image's forward pass.

    Raises:
        TrainError: if there is no such network.
    """
    with torch.device("meta"):
        return _multiply_adds(options.build(shape), _images(shape))


def _images(shape: InputShape) -> torch.Tensor:
    return torch.empty(2, shape.channels, shape.plane, shape.plane)  # batch norm wants two


def _multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        network.eval()(images)
    return int(counter.get_total_flops()) // (2 * len(images))  # two for each multiply-add


def describe(options: NetworkOptions, shape: InputShape) -> NetworkProfile:
    """Return the profile of a network for inputs (N, channels, plane, plane).

    Raises:
        TrainError: if there is no such network.
    """
    with torch.device("meta"):
        network, images = options.build(shape), _images(shape)
    counted = _multiply_adds(network, images)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()  # shared by a tensor and what was done to it in place
        kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    values = [*network.parameters(), *network.buffers()]
    of_network = {id(tensor.untyped_storage()) for tensor in values}
    return NetworkProfile(
        options=options,
        shape=shape,
        parameters=sum(tensor.numel() for tensor in network.parameters()),
        buffers=sum(tensor.numel() for tensor in network.buffers() if tensor.dtype == torch.float32),
        multiply_adds=counted,
        activations=sum(storage.nbytes() for key, storage in kept.items() if key not in of_network) // 2,
    )
