"""How a split scales with worker processes, and how much memory a worker takes.

    python benchmarks/workers.py ../shared/data/imagenet-sample

Complete commands, `spectral-prep split --jobs N` into a temporary folder, in turn, with everything from start to
end. The memory is the largest resident set of any of their processes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
from split import repeated


def run(source: Path, factor: int, jobs: int, samples_per_shard: int) -> tuple[float, float]:
    """Seconds of one command, and the largest resident set in MB of it and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("spectral-prep")), "split", "--factor", str(factor), str(source)]
        command += ["--out", f"{folder}/out", "--jobs", str(jobs), "--val-per-class", "0"]
        command += ["--samples-per-shard", str(samples_per_shard)]
        quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        started = time.perf_counter()
        child = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
        _, status, used = os.wait4(child, 0)  # of the child and of its own children
        if status:
            raise click.ClickException(f"{' '.join(command)} failed")
        return time.perf_counter() - started, used.ru_maxrss / 1000


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--factor", default=36, show_default=True)
@click.option("--runs", default=5, show_default=True)
@click.option("--times", default=16, show_default=True, help="How often each image is taken.")
@click.option("--samples-per-shard", default=1000, show_default=True)
def main(source: Path, factor: int, runs: int, times: int, samples_per_shard: int) -> None:
    """Print the rate and the memory with one worker and with all cores."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        images = repeated(source, Path(folder, "images"), times, large=False)
        count = sum(1 for _ in images.glob("*/*"))
        found = [
            (run(images, factor, 1, samples_per_shard), run(images, factor, cores, samples_per_shard))
            for _ in range(runs)
        ]
    for jobs, results in zip((1, cores), zip(*found, strict=True), strict=True):
        rates = sorted(count / seconds for seconds, _ in results)
        click.echo(
            f"{jobs} workers: {median(rates):.0f} images/s ({rates[0]:.0f} to {rates[-1]:.0f}), "
            f"at most {max(memory for _, memory in results):.0f} MB a process"
        )
    ratios = sorted(one[0] / many[0] for one, many in found)
    click.echo(f"ratio, pair by pair: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), n = {runs}")


if __name__ == "__main__":
    main()
