"""Puts stored bands together to images on the training device: the inverse transform, of all bands or of some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.spectral.transform import compose_matrix
from ..networks import composed_grid


class BandsToImage(nn.Module):
    """Puts bands together to images, as if those that are not here were zero.

    Args:
        bands: The manifest of each band.

    Attributes:
        grid: How many times larger than a plane an image is, on a side.
    """

    weight: torch.Tensor
    inverse: torch.Tensor

    def __init__(self, bands: Sequence[BandManifest]) -> None:
        super().__init__()
        geometry = bands[0].geometry
        self.grid = composed_grid(bands)
        matrix = compose_matrix(geometry.transform, geometry.factor, [band.band for band in bands])
        steps = np.array([band.step for band in bands])
        weight = torch.tensor(matrix[:, :, None] * steps, dtype=torch.float32)  # (grid * grid, bands, 3)
        self.register_buffer("weight", weight, persistent=False)
        inverse = torch.tensor(np.linalg.pinv(matrix).T, dtype=torch.float32)  # (grid * grid, bands)
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return images, centred on mid-grey, in grey levels: float32 (N, 3, P * grid, P * grid).

        Args:
            x: (N, 3 * bands, P, P), as stored.
        """
        count, channels, height, width = x.shape
        planes = x.float().reshape(count, channels // 3, 3, height, width)
        phases = torch.einsum("kbc,nbchw->nckhw", self.weight, planes)
        return nn.functional.pixel_shuffle(phases.flatten(1, 2), self.grid)

    def to_bands(self, images: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of images, in grey levels: float32 (N, 3 * bands, side / grid, side / grid).

        Args:
            images: float32 (N, 3, side, side), centred on mid-grey, in grey levels.
        """
        phases = nn.functional.pixel_unshuffle(images, self.grid)
        count, _, height, width = phases.shape
        phases = phases.reshape(count, 3, self.grid**2, height, width)
        return torch.einsum("kb,nckhw->nbchw", self.inverse, phases).flatten(1, 2)


def image_moments(bands: Sequence[BandManifest]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of the images of some bands, and what they are divided by, for each channel: two (3,).

    That is the standard deviation, but at least that of images whose coefficients all deviate by half a step
    (docs/decisions/0027). The columns of the matrix are orthogonal, so the mean square of pixels is a sum over bands.
    """
    geometry, here = bands[0].geometry, [band.band for band in bands]
    matrix = compose_matrix(geometry.transform, geometry.factor, here)
    means, variances, steps = (
        np.array([getattr(band, name) for band in bands]) for name in ("mean", "variance", "step")
    )
    mean, squares = matrix.mean(axis=0) @ means, (matrix**2).mean(axis=0)
    variance = squares @ (means**2 + variances) - mean**2
    return mean, np.sqrt(np.maximum(variance, squares @ (steps / 2) ** 2))
