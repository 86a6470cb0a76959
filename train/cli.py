"""spectral-train: train a network on one band, or networks on the bands of a split. commands.py does the work."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
import cloup
from click.core import ParameterSource

from ..shards_manifest.runtime import cli_runner
from ..shards_manifest.runtime.executors import BACKENDS
from ..shards_manifest.runtime.options import CONTEXT, Choice, json_option, quiet_option
from . import recipes
from .config import ON_BAD_SHARD, PRECISIONS
from .data.residence import RESIDENT
from .data.sampler import LAST_BATCH
from .errors import TrainError, needs_train_extra
from .networks import DEFAULT, INPUTS, NETWORKS, STEM_STRIDES
from .options import TrainOptions


def _parse_size(context: click.Context, parameter: click.Parameter, text: str) -> int:
    """Return the bytes of a size such as 500MB or 50GB.

    Raises:
        TrainError: if it is no size, or too small to be of use.
    """
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    value = float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ") if found else 0
    if value < 10**8:
        raise TrainError(f"{parameter.opts[0]} {text}: write a size of 100MB or more, as in 50GB")
    return int(value)


def _recipe_options() -> list[Callable[[Any], Any]]:
    """Return an option for every field of a recipe."""
    found = []
    for name, entry in recipes.OPTIONS.items():
        flag = name.replace("_", "-")
        found.append(
            cloup.option(
                f"--{flag}/--no-{flag}" if entry.kind is bool else f"--{flag}",
                type=Choice(entry.allowed.choices) if entry.allowed.choices else entry.kind,
                default=None,
                help=entry.help,
            )
        )
    return found


def _parse_share(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return I and N of `I/N`. Raises BadParameter."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,18})/(\d{1,18})", value)
    if found is None or int(found[1]) >= int(found[2]):
        raise click.BadParameter(f"{value}: write I/N with I from 0 to N - 1, as in 0/4")
    return int(found[1]), int(found[2])


@cloup.command(
    "train",
    short_help="Train networks on the bands of a split, or on one band.",
    context_settings=CONTEXT,
    epilog=cli_runner.EXIT_CODES,
)
@click.version_option(package_name="spectral-shards", prog_name="spectral-train")
@cloup.option_group(
    "Data and run folder",
    cloup.option(
        "--shards", required=True, type=click.Path(), help="A band, as sub36/07, or a whole split; also a URL."
    ),
    cloup.option("--out", type=click.Path(), help="Run folder.  [default: runs/sub36/07, runs/sub36]"),
    cloup.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on with an unfinished run, or start it from the beginning.",
    ),
    cloup.option(
        "--save-every",
        type=click.FloatRange(0),
        default=10,
        show_default=True,
        metavar="MINUTES",
        help="Time between checkpoints within an epoch; the same command goes on from the last one.",
    ),
    cloup.option("--tensorboard", is_flag=True, help="Write TensorBoard's event files too."),
)
@cloup.option_group(
    "Networks",
    cloup.option(
        "--bands",
        metavar="SETS",
        help="Which bands of a split each network reads: 0-3,7 are five networks, 0+1+6 is one with three bands as "
        "channels, 0..3 one with bands 0 to 3, stack one with all; 0+1x3 are three that differ in their seeds; all is "
        "one network a band.  [default: what --budget 1 prints first; all if --inputs, --width or --stem-stride is "
        "given, a band is missing, or the network has one size]",
    ),
    cloup.option(
        "--network",
        type=Choice(tuple(NETWORKS)),
        default=DEFAULT,
        show_default=True,
        help=f"{'; '.join(f'{entry.name}: {entry.help}' for entry in NETWORKS.values())}.",
    ),
    cloup.option(
        "--inputs",
        type=Choice(tuple(INPUTS)),
        default="planes",
        show_default=True,
        help=f"What a network sees: {'; '.join(f'{name}: {text}' for name, text in INPUTS.items())}.",
    ),
    cloup.option(
        "--stem-stride",
        type=Choice(tuple(map(str, STEM_STRIDES))),
        help="How many times smaller than the plane the first feature map is: 4 costs a sixteenth of 1.  "
        "[default: 1 for cnn; for ResNets 1 on inputs of up to 64 pixels, else 4]",
    ),
    cloup.option(
        "--width",
        type=float,
        default=1.0,
        show_default=True,
        help="Channels of every layer, as a multiple of the network's own: 0.5 costs about a quarter.",
    ),
)
@cloup.option_group(
    "Recipe",
    "Each field has the value that the recipe gives it, unless it is set here.",
    cloup.option(
        "--recipe",
        help=f"{', '.join(recipes.names())}, or FILE.toml.  "
        f"[default: what the data set's name says, or {recipes.DEFAULT}]",
    ),
    *_recipe_options(),
    cloup.option(
        "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of all randomness."
    ),
    cloup.option(
        "--holdout-samples",
        type=click.IntRange(0),
        default=10_000,
        show_default=True,
        help="Samples that networks are chosen and weighted on, and not trained on: at most this many and a twentieth "
        "of train, in whole blocks; none if that is fewer than 50.",
    ),
)
@cloup.option_group(
    "Device",
    cloup.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda or cuda:N; auto takes a GPU if there is one.",
    ),
    cloup.option(
        "--precision",
        type=Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="Precision of the forward pass; auto takes bfloat16 where the device is faster in it.",
    ),
    cloup.option("--compile", is_flag=True, help="Compile the network (torch.compile)."),
)
@cloup.option_group(
    "Reading",
    cloup.option(
        "--workers",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Threads that read ahead and share the work; with 0, each step waits for its batch.",
    ),
    cloup.option(
        "--last-batch",
        type=Choice(LAST_BATCH),
        default=LAST_BATCH[0],
        show_default=True,
        help="Samples that do not fill a batch: drop them, or wrap to others to fill it.",
    ),
    cloup.option(
        "--resident",
        type=Choice(RESIDENT),
        default=RESIDENT[0],
        show_default=True,
        help="Where samples stay, decompressed, from the first epoch on: on the GPU, in memory (one copy for all of "
        "your processes on a Linux machine), or nowhere. auto is the first where they take at most 0.7 of what is "
        "free; on a cluster it is off.",
    ),
    cloup.option("--cache", type=click.Path(), help="Folder that keeps the blocks of a band that is in a bucket."),
    cloup.option(
        "--cache-size",
        default="50GB",
        show_default=True,
        callback=_parse_size,
        help="Size limit of the cache; the least recently used blocks are removed first.",
    ),
    cloup.option(
        "--on-bad-shard",
        type=Choice(ON_BAD_SHARD),
        default=ON_BAD_SHARD[0],
        show_default=True,
        help="At a shard that is missing or damaged: stop, or skip it and count the samples that are lost.",
    ),
)
@cloup.option_group(
    "Several networks",
    cloup.option(
        "--jobs",
        type=click.IntRange(1),
        help="Networks at once: on each GPU of this machine, or in all.  [default: 1; all that a cluster has]",
    ),
    cloup.option(
        "--backend",
        type=Choice(tuple(BACKENDS)),
        default="loky",
        show_default=True,
        help="Where networks are trained: loky is this machine, the others are clusters.",
    ),
    cloup.option("--address", default="", help="Address of the cluster, as in tcp://head:8786 (Dask) or auto (Ray)."),
    cloup.option(
        "--share",
        metavar="I/N",
        callback=_parse_share,
        help="Train the I-th of every N networks only, counted from 0: for the N jobs of an array on a cluster.",
    ),
)
@cloup.option_group(
    "In place of training",
    cloup.option("--describe", is_flag=True, help="Print what the networks cost."),
    cloup.option(
        "--budget",
        type=click.FloatRange(0, min_open=True),
        help="Print which networks on a split fit a cost: a multiple of the multiply-adds of training one network on "
        "whole images.",
    ),
    cloup.option("--evaluate", type=click.Path(), help="A checkpoint to evaluate on the val part."),
    cloup.option(
        "--ten-crop", is_flag=True, help="With --evaluate: the mean of ten crops; needs planes with a margin."
    ),
    json_option("what --describe, --budget or --evaluate found"),
)
@quiet_option
@click.pass_context
def cli(context: click.Context, /, **values: Any) -> None:
    """Train the network of a band, or networks on the bands of a split, and skip those that are finished.

    The recipe says how; an option can set any of its fields. Networks are trained one after another, or several at
    once, by this machine or a cluster; under torchrun, its processes train each network together.
    """
    source = context.get_parameter_source
    given = tuple(name for name in values if source(name) is ParameterSource.COMMANDLINE)
    with needs_train_extra():
        from .commands import train

        train(TrainOptions.from_values(values, given))


def main() -> None:
    """Run the program."""
    cli_runner.run(cli, restart="--no-resume")
