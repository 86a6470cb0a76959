"""Stored coefficients to network inputs, on the training device: crop, flip, dequantise, normalise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.spectral.transform import flip_matrix
from ..errors import TrainError
from ..networks import check_inputs
from .compose import BandsToImage, image_moments

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

    Stored batches are int8 or float16 (N, 3, P, P) of one band, and (N, bands, 3, P, P) of several, whose planes become
    channels one band after another. Inputs are float32 (N, 3 * bands, C, C), where C = size / s and
    P = (size + margin) / s. A margin is used up by random crops in training mode, and by the centre crop otherwise.

    The bands of a mirrored image are the mirrored planes of its bands, mixed by `flip_matrix`. So are flips made where
    the bands at hand suffice: always with the separable DCT (a sign for each band), and with the 1-D DCT and without a
    transform if all bands are there. Otherwise planes are only mirrored, which keeps the picture's layout but not the
    order of the phases within it.

    Where all bands of a split are read, samples move by single pixels of the image: their planes are put together to
    the image, which is cropped and split again. Other planes move by whole pixels of their own, which are s times
    larger.

    Args:
        bands: The manifest of the band, or of each band.
        flip: Flip half of the samples, in training mode.
        random_shift: Pad planes with so many zero coefficients before the random crop, so that planes without a margin
            can move too.
        inputs: 'planes' as above, or 'image': inputs are the images that the bands give together, float32
            (N, 3, S, S), where bands that are not here are zero.
        learned: The manifests whose means and deviations the network has learned with, where those are not `bands`.

    Raises:
        TrainError: There are no such inputs, or the bands do not give an image.
    """

    scale: torch.Tensor
    stored_scale: torch.Tensor
    mirrored_scale: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        bands: BandManifest | Sequence[BandManifest],
        flip: bool = False,
        random_shift: int = 0,
        inputs: str = "planes",
        learned: Sequence[BandManifest] | None = None,
    ) -> None:
        super().__init__()
        check_inputs(inputs)
        manifests = [bands] if isinstance(bands, BandManifest) else list(bands)
        geometry = manifests[0].geometry
        self.crop, self.flip, self.random_shift, self.inputs = geometry.crop, flip, random_shift, inputs
        moves = bool(random_shift or geometry.margin)
        complete = 1 < len(manifests) == geometry.factor
        self.compose = BandsToImage(manifests) if inputs == "image" or (complete and moves) else None
        moments = manifests if learned is None else learned
        steps = np.array([each.step for each in manifests])
        means, divisors = (np.array([getattr(each, name) for each in moments]) for name in ("mean", "divisor"))
        if inputs == "image":
            means, divisors = image_moments(moments)
        self._buffer("scale", 1 / divisors)  # of what is in grey levels
        self._buffer("stored_scale", steps / divisors)
        self._buffer("offset", -means / divisors)
        mirror = _mirror(manifests)
        self._mixes = bool(np.any(mirror != np.diag(mirror.diagonal())))
        if self._mixes and inputs == "planes":
            matrix = np.kron(mirror, np.eye(3)) * steps.ravel() / divisors.reshape(-1, 1)
            self.register_buffer("mirrored_scale", torch.tensor(matrix, dtype=torch.float32), persistent=False)
        else:
            self._buffer("mirrored_scale", mirror.diagonal()[:, None] * steps / divisors)

    def _buffer(self, name: str, values: NDArray[np.float64]) -> None:
        """Keep a number for each channel: float32 (channels, 1, 1)."""
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor, random: torch.Tensor | None = None) -> torch.Tensor:
        """Return network inputs: float32 (N, 3 * bands, C, C), or (N, 3, S, S) of images.

        Args:
            x: int8 or float16 (N, 3, P, P) or (N, bands, 3, P, P).
            random: What training mode draws flips and crops from, float32 (3, N) in [0, 1), as `draws` gives it; by
                default numbers of torch's generator.
        """
        x = x.flatten(1, -3)
        if self.training:
            random = torch.rand(DRAWS, len(x), device=x.device) if random is None else random
            return self._augmented(x, random)
        if self.compose is not None and self.inputs == "image":
            return self._normalised(centre_crop(self.compose(x), self.crop * self.compose.grid), self.scale)
        return self._normalised(centre_crop(x, self.crop), self.stored_scale)

    def ten_crops(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield ten network inputs, from the corners and the centre of planes, and of their mirror images.

        Raises:
            TrainError: The planes have no margin.
        """
        x, side = x.flatten(1, -3), self.crop
        whole = self.compose if self.inputs == "image" else None
        if whole is not None:
            x, side = whole(x), side * whole.grid
        room = x.shape[-1] - side
        if not room:
            raise TrainError("--ten-crop needs planes with a margin: split with --margin, or leave it out")
        middle = room // 2
        for top, left in ((0, 0), (0, room), (room, 0), (room, room), (middle, middle)):
            crop = x[..., top : top + side, left : left + side]
            if whole is not None:
                yield self._normalised(crop, self.scale)
                yield self._normalised(crop.flip(-1), self.scale)
            else:
                yield self._normalised(crop, self.stored_scale)
                yield self._mirrored(crop.flip(-1)).add_(self.offset)

    def _augmented(self, x: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
        """Return inputs that are cropped and flipped, as planes or as images.

        What is cropped away is cropped as it is stored, but for less than a pixel of a plane.
        """
        if self.random_shift:
            x = nn.functional.pad(x, (self.random_shift,) * 4)
        side, grid = x.shape[-1], 1 if self.compose is None else self.compose.grid
        corner = (random[1:] * ((side - self.crop) * grid + 1)).long()  # 1 - 2**-24 times n rounds below n
        flipped = random[0] < 0.5 if self.flip else None
        if self.compose is None:
            return self._normalised_planes(crop_and_flip(x, corner, self.crop, flipped), flipped)
        cover = min(self.crop + 1, side)  # planes that hold the crop, wherever in a pixel of theirs it begins
        first = (corner // grid).clamp(max=side - cover)
        image = self.compose(crop_and_flip(x, first, cover))
        image = crop_and_flip(image, corner - first * grid, self.crop * grid, flipped)
        return self._normalised(image if self.inputs == "image" else self.compose.to_bands(image), self.scale)

    def _normalised_planes(self, x: torch.Tensor, flipped: torch.Tensor | None) -> torch.Tensor:
        """Return inputs of planes, some of which are mirrored: of those the bands are mixed, or change their signs."""
        if flipped is None:
            return self._normalised(x, self.stored_scale)
        where = flipped.view(-1, 1, 1, 1)
        if self._mixes:
            return torch.where(where, self._mirrored(x), x * self.stored_scale).add_(self.offset)
        return self._normalised(x, torch.where(where, self.mirrored_scale, self.stored_scale))

    def _normalised(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return (x * scale).add_(self.offset)

    def _mirrored(self, x: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of mirror images, in standard deviations: float32 (N, 3 * bands, H, W).

        Args:
            x: the mirrored planes, as stored.
        """
        if self._mixes:
            return torch.einsum("ck,nkhw->nchw", self.mirrored_scale, x.float())
        return x * self.mirrored_scale


def centre_crop(x: torch.Tensor, side: int) -> torch.Tensor:
    """Return the middle of planes: (N, channels, side, side)."""
    top = (x.shape[-1] - side) // 2
    return x[..., top : top + side, top : top + side]


def crop_and_flip(
    x: torch.Tensor, corner: torch.Tensor, side: int, flipped: torch.Tensor | None = None
) -> torch.Tensor:
    """Return a part of each sample, mirrored or not: (N, channels, side, side).

    Args:
        x: (N, channels, H, H).
        corner: where the parts begin, int64 (2, N): row, column.
        side: of the parts, in pixels.
        flipped: bool (N,), which are mirrored; none by default.
    """
    width = x.shape[-1]
    if flipped is None and width == side:
        return x
    span = torch.arange(side, device=x.device)
    columns = span if flipped is None else torch.where(flipped[:, None], side - 1 - span, span)
    rows, columns = corner[0, :, None] + span, corner[1, :, None] + columns
    places = (rows[:, :, None] * width + columns[:, None, :]).view(len(x), 1, -1)  # one gather is faster than indexing
    return x.flatten(2).gather(2, places.expand(-1, x.shape[1], -1)).view(*x.shape[:2], side, side)


def _mirror(bands: Sequence[BandManifest]) -> NDArray[np.float64]:
    """Return how some bands mix when an image is mirrored: float64 (bands, bands), or as near as they allow."""
    geometry = bands[0].geometry
    matrix = flip_matrix(geometry.transform, geometry.factor)
    here = [band.band for band in bands]
    others = np.delete(matrix[here], here, axis=1)
    return matrix[np.ix_(here, here)] if not others.any() else np.eye(len(here))
