"""Train the network of own_trainer.py on every band of a split, as tasks of a Ray cluster.

python examples/ray_members.py sub4 10 --address head:6379
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import ray
from own_trainer import train_band

from spectral_shards import open_split


def main(shards: str, epochs: int, address: str | None) -> None:
    shards = os.path.abspath(shards) if os.path.isdir(shards) else shards  # workers have folders of their own
    ray.init(address, runtime_env={"working_dir": str(Path(__file__).parent)})  # workers import own_trainer from it
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_gpus=gpus, max_retries=3)(train_band)
    running = {
        task.remote(f"{shards}/{band.folder}", epochs): band.folder for band in open_split(shards).manifest.bands
    }
    while running:
        (done,), _ = ray.wait(list(running))
        print(f"band {running.pop(done)}: top-1 {ray.get(done):.2%}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a network on every band of a split.")
    parser.add_argument("shards")
    parser.add_argument("epochs", type=int)
    parser.add_argument("--address", help="of the cluster; left out, this machine is one")
    main(**vars(parser.parse_args()))
