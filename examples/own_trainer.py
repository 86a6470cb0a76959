"""Train one band by a loop of your own, in plain PyTorch.

python examples/own_trainer.py sub4/00 10
torchrun --nproc-per-node 2 examples/own_trainer.py sub4/00 10
"""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed, nn

from spectral_shards import BandAugmentation, BandLoader, build_network, open_band

BATCH_SIZE = 64


def train_band(shards: str, epochs: int) -> float:
    """Return the top-1 accuracy on val, 0 to 1, of a network that is trained on a band."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu", int(os.environ.get("LOCAL_RANK", 0)))
    if world_size > 1:
        distributed.init_process_group()
    torch.manual_seed(0)

    band = open_band(shards)
    train = BandLoader(band, "train", BATCH_SIZE, rank=rank, world_size=world_size)
    val = BandLoader(band, "val", BATCH_SIZE, rank=rank, world_size=world_size)
    augmentation = BandAugmentation(band.manifest, flip=True, random_shift=1).to(device)
    network = build_network("cnn", band.manifest.geometry.crop, len(band.manifest.classes)).to(device)
    model = nn.parallel.DistributedDataParallel(network) if world_size > 1 else network
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)

    for epoch in range(epochs):
        train.set_epoch(epoch)  # an order of its own for every epoch, the same for any number of processes
        model.train()
        augmentation.train()
        for x, y in train:
            loss = nn.functional.cross_entropy(model(augmentation(x.to(device))), y.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        network.eval()
        augmentation.eval()
        right = torch.zeros(1, device=device)
        with torch.inference_mode():
            for x, y in val:
                right += (network(augmentation(x.to(device))).argmax(1) == y.to(device)).sum()
        if world_size > 1:
            distributed.all_reduce(right)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}, top-1 {right.item() / val.samples:.2%}")
    return right.item() / val.samples


if __name__ == "__main__":
    train_band(sys.argv[1], epochs=int(sys.argv[2]))
