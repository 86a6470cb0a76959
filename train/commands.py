"""What spectral-train does. cli.py loads this when a command runs."""

from __future__ import annotations

import math
import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click
import torch

from ..shards_manifest.dataset import open_band, open_bands, open_data
from ..shards_manifest.errors import SpectralError
from ..shards_manifest.manifest import BandManifest, SplitManifest, band_folder, canonical_json
from ..shards_manifest.runtime.cli_runner import human_seconds, speaker
from ..shards_manifest.runtime.executors import Backend
from ..shards_manifest.storage.address import joined, shown
from . import recipes
from .band_sets import EACH, BandSet, parse_band_sets
from .config import TrainPlan
from .data.sampler import LEAST_HOLDOUT, holdout_size
from .distributed import Ranks
from .engine.evaluate import evaluate_checkpoint
from .errors import TrainError
from .launch.budget import DEFAULT_BUDGET, Cost, suggestions, two_kinds
from .launch.budget import text as budget_text
from .launch.launcher import TrainJob, TrainOutcome, train_networks, train_one
from .launch.progress import progress_table
from .networks import NetworkOptions
from .networks.profile import describe
from .options import LaunchOptions, TrainOptions
from .runs.run_folder import RunFolder, local_folder, run_path, split_runs_path
from .runs.run_record import RUN, Result

# the options that --evaluate uses; the checkpoint says the rest
EVALUATE_OPTIONS = {
    "evaluate",
    "shards",
    "ten_crop",
    "device",
    "precision",
    "workers",
    "cache",
    "cache_size",
    "on_bad_shard",
    "as_json",
    "quiet",
}
CHOOSE_NETWORKS = {"bands", "inputs", "stem_stride", "width"}  # options that say which networks are trained


def train(options: TrainOptions) -> None:
    """Train networks, or describe them, or evaluate a checkpoint, as the command line says.

    Raises:
        UsageError: if options do not go together.
        SpectralError: if anything else is wrong with the options, the data or a run folder, or a network failed.
    """
    _check_together(options)
    if options.budget is not None and not math.isfinite(options.budget):
        raise TrainError(f"--budget {options.budget:g}: write a number, as in 0.25")
    _, manifest = open_data(options.shards)
    plan, notes = _make_plan(options, manifest)
    jobs, more = _jobs(options, plan, manifest)
    ranks = Ranks.from_environment()
    if ranks.is_rank0 and not (options.evaluate or options.as_json or options.quiet):
        for note in (*notes, *more):
            click.echo(note)
    if options.budget is not None:
        click.echo(_budget(options, plan, options.budget))
        return
    if options.describe and (jobs or options.as_json):
        click.echo(_profile(jobs, plan.recipe, options.as_json))
        return
    if not jobs:
        share = "/".join(map(str, options.launch.share or ()))
        click.echo(f"--share {share}: there are fewer networks than that, so there is nothing to do here")
        return
    here = options.launch.on_this_machine or options.evaluate  # a cluster has devices of its own
    with ranks.process_group(plan.torch_device(ranks.local_rank)) if here else nullcontext():
        if options.evaluate:
            _evaluate(options, plan, ranks)
        else:
            _train(jobs, plan, ranks, options)


def _check_together(options: TrainOptions) -> None:
    if options.budget is not None and (
        given := [name for name in options.given if name in {*CHOOSE_NETWORKS, "describe", "evaluate"}]
    ):
        raise click.UsageError(f"--{given[0].replace('_', '-')} does not go with --budget: leave it out")
    if options.as_json and not (options.evaluate or options.describe or options.budget is not None):
        raise click.UsageError("--json belongs to --describe, --budget or --evaluate")
    if not options.evaluate:
        if options.ten_crop:
            raise click.UsageError("--ten-crop belongs to --evaluate")
        return
    if unused := [name for name in options.given if name not in EVALUATE_OPTIONS]:
        raise click.UsageError(f"--{unused[0].replace('_', '-')} does not go with --evaluate: leave it out")


