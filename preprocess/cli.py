"""spectral-prep: split, info, verify, preview. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..shards_manifest.runtime import cli_runner as console
from .source_kinds import KINDS


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spectral-shards", prog_name="spectral-prep")
def cli() -> None:
    """Cut image data sets into spectral sub-data-sets, stored as sharded WebDataset tars."""


def main() -> None:
    """Entry point."""
    console.run(cli)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _interval() -> float:
    """Seconds between two updates of a progress bar: a log file gets a line now and then."""
    return 0.1 if sys.stderr.isatty() else 10


def _jobs(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--jobs", type=click.IntRange(1), help=f"Processes to work with.  [default: {default}]")


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a source is; the command gets them as one dict, `reading`."""

    @functools.wraps(command)
    def gather(**given: Any) -> Any:
        reading = {name: given.pop(name) for name in ("kind", "val_labels", "scratch", "image_column", "label_column")}
        return command(reading=reading, **given)

    for option in (
        click.option("--label-column", default="", help="Of Parquet files: the column of labels.  [default: choose]"),
        click.option("--image-column", default="", help="Of Parquet files: the column of images.  [default: choose]"),
        click.option("--scratch", type=click.Path(), help=_SCRATCH),
        click.option("--val-labels", type=click.Path(), help="Of flat validation images: devkit, or `filename label`."),
        click.option("--source", "kind", default="", help=f"What SOURCE is: {', '.join(KINDS)}.  [default: look]"),
    ):
        gather = option(gather)
    return gather


_SCRATCH = (
    "Folder for what has to be expanded (.tar.gz, Parquet); a cluster's workers must share it.  "
    "[default: beside the split; for verify a temporary one]"
)
_FORMS = "\n".join(f"  {name:<12}{text}" for name, text in KINDS.items())


