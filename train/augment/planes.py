"""Stored coefficients to network inputs, on the training device: crop, flip, dequantise, normalise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from ...shards_manifest.manifest import BandManifest
from ..errors import TrainError

DRAWS = 3  # random numbers a sample: flip, row, column


def draws(seed: int, step: int, batch_size: int) -> torch.Tensor:
    """Return the random numbers that augment the batch of a step: float32 (3, batch_size) in [0, 1).

    They are a pure function, so that the augmentation is the same on every device, for any ranks, and after a resume.

    Args:
        seed: Seed of the run.
        step: The step, counted from 0.
        batch_size: Samples of the batch, over all ranks.
    """
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1, step)))
    raw = bits.random_raw(DRAWS * batch_size) >> np.uint64(40)  # raw output only, which NumPy promises never to change
    return torch.from_numpy((raw.astype(np.float32) * np.float32(2**-24)).reshape(DRAWS, batch_size))


class BandAugmentation(nn.Module):
    """Turns stored coefficients into network inputs, on the device that they are on; augments them in training mode.

    Stored batches are int8 or float16 (N, 3, P, P), inputs float32 (N, 3, C, C), where C = size / s and
    P = (size + margin) / s. A margin is used up by random crops in training mode, and by the centre crop otherwise.

    The horizontal flip of an image is a flip of its plane times (-1)**u for the separable DCT, which is what is done.
    With the 1-D DCT over the phases an image's flip mixes bands, and without a transform it exchanges them: there the
    plane alone is flipped, which keeps the picture's layout but not the order of the phases within it.

    Args:
        manifest: The band.
        flip: Flip half of the samples, in training mode.
        random_shift: Pad planes with so many zero coefficients before the random crop, so that planes without a margin
            can move too.
    """

    step: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, manifest: BandManifest, flip: bool = False, random_shift: int = 0) -> None:
        super().__init__()
        geometry = manifest.geometry
        self.crop = geometry.crop
        self.flip, self.random_shift = flip, random_shift
        odd = geometry.transform == "dct2" and manifest.frequency[1] % 2 == 1
        self.sign = -1.0 if odd else 1.0
        for name, values in (("step", manifest.step), ("mean", manifest.mean), ("std", manifest.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor, random: torch.Tensor | None = None) -> torch.Tensor:
        """Return network inputs: float32 (N, 3, C, C).

        Args:
            x: int8 or float16 (N, 3, P, P).
            random: What training mode draws flips and crops from, float32 (3, N) in [0, 1), as `draws` gives it; by
                default numbers of torch's generator.
        """
        sign: torch.Tensor | float = 1.0
        if self.training:
            random = torch.rand(DRAWS, len(x), device=x.device) if random is None else random
            x = self._random_crop(x, random[1:])
            if self.flip:
                flipped = random[0] < 0.5
                x = torch.where(flipped.view(-1, 1, 1, 1), x.flip(-1), x)
                sign = torch.where(flipped, self.sign, 1.0).view(-1, 1, 1, 1)
        else:
            x = self._centre_crop(x)
        coefficients = x.float() * self.step
        return (coefficients * sign - self.mean) / self.std

    def ten_crops(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield ten network inputs, from the corners and the centre of planes, and of their mirror images.

        Raises:
            TrainError: The planes have no margin.
        """
        room = x.shape[-1] - self.crop
        if not room:
            raise TrainError("--ten-crop needs planes with a margin: split with --margin, or leave it out")
        middle = room // 2
        for top, left in ((0, 0), (0, room), (room, 0), (room, room), (middle, middle)):
            crop = x[..., top : top + self.crop, left : left + self.crop].float() * self.step
            for coefficients in (crop, crop.flip(-1) * self.sign):
                yield (coefficients - self.mean) / self.std

    def _centre_crop(self, x: torch.Tensor) -> torch.Tensor:
        top = (x.shape[-1] - self.crop) // 2
        return x[..., top : top + self.crop, top : top + self.crop]

    def _random_crop(self, x: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
        if self.random_shift:
            x = nn.functional.pad(x, (self.random_shift,) * 4)
        room = x.shape[-1] - self.crop
        if not room:
            return x
        corner = (random * (room + 1)).long()  # 1 - 2**-24 times n rounds below n
        span = torch.arange(self.crop, device=x.device)
        rows = (corner[0, :, None] + span)[:, None, :, None]
        columns = (corner[1, :, None] + span)[:, None, None, :]
        samples = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1)
        channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
        return x[samples, channels, rows, columns]
