"""Which networks to train on a split for a given cost (--budget): all from the manifests, nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..band_sets import STACK
from ..errors import TrainError
from ..networks import NETWORKS, STEM_STRIDES, InputShape, NetworkOptions
from ..networks.profile import MIB, describe, multiply_adds
from ..recipes import Recipe

MEMBERS = 4  # for each whole network of the budget: the only number that the study has tried (docs/results.md)
NEARLY_ALL = 0.995  # share of the energy that a smaller set of bands has to hold
CLOSE = 1.05  # times the budget that a slightly smaller width brings below it
WIDTHS = tuple(step / 20 for step in range(40, 0, -1))  # 2 to 0.05


@dataclass(frozen=True)
class Suggestion:
    """Networks that fit a budget.

    Attributes:
        bands: as --bands takes it.
        energy: share of the coefficients' variance that the bands hold, 0 to 1.
        networks: how many there are.
        options: each of them.
        cost: of training all of them, as a multiple of the network of whole images.
        epoch_bytes: that an epoch of all of them reads.
        step_bytes: memory of a training step of one of them, in float32.
    """

    bands: str
    energy: float
    networks: int
    options: NetworkOptions
    cost: float
    epoch_bytes: int
    step_bytes: int


def whole_image(bands: Sequence[BandManifest]) -> InputShape:
    """Return the shape of the network of whole images that budgets are measured by."""
    return InputShape(bands[0].geometry.size, len(bands[0].classes))


def energies(bands: Sequence[BandManifest]) -> list[float]:
    """Return the share of each band in the variance of all their coefficients."""
    each = [sum(band.variance) for band in bands]
    return [value / sum(each) for value in each]


def strongest(bands: Sequence[BandManifest], share: float) -> list[int]:
    """Return the places of the fewest bands that hold a share of the energy, in ascending order."""
    shares = energies(bands)
    chosen: list[int] = []
    for place in sorted(range(len(bands)), key=lambda place: -shares[place]):
        chosen.append(place)
        if sum(shares[each] for each in chosen) >= share:
            break
    return sorted(chosen)


def suggestions(
    bands: Sequence[BandManifest], network: str, recipe: Recipe, trained: float, budget: float
) -> list[Suggestion]:
    """Return networks on the planes of all bands, on those of the fewest with nearly all of the energy, and on images.

    Args:
        bands: all bands of a split.
        network: one of networks.NETWORKS; its size is chosen here.
        recipe: how they are trained, for their memory.
        trained: share of the samples that members are trained on, as some are kept as a holdout; 0 to 1.
        budget: multiply-adds of training all of them, as a multiple of one network on whole images.

    Returns:
        Those that fit the budget, one or more.

    Raises:
        TrainError: if it is too small for any.
    """
    every, few = list(range(len(bands))), strongest(bands, NEARLY_ALL)
    kinds = [(every, "planes"), *([(few, "planes")] if few != every else []), (every, "image")]
    found, cheapest = [], math.inf
    for places, inputs in kinds:
        chosen = [bands[place] for place in places]
        count, options, cost = _fit(chosen, NetworkOptions(network, inputs=inputs), trained, budget)
        cheapest = min(cheapest, cost)
        if not count:
            continue
        name = STACK if len(chosen) == len(bands) else "+".join(str(band.band) for band in chosen)
        stored = sum(shard.bytes for band in chosen for shard in band.parts["train"].shards)
        found.append(
            Suggestion(
                bands=name + (f"x{count}" if count > 1 else ""),
                energy=sum(energies(bands)[place] for place in places),
                networks=count,
                options=options,
                cost=count * cost,
                epoch_bytes=count * stored,
                step_bytes=describe(options, options.shape(chosen)).training_bytes(recipe),
            )
        )
    if not found:
        raise TrainError(
            f"--budget {budget:g} is too small: the cheapest {network} on these planes costs {cheapest:.3g}"
        )
    return found


def _fit(
    bands: Sequence[BandManifest], network: NetworkOptions, trained: float, budget: float
) -> tuple[int, NetworkOptions, float]:
    """Return how many networks fit, of which size, and what one of them costs."""
    base = multiply_adds(NetworkOptions(network.name), whole_image(bands))

    def cost(options: NetworkOptions) -> float:
        return trained * multiply_adds(options, options.shape(bands)) / base

    wanted, sized = max(round(MEMBERS * budget), 1), NETWORKS[network.name].sized
    options = network
    if sized and network.inputs == "planes":  # on an image a network keeps its own stem, and gets narrower
        stems = [replace(network, stem_stride=stride) for stride in STEM_STRIDES]
        stems = [network if cost(each) == cost(network) else each for each in stems]  # its own needs no option
        options = next((each for each in stems if wanted * cost(each) <= CLOSE * budget), stems[-1])
    count = min(max(_times(budget, cost(options)), wanted), 2 * wanted)
    if sized:
        wide = 2.0 if count == 2 * wanted else 1.0  # where there would be very many, wider ones
        widths = (replace(options, width=width) for width in WIDTHS if width <= wide)
        options = next((each for each in widths if count * cost(each) <= budget), options)
    each = cost(options)
    return min(count, _times(budget, each)), options, each


def _times(budget: float, cost: float) -> int:
    """Return how often a cost fits into a budget."""
    return int(budget / cost + 1e-9)


def text(shards: str, bands: Sequence[BandManifest], found: Sequence[Suggestion], budget: float) -> str:
    """Return suggestions in lines for a user: what each costs, and the command that trains it."""
    name, side = found[0].options.name, bands[0].geometry.size
    lines = [
        f"{name} for {budget:g} times the multiply-adds of one on whole images of {side}x{side}:",
        "networks   cost   energy   bytes an epoch   memory of a step",
    ]
    for each in found:
        options, size = each.options, ""
        size += f" --inputs {options.inputs}" if options.inputs != "planes" else ""
        size += f" --stem-stride {options.stem_stride}" if options.stem_stride else ""
        size += f" --width {options.width:g}" if options.width != 1 else ""
        lines += [
            f"{each.networks:8d}   {each.cost:4.2g}  {each.energy:7.2%}   {human_bytes(each.epoch_bytes):>14}"
            f"   {each.step_bytes / MIB:12,.0f} MiB",
            f"    spectral-train --shards {shards} --network {name} --bands {each.bands}{size}",
        ]
    return "\n".join(lines)
