"""From the paths that a user names to a page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..shards_manifest.dataset import Split, open_bands, open_data
from ..shards_manifest.errors import FormatError, SpectralError
from ..shards_manifest.manifest import MANIFEST, SplitManifest
from ..shards_manifest.storage.address import is_url, shown
from ..train.ensemble.members import find_runs, open_baseline
from ..train.runs.run_record import RunData
from .content import Page, Section
from .ensemble_section import ensemble_section
from .runs_section import RunLog, find_logs, runs_section
from .split_section import split_section


def make_page(
    paths: Sequence[str], baseline: Path | None = None, stage: Callable[[str], object] = lambda text: None
) -> Page:
    """Return the page about splits, runs, and the ensemble of the runs that are finished.

    Args:
        paths: splits, run folders, and folders of run folders.
        baseline: run of a network that saw the whole images.
        stage: called with what is done from then on, in words.

    Raises:
        FormatError: a path is neither.
        EnsembleError, TrainError: there is no such baseline.
        SpectralError: something in them is damaged.
    """
    if baseline is not None:
        open_baseline(baseline)  # so that a wrong one is refused, whatever else is shown
    splits: dict[str, Split] = {}
    logs: list[RunLog] = []
    folders: list[Path] = []
    for path in paths:
        stage(f"reading {shown(path)}")
        if is_url(path) or (Path(path) / MANIFEST).exists():
            store, manifest = open_data(path)
            if not isinstance(manifest, SplitManifest):
                raise FormatError(f"{shown(path)} is one band: name the folder of the whole split")
            splits[path] = Split(store, manifest)
        elif Path(path).is_dir() and (found := find_logs(Path(path))):
            logs += found
            folders.append(Path(path))
        else:
            raise FormatError(
                f"{path} is neither a split nor a folder of runs: give a folder that spectral split or train has made"
            )
    sections = []
    for path, split in splits.items():
        stage(f"drawing {shown(path)}")
        sections.append(split_section(path, split))
    if logs:
        stage(f"drawing {len(logs)} runs")
        sections.append(runs_section(logs, _split_finder(splits)))
    if sum(log.record is not None for log in logs) > 1:
        sections.append(_ensemble(folders, logs, list(splits.values()), baseline, stage))
    return Page(f"Spectral report: {', '.join(_name(path) for path in paths)}", tuple(sections))


def _name(path: str) -> str:
    return shown(path) if is_url(path) else os.path.basename(os.path.abspath(path))


def _ensemble(
    folders: list[Path],
    logs: list[RunLog],
    splits: list[Split],
    baseline: Path | None,
    stage: Callable[[str], object],
) -> Section:
    """Return the section about the ensemble; a sentence where the runs cannot be fused."""
    where = shlex.join(map(str, folders))
    try:
        runs = find_runs(*(log.path for log in logs if log.record is not None))
        order = runs[0].sample_order.get("val")
        split = next((each for each in splits if _order(each, "val") == order), None)
        return ensemble_section(runs, split, baseline, where, stage)
    except SpectralError as error:
        return Section("The ensemble", (f"The runs are not fused: {error}.",))


def _split_finder(splits: Mapping[str, Split]) -> Callable[[RunData], str]:
    """Return a function that says where the split of a run's data is; nothing if it is not at hand."""
    bands = {shown(path): {band.band: band for band in open_bands(split).each} for path, split in splits.items()}

    def find(data: RunData) -> str:
        for path, each in bands.items():
            if each.keys() >= set(data.bands) and RunData.of([each[band] for band in data.bands]) == data:
                return path
        return ""

    return find


def _order(split: Split, part: str) -> str:
    """Return the digest of the sample order of a part; nothing if the split has no such part."""
    return split.manifest.parts[part].digest if part in split.manifest.parts else ""
