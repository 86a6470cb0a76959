"""Which networks to train on a split for a given cost (--budget): all from the manifests, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..band_sets import STACK
from ..errors import TrainError
from ..networks import NETWORKS, STEM_STRIDES, InputShape, NetworkOptions
from ..networks.profile import MIB, describe, multiply_adds
from ..recipes import Recipe

# Members of a quarter of the cost each were the best use of one whole network's (docs/results.md, The study).
MEMBERS = 4  # for each whole network of the budget
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
    each = [sum(std**2 for std in band.std) for band in bands]
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
    bands: Sequence[BandManifest], network: NetworkOptions, recipe: Recipe, trained: float, budget: float
) -> list[Suggestion]:
    """Return networks that read all bands, and ones that read the fewest bands with nearly all of the energy.

    Args:
        bands: all bands of a split.
        network: the kind of network; its size is chosen here.
        recipe: how they are trained, for their memory.
        trained: share of the samples that members are trained on, as some are kept as a holdout; 0 to 1.
        budget: multiply-adds of training all of them, as a multiple of one network on whole images.

    Raises:
        TrainError: if the budget is too small for any.
    """
    found = []
    few = strongest(bands, NEARLY_ALL)
    for places in [list(range(len(bands)))] + ([few] if len(few) < len(bands) else []):
        chosen = [bands[place] for place in places]
        count, options, cost = _fit(chosen, network, trained, budget)
        name = STACK if len(chosen) == len(bands) else "+".join(str(band.band) for band in chosen)
        stored = sum(shard.bytes for band in chosen for shard in band.parts["train"].shards)
        found.append(
            Suggestion(
                bands=name + (f"x{count}" if count > 1 else ""),
                energy=sum(energies(bands)[place] for place in places),
                networks=count,
                options=options,
                cost=cost,
                epoch_bytes=count * stored,
                step_bytes=describe(options, options.shape(chosen)).training_bytes(recipe),
            )
        )
    return found


def _fit(
    bands: Sequence[BandManifest], network: NetworkOptions, trained: float, budget: float
) -> tuple[int, NetworkOptions, float]:
    """Return how many networks fit, of which size, and what they cost together."""
    base = multiply_adds(NetworkOptions(network.name), whole_image(bands))

    def cost(options: NetworkOptions) -> float:
        return trained * multiply_adds(options, options.shape(bands)) / base

    wanted = max(round(MEMBERS * budget), 1)
    plain = NetworkOptions(network.name, inputs=network.inputs)
    sizes = [replace(plain, stem_stride=stride) for stride in STEM_STRIDES] if NETWORKS[network.name].sized else [plain]
    options = next((each for each in sizes if wanted * cost(each) <= CLOSE * budget), sizes[-1])
    count = min(max(int(budget / cost(options) + 1e-9), wanted), 2 * wanted)
    if NETWORKS[network.name].sized:
        wide = 2.0 if count == 2 * wanted else 1.0  # where there would be very many, wider ones
        widths = (replace(options, width=width) for width in WIDTHS if width <= wide)
        options = next((each for each in widths if count * cost(each) <= budget), options)
    count = min(count, int(budget / cost(options) + 1e-9))
    if not count:
        raise TrainError(
            f"--budget {budget:g} is too small: the cheapest {network.name} on these planes costs {cost(options):.3g}"
        )
    return count, options, count * cost(options)


def text(shards: str, bands: Sequence[BandManifest], found: Sequence[Suggestion], budget: float) -> str:
    """Return suggestions in lines for a user, with the command that trains the first of them."""
    first, side = found[0], bands[0].geometry.size
    lines = [
        f"{first.options.name} for {budget:g} times the multiply-adds of one on whole images of {side}x{side}:",
        "networks  stem  width  cost   energy   bytes an epoch  memory of a step  bands",
    ]
    for each in found:
        lines.append(
            f"{each.networks:8d}  {each.options.stem_stride or '-':>4}  {each.options.width:5g}  {each.cost:4.2g}"
            f"  {each.energy:7.2%}  {human_bytes(each.epoch_bytes):>14}  {each.step_bytes / MIB:12,.0f} MiB"
            f"  {each.bands}"
        )
    stem = f" --stem-stride {first.options.stem_stride}" if first.options.stem_stride else ""
    width = f" --width {first.options.width:g}" if first.options.width != 1 else ""
    command = f"spectral-train --shards {shards} --network {first.options.name} --bands {first.bands}{stem}{width}"
    return "\n".join([*lines, "the first by:", command])
