"""Which networks read which bands: `--bands 0+1+6,0x2` as values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..shards_manifest.errors import did_you_mean
from ..shards_manifest.manifest import band_folder
from .errors import TrainError
from .networks import PLANES

EACH = "all"  # one network for each band
STACK = "stack"  # one network with all bands as channels
GRAMMAR = "write as in 0-3,7 (a network each), 0+1+6 or 0..3 (one network), stack (with all), 0+1x3 (three networks)"
NUMBER = r"\d{1,18}"
RANGE = re.compile(rf"({NUMBER})-({NUMBER})")
SUM = re.compile(rf"(stack|{NUMBER}(?:\.\.{NUMBER})?(?:\+{NUMBER}(?:\.\.{NUMBER})?)*)(?:x({NUMBER}))?")
MOST_REPEATS = 1000


@dataclass(frozen=True)
class BandSet:
    """The bands that one network reads.

    Attributes:
        bands: their numbers, ascending.
        repeat: how many networks before this one read the same bands; each has a seed of its own.
        inputs: one of networks.INPUTS: what the network sees of them.
    """

    bands: tuple[int, ...]
    repeat: int = 0
    inputs: str = PLANES

    @property
    def name(self) -> str:
        """The name of its run folder: 00+01+06, 00+01+06x2 for the second network on these bands, 00+01+06-image."""
        again = f"x{self.repeat + 1}" if self.repeat else ""
        return "+".join(map(band_folder, self.bands)) + ("" if self.inputs == PLANES else f"-{self.inputs}") + again


def parse_band_sets(text: str, available: Sequence[int], inputs: str = PLANES) -> list[BandSet]:
    """Return the networks that a text asks for, each once.

    Items are separated by commas. `7` is a network on band 7, `0-3` are four networks, `0+1+6` and `0..3` are one
    network each, with the planes of its bands as channels; `stack` is one with all bands. x3 at the end of such an
    item asks for three networks that differ in their seeds. `all` is a network for each band.

    Args:
        text: what the user wrote.
        available: the numbers of the bands that there are.
        inputs: one of networks.INPUTS: what all these networks see of their bands.

    Raises:
        TrainError: if it cannot be read, names a band that is not there, or names networks twice.
    """
    if text.strip() == EACH:
        return [BandSet((band,), 0, inputs) for band in available]
    found: list[BandSet] = []
    for item in text.split(","):
        for bands, repeats in _parse_item(text, item.strip(), available):
            found += [BandSet(bands, repeat, inputs) for repeat in range(repeats)]
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        again = "+".join(map(str, found[names.index(twice[0])].bands))
        raise TrainError(f"--bands {text} names {twice[0]} twice: write {again}x2 for two")
    return found


def _parse_item(text: str, item: str, available: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
    """Return the bands and the number of networks that one item asks for."""
    if several := RANGE.fullmatch(item):
        return [((band,), 1) for band in _range(text, several[1], several[2], available)]
    if one := SUM.fullmatch(item):
        bands: list[int] = []
        for piece in one[1].split("+") if one[1] != STACK else map(str, available):
            low, _, high = piece.partition("..")
            bands += _range(text, low, high or low, available)
        repeats = int(one[2] or 1)
        if repeats > MOST_REPEATS:
            raise TrainError(
                f"--bands {text}: {item} is more networks than one item gives: write x{MOST_REPEATS} at most"
            )
        if bands and len(set(bands)) == len(bands) and repeats:
            return [(tuple(sorted(bands)), repeats)]
    elif item == EACH:
        raise TrainError(f"--bands {text}: {EACH} stands alone: beside others, write numbers, as in 0-3")
    raise TrainError(f"--bands {text}: {item!r} is not understood: {GRAMMAR}{did_you_mean(item, (EACH, STACK))}")


def _range(text: str, first: str, last: str, available: Sequence[int]) -> range:
    """Return the bands from one to another, in little memory. Raises TrainError if one is not there, or none is."""
    bands = range(int(first), int(last) + 1)
    if not bands:
        raise TrainError(f"--bands {text}: from {first} to {last} there is no band: write the lower number first")
    missing = next((band for band in bands if band not in available), None)
    if missing is not None:
        there = ", ".join(map(str, available))
        raise TrainError(f"--bands {text}: there is no band {missing}: choose from {there}")
    return bands