def _make_plan(options: TrainOptions, manifest: BandManifest | SplitManifest) -> tuple[TrainPlan, list[str]]:
    """Return the plan of the options, and sentences about what the user may not expect of it."""
    run = options.run
    if math.isnan(run.save_minutes):
        raise TrainError("--save-every nan: write minutes")
    name = options.recipe or recipes.of_dataset(manifest.dataset)
    recipe, notes = recipes.resolve(name, manifest.geometry.crop, **options.overrides)
    plan = TrainPlan(
        network=options.network,
        recipe=recipe,
        seed=run.seed,
        device=run.device,
        precision=run.precision,
        compile=run.compile,
        reading=options.reading,
        save_every=60 * run.save_minutes,
        holdout_samples=run.holdout_samples,
        tensorboard=run.tensorboard,
        restart="" if run.resume else os.urandom(8).hex(),
    )
    if options.launch.on_this_machine:
        plan.torch_device()  # raises before any work
    if "holdout_samples" in options.given:
        notes = [*notes, *_holdout_note(options.shards, manifest, run.holdout_samples)]
    return plan, notes


def _holdout_note(shards: str, manifest: BandManifest | SplitManifest, wanted: int) -> list[str]:
    """Return a sentence if --holdout-samples, which the user set, holds out fewer samples than that."""
    if not wanted or "train" not in manifest.parts:
        return []
    if isinstance(manifest, SplitManifest):
        manifest = open_band(joined(shards, band_folder(manifest.bands[0].band))).manifest
    samples, kept = manifest.parts["train"].samples, holdout_size(manifest, wanted)
    if kept == wanted:
        return []
    rule = f"whole blocks of {manifest.block}, and at most a twentieth of {samples} samples"
    if kept:
        return [f"--holdout-samples {wanted} holds out {kept}: {rule}"]
    return [f"--holdout-samples {wanted} holds nothing out: {rule}; fewer than {LEAST_HOLDOUT} rank bands by chance"]


def _jobs(
    options: TrainOptions, plan: TrainPlan, manifest: BandManifest | SplitManifest
) -> tuple[list[TrainJob], list[str]]:
    """Return a job for each network on the band or the split, and a sentence about what the user did not ask for."""
    shards, out, bands = options.shards, options.out, options.launch.bands
    if not isinstance(manifest, SplitManifest):
        if bands is not None:
            raise TrainError(f"--bands {bands}: {shown(shards)} is one band: name the folder of the whole split")
        if options.launch.share:
            raise TrainError(f"--share: {shown(shards)} is one band: name the folder of the whole split")
        run = local_folder(out) if out else run_path(shards)
        return [TrainJob(run.name, shards, run, plan)], []
    root = local_folder(out) if out else split_runs_path(shards)
    available = [band.band for band in manifest.bands]
    kinds, notes = _kinds(options, plan, manifest)
    jobs = [
        _job(shards, each, root / each.name, replace(plan, network=network))
        for text, network in kinds
        for each in parse_band_sets(text, available, network.inputs)
    ]
    if options.launch.share:
        first, every = options.launch.share
        jobs = jobs[first::every]
    return jobs, notes


def _kinds(
    options: TrainOptions, plan: TrainPlan, split: SplitManifest
) -> tuple[list[tuple[str, NetworkOptions]], list[str]]:
    """Return which bands are read by which networks, and a sentence about what the user did not ask for."""
    whole = 1 < len(split.bands) == split.geometry.factor and "train" in split.parts
    if options.evaluate or options.budget or not whole or any(name in options.given for name in CHOOSE_NETWORKS):
        return [(EACH if options.launch.bands is None else options.launch.bands, options.network)], []
    found = two_kinds(*_costed(options.shards, plan), DEFAULT_BUDGET)
    if not found:
        note = f"{options.network.name} has one size, so by default each band gets a network (--bands {EACH})"
        return [(EACH, options.network)], [note]
    cost, asked = sum(each.cost for each in found), ", and ".join(each.command_options for each in found)
    note = (
        f"by default {asked}: {cost:.2f} times the multiply-adds of one network on whole images; "
        f"--bands {EACH} trains one for each band"
    )
    return [(each.bands, each.options) for each in found], [note]


def _job(shards: str, networks: BandSet, out: Path, plan: TrainPlan) -> TrainJob:
    """Return the job of one network. One that reads a single band needs nothing of the split but that band."""
    plan = replace(plan, seed=plan.seed + networks.repeat)
    if len(networks.bands) == 1:
        return TrainJob(networks.name, joined(shards, band_folder(networks.bands[0])), out, plan)
    return TrainJob(networks.name, shards, out, plan, networks.bands)


