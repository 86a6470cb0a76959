"""How fast a band is read from a bucket beside the same band on a disk, in turn, in one run.

    python benchmarks/stream.py ../shared/data/imagenet-sample

The bucket is a real S3 server (SeaweedFS, of the test extra) on loopback, asked directly and with 20 ms added to
every answer; the server and the delay share the machine with the reader. Each reader is a process of its own that
reads three epochs; the first shows how long the first batch takes, the second and third the steady rate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from read import prepared  # noqa: E402

from support.buckets import BUCKET, Server, SlowProxy, environment  # noqa: E402

EPOCHS = 3


def read(band: str, cache: str | None, pace: float) -> dict[str, float]:
    """Read a band as one rank without other processes does.

    Args:
        band: Folder or URL of the band.
        cache: Folder of the cache; None for none.
        pace: Samples/s that are asked for at most; 0 for no limit.

    Returns:
        first: Seconds to the first batch.
        rate: Samples/s after the first epoch.
        data_wait: Share of the time after the first epoch that was spent waiting for batches.
    """
    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.reader import BlockReader
    from spectral_shards.train.data.block_cache import BlockCache
    from spectral_shards.train.data.sampler import EpochSampler, Span
    from spectral_shards.train.data.stream import TrainStream
    from spectral_shards.train.data.worker_pool import read_ahead

    started = time.perf_counter()
    store, manifest = open_band(band)
    blocks = BlockReader(store, manifest, "train", BlockCache(cache, 10**10) if cache else None)
    plan = EpochSampler.of(blocks.samples, 256, blocks.block_bytes, 0)
    stream = TrainStream(blocks, plan, Span(0, plan.batch_size), range(EPOCHS))
    first = steady = data_wait = 0.0
    samples = 0
    asked = time.perf_counter()
    for number, batch in enumerate(read_ahead(stream, 0, pin_memory=False)):
        now = time.perf_counter()
        first = first or now - started
        if number >= plan.batches:
            steady = steady or asked
            data_wait += now - asked
            samples += len(batch.y)
        if pace and (left := len(batch.y) / pace - (now - asked)) > 0:
            time.sleep(left)
        asked = time.perf_counter()
    seconds = asked - steady
    return {"first": first, "rate": samples / seconds, "data_wait": data_wait / seconds}


def measured(band: str, cache: str, port: int, pace: float) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "read", band, cache, str(pace)]
    environ = {**os.environ, **environment(port), "OMP_NUM_THREADS": "1"}
    return dict(json.loads(subprocess.check_output(command, env=environ)))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--samples", default=20_000, show_default=True, help="At least so many.")
@click.option("--factor", default=36, show_default=True)
@click.option("--band", default="07", show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--delay", default=0.02, show_default=True, help="Seconds added to every answer.")
@click.option("--paces", default="0,10000", show_default=True, help="Samples/s asked for; 0 for as many as come.")
def main(source: Path, samples: int, factor: int, band: str, runs: int, delay: float, paces: str) -> None:
    """Print medians and the ratio to the disk, run by run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = prepared(source, folder, samples, factor)
        (folder / "weed").mkdir()
        server = Server(folder / "weed")
        server.start()
        slow = SlowProxy(server.port, delay)
        try:
            server.put(folder / "split" / band, band)
            later = f"bucket, {1000 * delay:.0f} ms later"
            places = {
                "disk": (str(folder / "split" / band), 0, False),
                "bucket": (f"s3://{BUCKET}/{band}", server.port, False),
                later: (f"s3://{BUCKET}/{band}", slow.port, False),
                f"{later}, cached": (f"s3://{BUCKET}/{band}", slow.port, True),
            }
            click.echo(f"{count} samples of band {band}, {EPOCHS} epochs, the first for warming up, {runs} runs\n")
            click.echo("| asked for | where | first batch | samples/s from then on | of the disk's | waiting |")
            click.echo("|---|---|---|---|---|---|")
            for pace in map(float, paces.split(",")):
                found: dict[str, list[dict[str, float]]] = {place: [] for place in places}
                for number in range(runs):
                    for place, (url, port, cached) in places.items():
                        cache = str(folder / f"cache-{pace}-{number}") if cached else ""
                        found[place].append(measured(url, cache, port, pace))
                report(pace, found)
        finally:
            slow.close()
            server.stop()


def report(pace: float, found: dict[str, list[dict[str, float]]]) -> None:
    """Print the lines of one pace."""
    for place, results in found.items():
        rates = sorted(result["rate"] for result in results)
        share = median(one["rate"] / disk["rate"] for one, disk in zip(results, found["disk"], strict=True))
        first, data_wait = (median(result[key] for result in results) for key in ("first", "data_wait"))
        speed = f"{median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        asked = f"{pace:,.0f}/s" if pace else "as many as come"
        click.echo(f"| {asked} | {place} | {first:.2f} s | {speed} | {share:.2f} | {100 * data_wait:.0f} % |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        print(json.dumps(read(sys.argv[2], sys.argv[3] or None, float(sys.argv[4]))))
    else:
        main()
