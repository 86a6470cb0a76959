"""What is trained on a split where the user does not say: the form that the study found best (decision 0022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...shards_manifest.manifest import SplitManifest
from ..band_sets import EACH, STACK
from ..networks import IMAGE, NETWORKS, PLANES, NetworkOptions

CHOICES = ("bands", "inputs", "stem_stride", "width")  # options that say what is trained
TWICE = f"{STACK}x2"
HALF = 0.5  # on the image a network half as wide costs what it costs on planes, a quarter of one on whole images


def recommended(
    bands: str | None, network: NetworkOptions, given: Sequence[str], split: SplitManifest
) -> tuple[list[tuple[str, NetworkOptions]], str]:
    """Return which bands are read by which networks.

    Args:
        bands: as the user wrote them; None if that was left out.
        network: as the user wrote it.
        given: names of the options on the command line.
        split: what is trained on.

    Returns:
        Bands, as parse_band_sets takes them, with the network that reads them; and a sentence about what the user did
        not ask for, or nothing.
    """
    if any(name in given for name in CHOICES) or not 1 < len(split.bands) == split.geometry.factor:
        return [(bands or EACH, network)], ""
    if not NETWORKS[network.name].sized:
        return [(EACH, network)], f"{network.name} has one width: one network for each band (--bands {EACH})"
    kinds = [(TWICE, replace(network, inputs=PLANES)), (TWICE, replace(network, inputs=IMAGE, width=HALF))]
    note = (
        f"two networks on the planes of all bands (--bands {TWICE}) and two half as wide on their image "
        f"(--bands {TWICE} --inputs {IMAGE} --width {HALF:g}); --bands {EACH} trains one for each band"
    )
    return kinds, note
