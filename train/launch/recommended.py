"""What is trained on a split where the user does not say: the form that the study found best (decision 0022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...shards_manifest.manifest import SplitManifest
from ..band_sets import EACH, STACK
from ..networks import NETWORKS, NetworkOptions

CHOICES = ("bands", "inputs", "stem_stride", "width")  # options that say what is trained
BANDS = f"{STACK}x4"
WIDTH = 0.5  # four such networks cost the multiply-adds of one on whole images
INPUTS = "image"


def recommended(
    bands: str | None, network: NetworkOptions, given: Sequence[str], split: SplitManifest
) -> tuple[str, NetworkOptions, str]:
    """Return which bands are read by which networks.

    Args:
        bands: as the user wrote them; None if that was left out.
        network: as the user wrote it.
        given: names of the options on the command line.
        split: what is trained on.

    Returns:
        The bands, the network, and a sentence about what the user did not ask for, or nothing.
    """
    if any(name in given for name in CHOICES) or len(split.bands) < split.geometry.factor or len(split.bands) == 1:
        return bands or EACH, network, ""
    if not NETWORKS[network.name].sized:
        return EACH, network, f"{network.name} has one width: a network for each band, --bands {EACH}"
    note = (
        f"--bands {BANDS} --inputs {INPUTS} --width {WIDTH:g}: four networks for the multiply-adds of one on whole "
        f"images; --bands {EACH} trains one for each band"
    )
    return BANDS, replace(network, inputs=INPUTS, width=WIDTH), note
