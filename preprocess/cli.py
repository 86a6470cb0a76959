"""The options of spectral-prep: split, info, verify, preview. What the commands do is in commands.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import cloup

from ..shards_manifest.manifest import FACTORS, KNOWN
from ..shards_manifest.runtime import cli_runner, options
from ..shards_manifest.runtime.executors import BACKENDS
from .config import COMPRESSION_CHOICES, ORIENTATIONS, SourceOptions, SplitConfig, WorkerOptions, parse_bands
from .source_kinds import KINDS

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PATH = click.Path()


@cloup.group(context_settings=options.CONTEXT, epilog=cli_runner.EXIT_CODES)
@click.version_option(package_name="spectral-shards", prog_name="spectral-prep")
def cli() -> None:
    """Cut image data sets into spectral bands, stored as sharded WebDataset tars."""


def main() -> None:
    """Run spectral-prep."""
    cli_runner.run(cli)


def _options(argument: str, kind: type[Any], *declarations: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Add options to a command, which gets the values of all of them as one dataclass.

    An option that the user leaves out and that has no default here has the default of its field. What is not a field
    stays an argument of its own.

    Args:
        argument: Name of the command's argument that gets the dataclass.
        kind: The dataclass; the options have the names of its fields.
        declarations: cloup.option(...) for each field, or groups of them.
    """
    names = [field.name for field in dataclasses.fields(kind)]

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def gathered(**values: Any) -> Any:
            fields = {name: value for name in names if (value := values.pop(name, None)) is not None}
            return command(**values, **{argument: kind(**fields)})

        for declare in reversed(declarations):
            gathered = declare(gathered)
        return gathered  # type: ignore[return-value]

    return decorate


_VAL_LABELS = "Labels of validation images without class folders: the devkit, or lines of `filename label`."
_SCRATCH = (
    "Folder for expanded files (.tar.gz, Parquet); the workers of a cluster must share it.  "
    "[default: beside the split; for verify a temporary one]"
)
_source_options = _options(
    "source_options",
    SourceOptions,
    cloup.option_group(
        "The source",
        cloup.option(
            "--source", "kind", type=options.Choice(tuple(KINDS)), help="Form of SOURCE.  [default: detect it]"
        ),
        cloup.option("--val-labels", type=_PATH, help=_VAL_LABELS),
        cloup.option("--scratch", type=_PATH, help=_SCRATCH),
        cloup.option("--image-column", help="Column of images in Parquet files.  [default: choose it]"),
        cloup.option("--label-column", help="Column of labels in Parquet files.  [default: choose it]"),
    ),
)


def _jobs(default: str) -> Callable[[_Command], _Command]:
    return cloup.option("--jobs", type=click.IntRange(1), help=f"Number of processes.  [default: {default}]")


def _choice(name: str, choices: tuple[str, ...], text: str) -> Callable[[_Command], _Command]:
    """Return an option of SplitConfig with a fixed set of values."""
    default = getattr(SplitConfig, name)
    return cloup.option(f"--{name}", type=options.Choice(choices), help=f"{text}  [default: {default}]")


def _number(name: str, kind: type[int] | type[float], text: str) -> Callable[[_Command], _Command]:
    """Return an option for a number."""
    return cloup.option(f"--{name.replace('_', '-')}", type=kind, help=text)


def _to_int(context: click.Context, parameter: click.Parameter, value: str) -> int:
    return int(value)


