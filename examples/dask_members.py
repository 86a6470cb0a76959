"""Train the network of own_trainer.py on every band of a split, as tasks of a Dask cluster.

python examples/dask_members.py sub4 10 --address tcp://head:8786
"""

from __future__ import annotations

import argparse
import os

import own_trainer
from dask.distributed import Client, as_completed

from spectral_shards import open_split


def main(shards: str, epochs: int, address: str | None) -> None:
    shards = os.path.abspath(shards) if os.path.isdir(shards) else shards  # workers have folders of their own
    here = {} if address else {"threads_per_worker": 1}  # a process trains one network at a time
    with Client(address, **here) as client:
        client.upload_file(own_trainer.__file__)
        folders = {f"{shards}/{band.folder}": band.folder for band in open_split(shards).manifest.bands}
        running = client.map(own_trainer.train_band, list(folders), epochs=epochs, pure=False, retries=3)
        bands = dict(zip(running, folders.values(), strict=True))
        for done, top1 in as_completed(running, with_results=True):
            print(f"band {bands[done]}: top-1 {top1:.2%}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a network on every band of a split.")
    parser.add_argument("shards")
    parser.add_argument("epochs", type=int)
    parser.add_argument("--address", help="of the scheduler; left out, this machine is a cluster")
    main(**vars(parser.parse_args()))
