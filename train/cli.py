"""spectral-train: train the network of one band, or of every band of a split."""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..shards_manifest.runtime import cli_runner as console
from . import recipes

if TYPE_CHECKING:
    from pathlib import Path

    from ..shards_manifest.manifest import BandManifest, SplitManifest
    from ..shards_manifest.runtime.executors import Backend
    from .config import TrainPlan
    from .distributed import Ranks
    from .launch.launcher import BandJob, BandOutcome
    from .runs.run_folder import Result


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for every field of a recipe."""
    for entry in reversed(fields(recipes.Recipe)[1:]):
        name, kind = entry.name.replace("_", "-"), type(entry.default)
        flag = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
        option = click.option(flag, type=kind, default=None, help=entry.metadata["help"])
        command = option(command)
    return command


# what --evaluate heeds; the checkpoint says the rest
EVALUATING = ("shards", "path", "ten_crop", "device", "precision", "workers", "cache", "cache_size", "on_bad_shard")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spectral-shards", prog_name="spectral-train")
@click.option("--shards", required=True, type=click.Path(), help="A band, as sub36/07, or a whole split; also a URL.")
@click.option("--out", type=click.Path(), help="Run folder.  [default: runs/sub36/07, runs/sub36]")
@click.option("--network", default="resnet34", show_default=True, help="resnet18, 34 or 50, alexnet, vgg16 or cnn.")
@click.option(
    "--recipe",
    help=f"{', '.join(recipes.names())}, or FILE.toml.  [default: what the data set's name says, or {recipes.DEFAULT}]",
)
@_recipe_options
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda or cuda:N; auto takes a GPU if there is one.",
)
@click.option("--precision", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--compile", is_flag=True, help="Compile the network (torch.compile).")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Threads that read ahead and share the work; 0 reads between two steps.",
)
@click.option(
    "--last-batch", default="drop", show_default=True, help="What does not fill a batch: drop, or wrap to fill it."
)
@click.option("--cache", type=click.Path(), help="Folder that keeps what is read of a band in a bucket.")
@click.option("--cache-size", default="50GB", show_default=True, help="Of the cache; the least recently used goes.")
@click.option(
    "--on-bad-shard", type=click.Choice(["stop", "skip"]), default="stop", show_default=True, help="Skip counts losses."
)
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    help="Minutes between checkpoints within an epoch; the same command goes on from the last.",
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on with an unfinished run, or begin it again."
)
@click.option(
    "--holdout-samples",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    help="Samples of train, at most a twentieth, kept from training to rank bands and to fit their weights.",
)
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's event files too.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Bands at once: on each GPU here, or in all.  [default: 1; all that a cluster has]",
)
@click.option(
    "--backend", default="loky", show_default=True, help="Where bands are trained: loky (here), dask, ray or spark."
)
@click.option("--address", default="", help="Of the cluster, as in tcp://head:8786 (Dask) or auto (Ray).")
@click.option("--describe", is_flag=True, help="Print what the network costs, and train nothing.")
@click.option("--evaluate", "path", type=click.Path(), help="A checkpoint to evaluate on the val part; trains nothing.")
@click.option("--ten-crop", is_flag=True, help="Of --evaluate: the mean of ten crops; needs planes with a margin.")
def cli(shards: str, out: str | None, describe: bool, path: str | None, ten_crop: bool, **options: Any) -> None:
    """Train the network of a band, or of every band of a split, skipping those that are finished.

    The recipe says how; any of its fields may be set by an option. Bands are trained in turn, or several at once, by
    this machine or a cluster; under torchrun, its processes train each band together.
    """
    from ..shards_manifest.dataset import open_data
    from ..shards_manifest.manifest import BandManifest
    from ..shards_manifest.storage.address import joined
    from .distributed import Ranks
    from .runs.run_folder import local_folder, run_path, split_runs_path

    where = {name: options.pop(name) for name in ("jobs", "backend", "address")}

    _, manifest = open_data(shards)
    options["recipe"] = options["recipe"] or recipes.of_dataset(manifest.dataset)
    (plan, notes), ranks = (
        _plan(where["backend"] == "loky", manifest.geometry.crop, **options),
        Ranks.from_environment(),
    )
    if ten_crop and not path:
        raise click.UsageError("--ten-crop belongs to --evaluate")
    if path:
        _check_evaluating(click.get_current_context())
    if ranks.is_rank0 and not path:
        for note in (*notes, *_hold_out_note(manifest, plan.holdout_samples)):
            click.echo(note)
    if describe:
        click.echo(_card(shards, plan))
        return
    here = where["backend"] == "loky" or path  # a cluster has devices of its own
    with ranks.process_group(plan.torch_device(ranks.local_rank)) if here else nullcontext():
        if path:
            _evaluate(shards, path, plan, ten_crop, ranks)
            return
        if isinstance(manifest, BandManifest):
            _train_bands([(shards, local_folder(out) if out else run_path(shards))], plan, ranks, **where)
            return
        root = local_folder(out) if out else split_runs_path(shards)
        bands = [(joined(shards, band.folder), root / band.folder) for band in manifest.bands]
        _train_bands(bands, plan, ranks, **where)
        if ranks.is_rank0:
            click.echo(f"all {len(manifest.bands)} bands are in {root}: fuse them with spectral-ensemble {root}")


def main() -> None:
    """Entry point."""
    console.run(cli, restart="--no-resume")


def _evaluate(shards: str, path: str, plan: TrainPlan, ten_crop: bool, ranks: Ranks) -> None:
    from pathlib import Path

    from .engine.evaluate import evaluate_checkpoint

    found = evaluate_checkpoint(shards, Path(path), plan, ten_crop, ranks)
    if ranks.is_rank0:
        lost = f", {found.lost} samples lost" if found.lost else ""
        crops = "ten crops" if ten_crop else "centre crop"
        click.echo(f"{path}: top-1 {found.top1:.2%}, top-5 {found.top5:.2%}, loss {found.loss:.3f}, {crops}{lost}")


def _check_evaluating(context: click.Context) -> None:
    """Raise UsageError for an option that would do nothing."""
    for option in context.command.params:
        assert option.name is not None
        given = context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        if given and option.name not in EVALUATING:
            raise click.UsageError(f"{option.opts[0]} does not go with --evaluate: leave it out")


def _card(shards: str, plan: TrainPlan) -> str:
    from ..shards_manifest.dataset import open_data, read_band
    from ..shards_manifest.manifest import BandManifest
    from .networks.profile import describe

    store, manifest = open_data(shards)
    band = manifest if isinstance(manifest, BandManifest) else read_band(store, manifest.bands[0].folder)
    return describe(plan.network, band.geometry.crop, len(band.classes)).text(plan.recipe)


def _plan(
    here: bool,
    side: int,
    network: str,
    recipe: str,
    seed: int,
    device: str,
    precision: str,
    compile: bool,
    **rest: Any,
) -> tuple[TrainPlan, list[str]]:
    """The plan of the options, and a sentence for each default of the recipe that gave way to them.

    here: it is for this machine, and not for a cluster's.  side: of the planes, without their margin.
    """
    from .config import ReadOptions, TrainPlan
    from .errors import TrainError
    from .networks import check

    check(network)
    reading = ReadOptions(
        workers=rest.pop("workers"),
        last_batch=rest.pop("last_batch"),
        cache=rest.pop("cache"),
        cache_bytes=_bytes(rest.pop("cache_size")),
        skip=rest.pop("on_bad_shard") == "skip",
    )
    running = {name: rest.pop(name) for name in ("holdout_samples", "tensorboard")}
    running["restart"] = "" if rest.pop("resume") else os.urandom(8).hex()
    running["save_every"] = 60 * rest.pop("save_every")
    if math.isnan(running["save_every"]):
        raise TrainError("--save-every nan: write minutes")
    resolved, notes = recipes.resolve(recipe, side, **rest)
    plan = TrainPlan(network, resolved, seed, device, precision, compile, reading, **running)
    if here:
        plan.dtype(plan.torch_device())  # raises before any work
    return plan, notes


def _hold_out_note(manifest: BandManifest | SplitManifest, wanted: int) -> list[str]:
    """A sentence if the user set a --holdout-samples that there are too few samples for."""
    from .data.sampler import LEAST_HOLDOUT

    source = click.get_current_context().get_parameter_source("holdout_samples")
    if source is not ParameterSource.COMMANDLINE or not wanted or "train" not in manifest.parts:
        return []
    samples = manifest.parts["train"].samples
    most = min(wanted, samples // 20)
    if most < LEAST_HOLDOUT:
        why = f"a twentieth of {samples} samples is {samples // 20}" if most < wanted else "so few"
        return [
            f"--holdout-samples {wanted} holds nothing out: {why}, "
            f"and fewer than {LEAST_HOLDOUT} would rank bands by chance"
        ]
    return (
        [f"--holdout-samples {wanted} is more than a twentieth of {samples} samples: {most} at most"]
        if most < wanted
        else []
    )


def _bytes(size: str) -> int:
    """A size as 500MB or 50GB, in bytes. Raises TrainError."""
    from .errors import TrainError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", size.strip(), re.IGNORECASE)
    value = float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ") if found else 0
    if value < 10**8:
        raise TrainError(f"--cache-size {size}: write a size of 100MB or more, as in 50GB")
    return int(value)


def _train_bands(
    bands: list[tuple[str, Path]], plan: TrainPlan, ranks: Ranks, jobs: int | None, backend: str, address: str
) -> None:
    """Train bands, each with its run folder. Raises SpectralError for one, and if any of several failed."""
    from .errors import TrainError
    from .launch.launcher import BandJob, train_bands, train_one
    from .launch.progress import table

    work = [BandJob(out.name, shards, out, plan) for shards, out in bands]
    where = _backend(plan, len(work), jobs, backend, address)
    if ranks.world_size > 1:
        if jobs or backend != "loky":
            raise click.UsageError("torchrun's processes train one band after another: leave out --jobs and --backend")
        where = None

    def on_outcome(outcome: BandOutcome) -> None:
        out = work[0].out.parent / outcome.band
        if outcome.result is None:
            click.echo(f"{out} failed: {outcome.failure}", err=True)
        elif ranks.is_rank0:
            how = "is finished" if outcome.earlier else f"took {outcome.result.seconds:.0f} s"
            click.echo(f"{out} {how}: {_summary(outcome.result)}")

    def here() -> Iterator[BandOutcome]:
        for job in work:
            if ranks.is_rank0:
                click.echo(_heading([job]))
            outcome = train_one(job, quiet=not ranks.is_rank0, ranks=ranks)
            if outcome.failure and (len(work) == 1 or ranks.world_size > 1):  # ranks have lost each other
                raise TrainError(outcome.failure)
            on_outcome(outcome)
            yield outcome

    if ranks.is_rank0:
        click.echo(textwrap.fill(f"recipe {plan.recipe}", 110, subsequent_indent="  ", break_on_hyphens=False))
    if where is not None:
        click.echo(_heading(work))
    outcomes = list(here() if where is None else train_bands(work, where, plan.recipe.epochs, on_outcome))
    failed = [outcome for outcome in outcomes if outcome.failure]
    if where is None and ranks.is_rank0 and len(work) > 1:
        states = {outcome.band: "failed" if outcome.failure else "done" for outcome in outcomes}
        click.echo(table({job.band: job.out for job in work}, plan.recipe.epochs, states), err=True)
    if failed:
        names = ", ".join(outcome.band for outcome in failed)
        what = f"{len(failed)} of {len(work)} bands failed ({names})"
        how = "run the same command again" + (", without --no-resume," if plan.restart else "")
        raise TrainError(f"{what}: see above, and {how} to train what is missing")


def _backend(plan: TrainPlan, bands: int, jobs: int | None, backend: str, address: str) -> Backend | None:
    """Where several bands are trained at once; None for one after another in this process."""
    import torch

    from ..shards_manifest.runtime.executors import Backend

    if backend != "loky":
        return Backend(backend, address, jobs or -1, gpu=plan.device != "cpu", isolated=True)
    gpus = torch.cuda.device_count() if plan.device in ("auto", "cuda") else 0
    count = min((jobs or 1) * max(gpus, 1), bands)
    where = Backend(backend, address, count, isolated=True)
    return where if count > 1 else None


def _heading(work: list[BandJob]) -> str:
    """What is about to be trained, at once if it is several bands, as far as the first one tells."""
    from ..shards_manifest.dataset import open_band
    from ..shards_manifest.errors import SpectralError
    from ..shards_manifest.storage.address import shown

    job, more = work[0], len(work) - 1
    shards, out = shown(job.shards), job.out
    if more:
        shards, out = f"{shards} and {more} more bands", out.parent
    try:
        _, manifest = open_band(job.shards)
    except SpectralError:
        return f"{shards}: {job.plan.network} into {out}"
    side, recipe = manifest.geometry.crop, job.plan.recipe
    samples = manifest.parts["train"].samples if "train" in manifest.parts else 0
    heading = (
        f"{shards}: {job.plan.network} on 3x{side}x{side}, {len(manifest.classes)} classes, {samples} samples, "
        f"{recipe.epochs} {'epoch' if recipe.epochs == 1 else 'epochs'} of recipe {recipe.name} into {out}"
    )
    if "val" not in manifest.parts or not manifest.parts["val"].samples:
        heading += "\nNo val part: nothing is evaluated, and the run cannot be fused"
    return heading


def _summary(result: Result) -> str:
    if result.top1 is None or result.top5 is None:
        return f"train top-1 {result.train_top1:.2%}, not evaluated"
    return f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%}"