@cli.command(
    epilog=f"""\b
Forms of SOURCE, each also in train/ with val/ or test/ beside it (or training, valid, dev ...):
{_FORMS}"""
)
@click.argument("source", type=click.Path())
@click.option("--factor", type=int, required=True, help="Number of bands: 4, 16 or 36; 1 for the plain images.")
@click.option("--out", type=click.Path(), help="Folder to write to.  [default: sub<factor>]")
@click.option("--size", type=int, default=0, help="Pixels of the image's side.  [default: 336 for 36, else 224]")
@click.option("--margin", type=int, default=0, help="Extra pixels kept for random crops and ten crops.")
@click.option(
    "--orientation",
    default="stored",
    show_default=True,
    help="Of images with an EXIF orientation: as stored, or turned by exif.",
)
@click.option("--fit", default="squash", show_default=True, help="squash both axes, or crop the central square.")
@click.option(
    "--transform",
    default="dct",
    show_default=True,
    help="dct over the phases in raster order, dct2 (separable), or none (phases alone).",
)
@click.option("--color", default="ycbcr", show_default=True, help="Stored channels: ycbcr or rgb.")
@click.option(
    "--quant-step",
    "step",
    type=float,
    default=0.0,
    help="Quantising step in grey levels.  [default: 6 for 36, 5 for 16 and 4, 1 for 1]",
)
@click.option("--dtype", default="int8", show_default=True, help="Stored type: int8 or float16.")
@click.option("--bands", help="Write only these bands, as in 0-3,7.  [default: all]")
@click.option(
    "--samples-per-shard",
    type=int,
    default=0,
    help="Samples of a shard.  [default: about 1/64 of all, at most 32768]",
)
@click.option(
    "--samples-per-block", type=int, default=-1, help="Samples compressed together.  [default: 64, or what fits]"
)
@click.option(
    "--val-per-class",
    type=int,
    default=-1,
    help="Images of each class held out where the source has no val.  [default: 5 %, at most 50]",
)
@click.option("--min-class-images", type=int, default=0, help="Drop classes with fewer images in train.")
@click.option(
    "--classes", "class_list", type=click.Path(), help="Take the classes of this list, one a line, in its order."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the sample order and the held-out images."
)
@click.option("--limit", type=int, default=0, help="Take at most so many images of each part, drawn at random.")
@_jobs("all cores, or all that the cluster has")
@click.option(
    "--backend", default="loky", show_default=True, help="Where to work: loky (this machine), dask, ray or spark."
)
@click.option("--address", default="", help="Of the cluster, as in tcp://head:8786 (Dask) or auto (Ray).")
@click.option("--dry-run", is_flag=True, help="Say what would be written and how large; write nothing.")
@_source_options
def split(
    source: str,
    out: str | None,
    bands: str | None,
    jobs: int | None,
    backend: str,
    address: str,
    dry_run: bool,
    **options: Any,  # of the plan, but for reading and class_list
) -> None:
    """Cut the images of SOURCE into spectral bands, each a sharded data set of its own.

    SOURCE is read in place, in one of the forms below, which are found by looking.
    The same command goes on where an interrupted one stopped.
    """
    import shutil

    from tqdm import tqdm

    from ..shards_manifest.runtime.executors import Backend
    from ..shards_manifest.storage.address import is_url, shown
    from .config import DEFAULT_BLOCK, SplitPlan, parse_bands
    from .sources import SourceOptions, scratch_folder
    from .split.class_filter import class_note, read_class_list
    from .split.job import check_outside, prepare
    from .split.summary import summary

    where = Backend(backend, address, jobs or (_cores() if backend == "loky" else -1))
    reading, class_list = options.pop("reading"), options.pop("class_list")
    classes = read_class_list(class_list) if class_list else ()
    plan = SplitPlan(bands=parse_bands(bands) if bands else (), classes=classes, **options).resolved()
    if options["samples_per_block"] == -1 and plan.samples_per_block < DEFAULT_BLOCK:
        click.echo(
            f"--samples-per-block {DEFAULT_BLOCK} does not fit --size {plan.size}: it is {plan.samples_per_block} here"
        )
    out = out or f"sub{plan.factor}"
    check_outside(source, out)
    named = reading.pop("scratch")
    scratch = scratch_folder(named, f"{out}-dry-run" if dry_run else out, source)
    check_outside(source, named or scratch, "--scratch")
    unshared = backend != "loky" and is_url(out) and not named
    found = SourceOptions(**reading, scratch="" if unshared else scratch)
    with tqdm(unit="img", desc=f"scan {shown(source)}", mininterval=_interval(), delay=1, leave=False) as bar:
        job = prepare(source, plan, found, out, bar.update)
    for line in (*summary(job), *job.listing.notes, class_note(plan, len(job.listing.classes))):
        if line:
            click.echo(line)
    if dry_run:
        _print_estimate(job, out)
    else:
        _split(job, out, where)
    shutil.rmtree(scratch, ignore_errors=True)  # a run that fails leaves it to the next


def _split(job: Any, out: str, backend: Any) -> None:
    from .split.job import split as run_split
    from .split.progress import Meter

    with Meter(f"split to {out}", sum(job.samples.values())) as meter:
        outcome = run_split(job, out, backend, meter)
    counts = ", ".join(f"{count} {part}" for part, count in sorted(outcome.samples.items()))
    listed = f", listed in {out}/rejects.jsonl" if outcome.rejects else ""
    click.echo(
        f"{out}: {len(job.plan.bands)} bands of {counts} samples in {console.human_bytes(outcome.bytes)}, "
        f"{console.counted(outcome.rejects, 'reject')}{listed}"
    )
    if outcome.earlier:
        found = f"{outcome.earlier} of {outcome.earlier + outcome.written}"
        click.echo(f"{found} shard rows were there already" + ("" if outcome.written else ": nothing to do"))
    if outcome.clipped:
        click.echo(f"{outcome.clipped} coefficients were cut to the range of int8: a larger --quant-step avoids it")
    if outcome.turned:
        what = "1 image has" if outcome.turned == 1 else f"{outcome.turned} images have"
        how = "applied" if job.plan.orientation == "exif" else "ignored; --orientation exif applies it"
        click.echo(f"{what} an EXIF orientation, which was {how}")
    if not outcome.samples.get("val"):
        click.echo("No val part: training from this split evaluates nothing; --val-per-class 1 or more holds one out")


