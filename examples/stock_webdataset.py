"""Train from a band with stock webdataset and a plain torch loop: no code of this project.

python examples/stock_webdataset.py sub4/00
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import webdataset as wds


def main(band: str) -> None:
    manifest = json.loads(Path(band, "manifest.json").read_text())
    urls = [str(Path(band, shard["name"])) for shard in manifest["parts"]["train"]["shards"]]
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=0)
        .decode()
        .to_tuple("x.npy.gz;x.npy", "y.npy")  # the second where blocks are not compressed
        .unbatched()
        .shuffle(1000)
        .batched(64)
    )
    step, mean, std = (torch.tensor(manifest[name]).view(3, 1, 1) for name in ("step", "mean", "std"))
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
        torch.nn.Linear(512, len(manifest["classes"])),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters())
    for x, y in dataset:
        inputs = (torch.as_tensor(x).float() * step - mean) / torch.maximum(std, step / 2)
        loss = torch.nn.functional.cross_entropy(network(inputs), torch.as_tensor(y))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        print(f"loss {float(loss):.3f} on {len(y)} samples")


if __name__ == "__main__":
    main(sys.argv[1])