def _profile(jobs: Sequence[TrainJob], recipe: recipes.Recipe, as_json: bool) -> str:
    """Return what the networks cost, each kind of them once."""
    kinds = Counter(
        (each.plan.network, each.plan.network.shape(open_bands(each.shards, each.bands).each)) for each in jobs
    )
    profiles = [(describe(network, shape), several) for (network, shape), several in kinds.items()]
    total = sum(several * profile.multiply_adds for profile, several in profiles)
    if as_json:
        each = [{**profile.to_json(recipe), "networks": several} for profile, several in profiles]
        return _json({"kinds": each, "multiply_adds": total})
    texts = [
        profile.text(recipe) + (f"\n{several} such networks" if several > 1 else "") for profile, several in profiles
    ]
    if len(jobs) > 1:
        texts.append(f"{len(jobs)} networks: {total / 1e9:.3f} G multiply-adds an image in all")
    return "\n".join(texts)


def _budget(options: TrainOptions, plan: TrainPlan, budget: float) -> str:
    """Return which networks to train on a split for a cost."""
    bands, cost = _costed(options.shards, plan)
    shards, more = shown(options.shards), options.training_options
    if len(bands) == 1 or "train" not in bands[0].parts:
        raise TrainError(f"--budget: {shards} has to be a split of several bands with a train part")
    found = suggestions(bands, cost, budget)
    if options.as_json:
        ways = [[each.to_json(shards, more) for each in way] for way in found]
        return _json({"budget": budget, "ways": ways})
    return budget_text(shards, more, bands, found, budget)


def _json(value: object) -> str:
    return canonical_json(value).decode().rstrip("\n")


def _costed(shards: str, plan: TrainPlan) -> tuple[Sequence[BandManifest], Cost]:
    """Return the bands of a split, and what the costs of networks on them are computed from."""
    bands = open_bands(shards).each
    samples = bands[0].parts["train"].samples if "train" in bands[0].parts else 0
    kept = holdout_size(bands[0], plan.holdout_samples) if samples else 0
    return bands, Cost(plan.network.name, plan.recipe, 1 - kept / max(samples, 1))


def _evaluate(options: TrainOptions, plan: TrainPlan, ranks: Ranks) -> None:
    path = Path(options.evaluate or "")
    found = evaluate_checkpoint(
        options.shards, path, plan, options.ten_crop, ranks, options.quiet or not ranks.is_rank0
    )
    if not ranks.is_rank0:
        return
    if options.as_json:
        scores = {name: getattr(found, name) for name in ("top1", "top5", "loss", "lost")}
        click.echo(_json({**scores, "checkpoint": str(path), "ten_crop": options.ten_crop}))
        return
    lost = f", {found.lost} samples lost" if found.lost else ""
    crops = "ten crops" if options.ten_crop else "centre crop"
    click.echo(f"{path}: top-1 {found.top1:.2%}, top-5 {found.top5:.2%}, loss {found.loss:.3f}, {crops}{lost}")