def _to_bands(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    return parse_bands(value) if value else ()


_FORMS = "\n".join(f"  {name:<12}{text}" for name, text in KINDS.items())


@cli.command(
    short_help="Cut images into spectral bands, each a data set of its own.",
    epilog=f"""\b
Forms of SOURCE, each also in train/ with val/ or test/ beside it (or training, valid, dev ...):
{_FORMS}""",
)
@click.argument("source", type=_PATH)
@_options(
    "config",
    SplitConfig,
    cloup.option_group(
        "Bands",
        cloup.option(
            "--factor",
            type=options.Choice([str(factor) for factor in FACTORS]),
            callback=_to_int,
            required=True,
            help="Number of bands; 1 for the plain images.",
        ),
        _choice("transform", KNOWN["transform"], "DCT over the phases in raster order, separable DCT, or none."),
        cloup.option("--bands", callback=_to_bands, help="Write only these bands, as in 0-3,7.  [default: all]"),
    ),
    cloup.option_group(
        "Images",
        _number("size", int, "Pixels of the image's side.  [default: 336 for 36 bands, else 224]"),
        _number("margin", int, "Extra pixels of the side, for random crops and ten crops.  [default: 0]"),
        _choice("fit", KNOWN["fit"], "Scale both axes to the size (squash), or crop the central square."),
        _choice("orientation", ORIENTATIONS, "Take images as they are stored, or turn them as their EXIF says."),
        _choice("color", KNOWN["color"], "Stored channels."),
    ),
    cloup.option_group(
        "Parts and classes",
        _number(
            "val_per_class",
            int,
            "Images of each class that become val if the source has none.  [default: 5 %, at most 50]",
        ),
        cloup.option(
            "--classes", "class_list", type=_PATH, help="Take the classes of this list, one a line, in its order."
        ),
        _number("min_class_images", int, "Drop classes with fewer images in train.  [default: 0]"),
        _number("limit", int, "Take at most this number of images of each part, drawn at random.  [default: all]"),
        _number("seed", int, "Seed of the sample order and of the choice of val.  [default: 0]"),
    ),
    cloup.option_group(
        "What is stored",
        _choice("dtype", KNOWN["dtype"], "Stored type."),
        _number(
            "quant_step",
            float,
            "Quantising step in grey levels.  "
            "[default: 3.25 for 36 and 4 bands, 2.75 for 16; for rgb and none 6, 5, 5]",
        ),
        _number(
            "chroma_quant_step", float, "That of chroma outside of the mean band.  [default: 3 times --quant-step]"
        ),
        _choice(
            "compression",
            COMPRESSION_CHOICES,
            "Compress blocks, or store them as they are, which is larger and read faster; auto compresses the bands "
            "that get a quarter smaller.",
        ),
        _number("samples_per_shard", int, "Samples of a shard.  [default: about 1/64 of all, at most 32768]"),
        _number("samples_per_block", int, "Samples that are compressed together.  [default: 64, or what fits]"),
    ),
)
@_source_options
@_options(
    "workers",
    WorkerOptions,
    cloup.option_group(
        "Where the work is done",
        _jobs("all cores, or all that the cluster has"),
        cloup.option(
            "--backend",
            type=options.Choice(tuple(BACKENDS)),
            help="loky for this machine, or a kind of cluster.  [default: loky]",
        ),
        cloup.option("--address", help="Address of the cluster, as in tcp://head:8786 (Dask) or auto (Ray)."),
    ),
)
@cloup.option("--out", type=_PATH, help="Folder or URL to write to.  [default: sub<factor>]")
@cloup.option("--dry-run", is_flag=True, help="Say what would be written and how large; write nothing.")
@options.quiet_option
def split(
    source: str,
    config: SplitConfig,
    class_list: str | None,
    source_options: SourceOptions,
    out: str | None,
    workers: WorkerOptions,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Cut the images of SOURCE into spectral bands, each a sharded data set of its own.

    SOURCE is read without unpacking, in one of the forms below, which is detected.
    The same command goes on where an interrupted one stopped.
    """
    from . import commands

    commands.split(source, config, class_list, source_options, out, workers, dry_run, quiet)


@cli.command()
@click.argument("data", type=_PATH)
@options.json_option("its manifest")
def info(data: str, as_json: bool) -> None:
    """Print what a split or a band contains."""
    from . import commands

    commands.info(data, as_json)


@cli.command(short_help="Check every shard, and that all bands hold the same images.")
@click.argument("data", type=_PATH)
@_jobs("all cores")
@cloup.option("--against", type=_PATH, help="Compare images rebuilt from the bands with this source.")
@cloup.option("--samples", type=click.IntRange(1), default=100, show_default=True, help="Images to compare.")
@options.json_option("what was checked, and what is wrong,")
@options.quiet_option
@_source_options
def verify(
    data: str,
    jobs: int | None,
    against: str | None,
    samples: int,
    source_options: SourceOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check every shard of a split or a band: counts, sizes, SHA-256, decoding, and that bands agree.

    Exits with 1 and names each bad shard, or image, if anything is wrong.
    """
    from . import commands

    commands.verify(data, jobs, against, samples, source_options, as_json, quiet)


@cli.command(short_help="Draw some images beside their bands.")
@click.argument("data", type=_PATH)
@cloup.option("--out", type=click.Path(path_type=Path), default="preview.png", show_default=True, help="File to write.")
@cloup.option("--images", type=click.IntRange(1, 64), default=4, show_default=True, help="Number of images.")
def preview(data: str, out: Path, images: int) -> None:
    """Draw some images, rebuilt from all bands, beside their bands."""
    from . import commands

    commands.preview(data, out, images)