def _print_estimate(job: Any, out: str) -> None:
    from .split.estimate import estimate

    found = estimate(job)
    geometry = job.plan.geometry
    total = sum(found.samples.values()) * found.image_bytes
    click.echo(
        f"{out}: {len(job.plan.bands)} bands of 3x{geometry.plane}x{geometry.plane} {geometry.dtype}, "
        "nothing written yet"
    )
    shards = ", ".join(f"{count} of {part}" for part, count in sorted(found.shards.items()))
    click.echo(f"  shards a band: {shards}")
    each = console.human_bytes(found.image_bytes)
    click.echo(
        f"  about {console.human_bytes(total)}: {each} an image in all bands, measured on {found.measured} images"
    )


@cli.command()
@click.argument("data", type=click.Path())
def info(data: str) -> None:
    """Print what a split or a band holds."""
    from .inspection.info import describe

    click.echo(describe(data))


@cli.command()
@click.argument("data", type=click.Path())
@_jobs("all cores")
@click.option("--against", type=click.Path(), help="Compare images rebuilt from the bands with this source.")
@click.option("--samples", type=click.IntRange(1), default=100, show_default=True, help="How many, with --against.")
@_source_options
def verify(data: str, jobs: int | None, against: str | None, samples: int, reading: dict[str, Any]) -> None:
    """Check every shard of a split or a band: counts, sizes, SHA-256, decoding, and that bands align.

    Exits with 1 and names each bad shard, or image, if anything is wrong.
    """
    from tqdm import tqdm

    from ..shards_manifest.storage.address import shown
    from .inspection.verify import verify as check

    name = shown(data)
    with tqdm(unit="shard", desc=f"verify {name}", mininterval=_interval()) as bar:
        report = check(data, jobs or _cores(), bar.update)
    for sentence in report.bad:
        click.echo(sentence, err=True)
    if report.bad:
        click.echo(
            f"{name}: {len(report.bad)} problems in {report.shards} shards; copy bad files again, "
            "or delete them and run the same split again",
            err=True,
        )
        raise SystemExit(1)
    click.echo(
        f"{name}: {report.shards} shards, {report.samples} samples a band, "
        f"{console.human_bytes(report.bytes)}: all good"
    )
    if against is not None:
        _compare(data, against, samples, reading)


def _compare(data: str, source: str, samples: int, reading: dict[str, Any]) -> None:
    import shutil

    from ..shards_manifest.storage.address import shown
    from .inspection.fidelity import fidelity
    from .sources import SourceOptions, scratch_folder

    if scratch := reading.pop("scratch"):
        scratch = scratch_folder(scratch, f"{data}-verify", source)
    found = fidelity(data, source, samples, options=SourceOptions(**reading, scratch=scratch))
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    for sentence in found.bad:
        click.echo(sentence, err=True)
    if len(found.psnr):
        worst = int(found.psnr.argmin())
        click.echo(
            f"{shown(data)}: {len(found.psnr)} images rebuilt from all bands, PSNR against {shown(source)}: mean "
            f"{found.psnr.mean():.2f} dB, of the mean error {found.of_mean_error:.2f} dB, "
            f"least {found.psnr[worst]:.2f} dB ({found.keys[worst]})"
        )
    if found.bad:
        click.echo(f"{shown(data)}: {len(found.bad)} images are not those of {shown(source)}", err=True)
        raise SystemExit(1)


@cli.command()
@click.argument("data", type=click.Path())
@click.option("--out", type=click.Path(path_type=Path), default="preview.png", show_default=True, help="File to write.")
@click.option("--images", type=click.IntRange(1, 64), default=4, show_default=True, help="How many images.")
def preview(data: str, out: Path, images: int) -> None:
    """Draw some images, rebuilt from all bands, beside their bands."""
    from .inspection.preview import preview as draw

    sheet, note = draw(data, images)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"cannot write {out}: {error}") from None
    click.echo(f"{out}: {sheet.width}x{sheet.height} pixels" + (f", {note}" if note else ""))
