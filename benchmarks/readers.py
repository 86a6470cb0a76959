"""How fast a band is read by the training thread itself and by threads that read ahead, and what memory that takes.

    python benchmarks/readers.py sub36/07

Each number of workers is a process of its own, in turn, the page cache warm: batches of 256, shuffled, as tensors.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import closing
from statistics import median

import click

EPOCHS = 12


def read(band: str, workers: int) -> dict[str, float]:
    """Samples/s from the first batch on, and the peak of the resident set in MB."""
    import torch

    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.reader import BlockReader
    from spectral_shards.train.data.sampler import EpochSampler, Span
    from spectral_shards.train.data.stream import TrainStream
    from spectral_shards.train.data.worker_pool import read_ahead

    torch.set_num_threads(1)
    store, manifest = open_band(band)
    blocks = BlockReader(store, manifest, "train")
    plan = EpochSampler.of(blocks.samples, 256, blocks.block_bytes, 0)
    stream = TrainStream(blocks, plan, Span(0, plan.batch_size), range(EPOCHS))
    with closing(read_ahead(stream, workers, pin_memory=False)) as batches:
        next(batches)
        started = time.perf_counter()
        samples = sum(len(batch.y) for batch in batches)
        rate = samples / (time.perf_counter() - started)
    return {"rate": rate, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


@click.command()
@click.argument("band")
@click.option("--most", default=2, show_default=True, help="Workers at most.")
@click.option("--runs", default=3, show_default=True)
@click.option("--one", type=int, hidden=True)
def main(band: str, most: int, runs: int, one: int | None) -> None:
    """Print samples/s and memory for 0 to MOST workers."""
    if one is not None:
        click.echo(json.dumps(read(band, one)))
        return
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in range(most + 1)}
    for _ in range(runs):
        for workers, results in found.items():
            command = [sys.executable, __file__, band, "--one", str(workers)]
            results.append(json.loads(subprocess.check_output(command)))
    for workers, results in found.items():
        rates = sorted(result["rate"] for result in results)
        memory = median(result["memory"] for result in results)
        click.echo(
            f"{workers} workers: {median(rates):,.0f} samples/s ({rates[0]:,.0f} to {rates[-1]:,.0f}, n = {runs}), "
            f"{memory:.0f} MB"
        )


if __name__ == "__main__":
    main()
