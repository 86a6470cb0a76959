"""Which networks to train on a split for a given cost (--budget), and by default: all from the manifests.

The form that the study found best, two kinds of networks with at most half of the cost for each, is the first that is
suggested (docs/decisions/0022-default-networks.md).
"""

from __future__ import annotations

import math
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..band_sets import MOST_REPEATS, STACK
from ..errors import TrainError
from ..networks import IMAGE, NETWORKS, PLANES, STEM_STRIDES, InputShape, NetworkOptions, gives_image
from ..networks.profile import MIB, describe, multiply_adds
from ..recipes import Recipe

MEMBERS = 4  # for each whole network of the budget: the only number that the study has tried (docs/results.md)
NEARLY_ALL = 0.995  # share of the energy that a smaller set of bands has to hold
MORE = 2  # times as many members where each is cheap
CLOSE = 2.1  # times the budget that a width of 0.7 brings below it; a coarser stem is for what costs more
DEFAULT_BUDGET = 1.0
WIDTHS = tuple(step / 100 for step in range(200, 4, -1))  # 2 to 0.05


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

    @property
    def command_options(self) -> str:
        """The options of spectral-train that ask for them, but for the network's name."""
        return f"--bands {self.bands} {self.options.size_options}".rstrip()

    def command(self, shards: str, more: str) -> str:
        """Return the command that trains them on a split, with more options."""
        words = ["spectral train --shards", shlex.quote(shards), "--network", self.options.name, self.command_options]
        return " ".join((*words, more) if more else words)

    def to_json(self, shards: str, more: str) -> dict[str, object]:
        """Return it as values of JSON, with its command."""
        return {**vars(self), "options": vars(self.options), "command": self.command(shards, more)}


def whole_image(bands: Sequence[BandManifest]) -> InputShape:
    """Return the shape of the network of whole images that budgets are measured by."""
    return InputShape(bands[0].geometry.size, len(bands[0].classes))


def energies(bands: Sequence[BandManifest]) -> list[float]:
    """Return the share of each band in the variance of all their coefficients."""
    each = [sum(band.variance) for band in bands]
    return [value / sum(each) for value in each] if sum(each) else [1 / len(each)] * len(each)


def strongest(bands: Sequence[BandManifest], share: float) -> list[int]:
    """Return the places of the fewest bands that hold a share of the energy, in ascending order."""
    shares = energies(bands)
    chosen: list[int] = []
    for place in sorted(range(len(bands)), key=lambda place: -shares[place]):
        chosen.append(place)
        if sum(shares[each] for each in chosen) >= share:
            break
    return sorted(chosen)


@dataclass(frozen=True)
class Cost:
    """What a choice of networks may cost.

    Attributes:
        network: one of networks.NETWORKS; its size is chosen here.
        recipe: how they are trained, for their memory.
        trained: share of the samples that members are trained on, as some are kept as a holdout; 0 to 1.
    """

    network: str
    recipe: Recipe
    trained: float


def suggestions(bands: Sequence[BandManifest], cost: Cost, budget: float) -> list[tuple[Suggestion, ...]]:
    """Return ways to spend a budget, the default one first.

    Args:
        bands: all bands of a split.
        cost: what networks they are.
        budget: multiply-adds of training all of them, as a multiple of one network on whole images.

    Returns:
        Those that fit the budget, one or more: two kinds of networks, on the planes of all bands and on their image; or
        one kind: on the planes of all, on those of the fewest with nearly all of the energy, or on the image.

    Raises:
        TrainError: if it is too small for any.
    """
    every, few = list(range(len(bands))), strongest(bands, NEARLY_ALL)
    kinds = [(every, PLANES), *([(few, PLANES)] if few != every else [])]
    kinds += [(every, IMAGE)] if gives_image(bands) else []
    alone = [each for kind in kinds if (each := _suggestion(bands, *kind, cost, budget))]
    if not alone:
        cheapest = min(
            _fit([bands[place] for place in places], _network(cost, inputs), cost, budget)[2]
            for places, inputs in kinds
        )
        least = _rounded_up(cheapest)
        raise TrainError(f"--budget {budget:g} is too small for {cost.network} on these planes: choose {least} or more")
    both = two_kinds(bands, cost, budget)
    return [*([both] if both else []), *((each,) for each in alone)]