def _train(jobs: list[TrainJob], plan: TrainPlan, ranks: Ranks, options: TrainOptions) -> None:
    """Train networks.

    Raises:
        TrainError: if one failed.
    """
    launch, say = options.launch, speaker(options.quiet or not ranks.is_rank0)
    backend = _backend(plan, len(jobs), launch)
    if backend is not None:  # how many meet on a machine of a cluster is not known
        at_once = backend.jobs if launch.on_this_machine else None
        jobs = [
            replace(job, plan=replace(job.plan, reading=replace(job.plan.reading, networks=at_once))) for job in jobs
        ]
    if ranks.world_size > 1:
        if launch.jobs or not launch.on_this_machine:
            raise click.UsageError(
                "torchrun's processes train one network after another: leave out --jobs and --backend"
            )
        backend = None

    def print_outcome(outcome: TrainOutcome) -> None:
        out = jobs[0].out.parent / outcome.name
        if outcome.result is None:
            click.echo(f"{out} failed: {outcome.failure}", err=True)
        elif ranks.is_rank0:
            how = "is finished" if outcome.earlier else f"took {human_seconds(outcome.result.seconds)}"
            click.echo(f"{out} {how}: {_summary(outcome.result)}")

    def train_in_turn() -> Iterator[TrainOutcome]:
        for number, job in enumerate(jobs, 1):
            say((f"network {number} of {len(jobs)}: " if len(jobs) > 1 else "") + _heading([job]))
            outcome = train_one(job, quiet=options.quiet or not ranks.is_rank0, ranks=ranks)
            if outcome.failure and (len(jobs) == 1 or ranks.world_size > 1):  # ranks have lost each other
                raise TrainError(outcome.failure)
            print_outcome(outcome)
            yield outcome

    ranks.broadcast_from_rank0(lambda: _check_jobs(jobs))
    say(textwrap.fill(f"recipe {plan.recipe}", 110, subsequent_indent="  ", break_on_hyphens=False))
    if backend is None:
        outcomes = list(train_in_turn())
        if ranks.is_rank0 and len(jobs) > 1 and not options.quiet:
            states = {outcome.name: "failed" if outcome.failure else "done" for outcome in outcomes}
            click.echo(progress_table({job.name: job.out for job in jobs}, plan.recipe.epochs, states), err=True)
    else:
        say(_heading(jobs))
        outcomes = list(train_networks(jobs, backend, plan.recipe.epochs, print_outcome, options.quiet))
    if failed := [outcome.name for outcome in outcomes if outcome.failure]:
        what = f"{len(failed)} of {len(jobs)} networks failed ({', '.join(failed)})"
        how = "run the same command again" + (", without --no-resume," if plan.restart else "")
        raise TrainError(f"{what}: mend what is said above, and {how} to train what is missing")
    if len(jobs) > 1:
        root = jobs[0].out.parent
        say(f"all {len(jobs)} networks are in {root}: fuse them with spectral ensemble {shlex.quote(str(root))}")


def _check_jobs(jobs: Sequence[TrainJob]) -> None:
    """Raise TrainError before anything is trained: for impossible networks, and folders with runs of another kind."""
    opened: dict[tuple[str, tuple[int, ...]], list[BandManifest]] = {}
    for job in jobs:
        job.plan.network.check()
        key = (job.shards, job.bands)
        if key not in opened:
            try:
                opened[key] = open_bands(*key).each
            except SpectralError:  # which fails this network, when its turn comes, and no other
                opened[key] = []
        if bands := opened[key]:
            job.plan.network.shape(bands)
            if (job.out / RUN).exists():
                RunFolder(job.out).finished(bands, job.plan)


def _backend(plan: TrainPlan, networks: int, launch: LaunchOptions) -> Backend | None:
    """Return where several networks are trained at once; None for one after another in this process."""
    if not launch.on_this_machine:
        return Backend(launch.backend, launch.address, launch.jobs or -1, gpu=plan.device != "cpu", isolated=True)
    gpus = torch.cuda.device_count() if plan.device in ("auto", "cuda") else 0
    count = min((launch.jobs or 1) * max(gpus, 1), networks)
    backend = Backend(launch.backend, launch.address, count, isolated=True)
    return backend if count > 1 else None


def _heading(jobs: list[TrainJob]) -> str:
    """Return what is about to be trained, as far as the first job says."""
    job, more = jobs[0], len(jobs) - 1
    shards, out = shown(job.shards), job.out
    if job.bands:
        shards = f"{shards}, bands {'+'.join(map(str, job.bands))}"
    if more:
        shards, out = f"{shards} and {more} more", out.parent
    try:
        bands = open_bands(job.shards, job.bands)
    except SpectralError:
        return f"{shards}: {job.plan.network} into {out}"
    manifest, recipe = bands.first, job.plan.recipe
    samples = manifest.parts["train"].samples if "train" in manifest.parts else 0
    heading = (
        f"{shards}: {job.plan.network} on {job.plan.network.shape(bands.each)}, {samples} samples, "
        f"{recipe.epochs} {'epoch' if recipe.epochs == 1 else 'epochs'} of recipe {recipe.name} into {out}"
    )
    if "val" not in manifest.parts or not manifest.parts["val"].samples:
        heading += "\nNo val part: nothing is evaluated, and the run cannot be fused"
    return heading


def _summary(result: Result) -> str:
    if result.top1 is None or result.top5 is None:
        return f"train top-1 {result.train_top1:.2%}, not evaluated"
    return f"top-1 {result.top1:.2%}, top-5 {result.top5:.2%}"
