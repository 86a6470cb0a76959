"""What the commands of spectral-prep do: run the library and print its results."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import click

from ..shards_manifest.dataset import open_data
from ..shards_manifest.manifest import canonical_json, dump
from ..shards_manifest.runtime.cli_runner import counted, human_bytes, speaker
from ..shards_manifest.runtime.executors import Backend
from ..shards_manifest.runtime.progress import ProgressLine
from ..shards_manifest.storage.address import is_url, shown
from ..shards_manifest.storage.opening import open_store
from .config import DEFAULT_BLOCK, SourceOptions, SplitConfig, WorkerOptions
from .errors import DestinationError
from .inspection.fidelity import Fidelity, fidelity
from .inspection.info import describe
from .inspection.preview import preview as draw_preview
from .inspection.verify import VerifyReport
from .inspection.verify import verify as verify_data
from .sources import scratch_folder
from .split.class_filter import class_note, read_class_list
from .split.estimate import estimate
from .split.job import Job, check_outside, choose_compression, prepare
from .split.job import split as run_split
from .split.progress import SplitProgress
from .split.summary import summary

# of the coefficients may be cut without a word: a handful in an image's sharpest edges (docs/decisions/0019)
CLIPPED_SHARE = 1e-4


def split(
    source: str,
    config: SplitConfig,
    class_list: str | None,
    source_options: SourceOptions,
    out: str | None,
    workers: WorkerOptions,
    dry_run: bool,
    quiet: bool = False,
) -> None:
    """Split a source, or say what a split would write.

    Args:
        source: Path or URL of the source.
        config: Options of the split, without classes.
        class_list: File with the classes to take; None for all.
        source_options: What the user says about the source.
        out: Destination; None for sub<factor>.
        workers: Where the rows are computed.
        dry_run: Write nothing.
        quiet: Print problems and the result only.
    """
    say = speaker(quiet)
    local = workers.backend == "loky"
    backend = Backend(workers.backend, workers.address, workers.jobs or (_cores() if local else -1))
    resolved = replace(config, classes=read_class_list(class_list) if class_list else ()).resolved()
    if config.samples_per_block == -1 and resolved.samples_per_block < DEFAULT_BLOCK:
        click.echo(
            f"--samples-per-block {DEFAULT_BLOCK} does not fit --size {resolved.size}: "
            f"it is {resolved.samples_per_block} here"
        )
    out = out or f"sub{resolved.factor}"
    check_outside(source, out)
    named = source_options.scratch
    scratch = scratch_folder(named, f"{out}-dry-run" if dry_run else out, source)
    check_outside(source, named or scratch, "--scratch")
    unshared = not local and is_url(out) and not named
    source_options = replace(source_options, scratch="" if unshared else scratch)
    with ProgressLine(f"scan {shown(source)}", "images", quiet=quiet) as progress:
        job = prepare(source, resolved, source_options, out, progress)
    for line in (*summary(job), *job.listing.notes, class_note(resolved, len(job.listing.classes))):
        if line:
            say(line)
    job, note = choose_compression(job, open_store(out))
    if note:
        say(note)
    if dry_run:
        _print_estimate(job, out)
    else:
        _write_split(job, out, backend, quiet)
    shutil.rmtree(scratch, ignore_errors=True)  # a run that fails leaves it to the next run


def _write_split(job: Job, out: str, backend: Backend, quiet: bool) -> None:
    with ProgressLine(f"split to {out}", "images", sum(job.samples.values()), quiet=quiet) as progress:
        outcome = run_split(job, out, backend, SplitProgress(progress))
    counts = ", ".join(f"{count} {part}" for part, count in sorted(outcome.samples.items()))
    listed = f", listed in {out}/rejects.jsonl" if outcome.rejects else ""
    click.echo(
        f"{out}: {counted(len(job.config.bands), 'band')} of {counts} samples in {human_bytes(outcome.bytes)}, "
        f"{counted(outcome.rejects, 'reject')}{listed}"
    )
    if outcome.earlier:
        share = f"{outcome.earlier} of {outcome.earlier + outcome.written}"
        click.echo(f"{share} shard rows were there already" + ("" if outcome.written else ": nothing to do"))
    coefficients = sum(outcome.samples.values()) * len(job.config.bands) * 3 * job.config.geometry.plane**2
    if outcome.clipped > CLIPPED_SHARE * coefficients:
        click.echo(f"{outcome.clipped} coefficients were cut to the range of int8: a larger --quant-step avoids it")
    if outcome.turned:
        what = "1 image has" if outcome.turned == 1 else f"{outcome.turned} images have"
        how = "applied" if job.config.upright else "ignored; --orientation exif applies it"
        click.echo(f"{what} an EXIF orientation, which was {how}")
    if not outcome.samples.get("val"):
        click.echo("No val part: training from this split evaluates nothing; --val-per-class 1 or more holds one out")


def _print_estimate(job: Job, out: str) -> None:
    found = estimate(job)
    geometry = job.config.geometry
    total = sum(found.samples.values()) * found.image_bytes
    click.echo(
        f"{out}: {counted(len(job.config.bands), 'band')} of 3x{geometry.plane}x{geometry.plane} {geometry.dtype}, "
        "nothing written yet"
    )
    shards = ", ".join(f"{count} of {part}" for part, count in sorted(found.shards.items()))
    click.echo(f"  shards a band: {shards}")
    each = human_bytes(found.image_bytes)
    click.echo(f"  about {human_bytes(total)}: {each} an image in all bands, measured on {found.measured} images")


def info(data: str, as_json: bool = False) -> None:
    """Print what a split or a band contains, in lines or as its manifest."""
    click.echo(dump(open_data(data)[1]).decode(), nl=False) if as_json else click.echo(describe(data))


def verify(
    data: str,
    jobs: int | None,
    against: str | None,
    samples: int,
    source_options: SourceOptions,
    as_json: bool = False,
    quiet: bool = False,
) -> None:
    """Check a split or a band; end with exit code 1 if anything is wrong.

    Args:
        data: Path or URL of the split or the band.
        jobs: Number of processes; None for all cores.
        against: Source to compare rebuilt images with; None not to compare.
        samples: Images to compare.
        source_options: What the user says about the source.
        as_json: Print one JSON object.
        quiet: Show no progress.
    """
    name = shown(data)
    with ProgressLine(f"verify {name}", "shards", quiet=quiet) as progress:
        report = verify_data(data, jobs or _cores(), progress)
    compared = _compare(data, against, samples, source_options, quiet) if against and not report.bad else None
    if as_json:
        found = {**vars(report), "compared": compared and compared.to_json()}
        click.echo(canonical_json(found).decode(), nl=False)
    else:
        _print_verified(name, report)
        if against and compared:
            _print_compared(name, shown(against), compared)
    if report.bad or (compared and compared.bad):
        raise SystemExit(1)


def _print_verified(name: str, report: VerifyReport) -> None:
    for sentence in report.bad:
        click.echo(sentence, err=True)
    if report.bad:
        click.echo(
            f"{name}: {len(report.bad)} problems in {report.shards} shards; copy bad files again, "
            "or delete them and run the same split again",
            err=True,
        )
    else:
        size = human_bytes(report.bytes)
        click.echo(f"{name}: {report.shards} shards, {report.samples} samples a band, {size}: all good")


def _compare(data: str, source: str, samples: int, options: SourceOptions, quiet: bool) -> Fidelity:
    scratch = scratch_folder(options.scratch, f"{data}-verify", source) if options.scratch else None
    with ProgressLine(f"compare with {shown(source)}", "images", quiet=quiet) as progress:
        found = fidelity(data, source, samples, options=replace(options, scratch=scratch), progress=progress)
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def _print_compared(name: str, source: str, found: Fidelity) -> None:
    for sentence in found.bad:
        click.echo(sentence, err=True)
    if len(found.psnr):
        worst = int(found.psnr.argmin())
        click.echo(
            f"{name}: {len(found.psnr)} images rebuilt from all bands, PSNR against {source}: mean "
            f"{found.psnr.mean():.2f} dB, of the mean error {found.of_mean_error:.2f} dB, "
            f"least {found.psnr[worst]:.2f} dB ({found.keys[worst]})"
        )
    if found.bad:
        click.echo(f"{name}: {len(found.bad)} images are not those of {source}", err=True)


def preview(data: str, out: Path, images: int) -> None:
    """Draw some images of a split, rebuilt from all bands, beside their bands."""
    sheet, note = draw_preview(data, images)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(out)
    except (OSError, ValueError) as error:
        raise DestinationError(f"cannot write {out}: {error}") from None
    click.echo(f"{out}: {sheet.width}x{sheet.height} pixels" + (f", {note}" if note else ""))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