def two_kinds(bands: Sequence[BandManifest], cost: Cost, budget: float) -> tuple[Suggestion, ...]:
    """Return networks on the planes of all bands, and on their image, for half of a budget each.

    Args:
        bands: all bands of a split.
        cost: what networks they are.
        budget: as for `suggestions`.

    Returns:
        Both, two of each kind for a budget of 1; nothing if half of the budget is too small for either, or the bands do
        not give an image.
    """
    if not gives_image(bands):
        return ()
    every = list(range(len(bands)))
    found = [_suggestion(bands, every, inputs, cost, budget / 2, most=1) for inputs in (PLANES, IMAGE)]
    return tuple(each for each in found if each) if all(found) else ()


def _network(cost: Cost, inputs: str) -> NetworkOptions:
    return NetworkOptions(cost.network, inputs=inputs)


def _suggestion(
    bands: Sequence[BandManifest], places: Sequence[int], inputs: str, cost: Cost, budget: float, most: int = MORE
) -> Suggestion | None:
    """Return networks of one kind on some of the bands; None if the budget is too small for one."""
    chosen = [bands[place] for place in places]
    count, options, each = _fit(chosen, _network(cost, inputs), cost, budget, most)
    if not count:
        return None
    name = STACK if len(chosen) == len(bands) else "+".join(str(band.band) for band in chosen)
    stored = sum(shard.bytes for band in chosen for shard in band.parts["train"].shards)
    return Suggestion(
        bands=name + (f"x{count}" if count > 1 else ""),
        energy=sum(energies(bands)[place] for place in places),
        networks=count,
        options=options,
        cost=count * each,
        epoch_bytes=count * stored,
        step_bytes=describe(options, options.shape(chosen)).training_bytes(cost.recipe),
    )


def _fit(
    bands: Sequence[BandManifest], network: NetworkOptions, of: Cost, budget: float, most: int = MORE
) -> tuple[int, NetworkOptions, float]:
    """Return how many networks fit, of which size, and what one of them costs; 0 and the least size if none fits.

    Where each is cheap there are more, `most` times the usual number at most, and then they are wider.
    """
    base = multiply_adds(NetworkOptions(network.name), whole_image(bands))

    def cost(options: NetworkOptions) -> float:
        return of.trained * multiply_adds(options, options.shape(bands)) / base

    wanted, sized = max(round(min(MEMBERS * budget, MOST_REPEATS)), 1), NETWORKS[network.name].sized
    options = network
    if sized and network.inputs == PLANES:  # on an image a network keeps its own stem, and gets narrower
        stems = [replace(network, stem_stride=stride) for stride in STEM_STRIDES]
        stems = [network if cost(each) == cost(network) else each for each in stems]  # its own needs no option
        options = next((each for each in stems if wanted * cost(each) <= CLOSE * budget), stems[-1])
    count = min(max(_times(budget, cost(options)), wanted), most * wanted)
    if sized:
        widths = [replace(options, width=width) for width in WIDTHS]
        place = bisect_left(widths, True, key=lambda each: count * cost(each) <= budget)  # they get cheaper
        options = widths[min(place, len(widths) - 1)]
    each = cost(options)
    return min(count, _times(budget, each)), options, each


def _rounded_up(value: float) -> str:
    """Return a positive number with three digits, that is not less."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit) * unit:.3g}"


def _times(budget: float, cost: float) -> int:
    """Return how often a cost fits into a budget, MOST_REPEATS at most."""
    return int(min(budget / cost + 1e-9, MOST_REPEATS))


def text(
    shards: str, more: str, bands: Sequence[BandManifest], found: Sequence[Sequence[Suggestion]], budget: float
) -> str:
    """Return suggestions in lines for a user: what each costs, and the commands, with more options, that train it."""
    name, side = found[0][0].options.name, bands[0].geometry.size
    base = multiply_adds(NetworkOptions(name), whole_image(bands))
    lines = [
        f"{name} for {budget:g} times the multiply-adds of one on whole images of {side}x{side} "
        f"({base / 1e9:.3f} G an image):",
        "networks   cost   energy   bytes an epoch   memory of a step",
    ]
    for way in found:
        if len(way) > 1:
            default = budget == DEFAULT_BUDGET and len(bands) == bands[0].geometry.factor
            lines.append(f"two kinds of networks{', the default:' if default else ':'}")
        for each in way:
            lines += [
                f"{each.networks:8d}   {each.cost:4.2g}  {each.energy:7.2%}   {human_bytes(each.epoch_bytes):>14}"
                f"   {each.step_bytes / MIB:12,.0f} MiB",
                f"    {each.command(shards, more)}",
            ]
        if len(way) > 1:
            lines.append("or one kind:")
    return "\n".join(lines)
