"""A split of images in a bucket beside one of the same images on a disk, in turn, in one run.

    python benchmarks/remote.py ../shared/data/imagenet-sample

The bucket is a real S3 server (SeaweedFS, of the test extra) on loopback, asked directly and with 20 ms added to
every answer. One worker; the server and the delay share the machine with it.
"""

from __future__ import annotations

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

from support import forms  # noqa: E402
from support.buckets import BUCKET, Server, SlowProxy, environment  # noqa: E402


def seconds(source: str, folder: Path, port: int) -> float:
    """Time of a whole `spectral-prep split`."""
    program = Path(sys.executable).with_name("spectral-prep")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [str(program), "split", source, "--factor", "36", "--out", f"{out}/out", "--jobs", "1"]
        command += ["--samples-per-shard", "2048", "--val-per-class", "0"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment(port, retry=60)})
        return time.perf_counter() - started


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True)
@click.option("--times", default=4, show_default=True, help="How often each image is taken.")
@click.option("--delay", default=0.02, show_default=True, help="Seconds added to every answer.")
def main(source: Path, runs: int, times: int, delay: float) -> None:
    """Print medians and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(source.glob("*/*")):
            (folder / "set" / path.parent.name).mkdir(parents=True, exist_ok=True)
            for copy in range(times):
                (folder / "set" / path.parent.name / f"{copy}-{path.name}").write_bytes(path.read_bytes())
        tar = forms.tar_of_tars(folder / "set", folder / "set.tar")
        (folder / "weed").mkdir()
        server = Server(folder / "weed")
        server.start()
        slow = SlowProxy(server.port, delay)
        try:
            server.put(folder / "set", "set")
            server.put(tar, "set.tar")
            images = sum(1 for _ in (folder / "set").glob("*/*"))
            click.echo(f"{images} images, 36 bands, one worker, {runs} runs in turn; seconds of the whole command\n")
            click.echo(
                "| source | where | median | min | max | ratio to the disk, run by run |\n|---|---|---|---|---|---|"
            )
            places = {"disk": (str(folder), 0), "bucket": (f"s3://{BUCKET}", server.port)}
            places[f"bucket, {1000 * delay:.0f} ms later"] = (f"s3://{BUCKET}", slow.port)
            for what, name in (("class folders", "set"), ("tar of tars", "set.tar")):
                taken = [
                    [seconds(f"{root}/{name}", folder, port) for root, port in places.values()] for _ in range(runs)
                ]
                for number, where in enumerate(places):
                    column = sorted(run[number] for run in taken)
                    ratio = median(run[number] / run[0] for run in taken)
                    row = f"{median(column):.1f} | {column[0]:.1f} | {column[-1]:.1f} | {ratio:.2f}"
                    click.echo(f"| {what} | {where} | {row} |")
        finally:
            slow.close()
            server.stop()


if __name__ == "__main__":
    main()
