"""Train one band with Lightning.

pip install lightning
python examples/lightning.py sub4/00 10
"""

from __future__ import annotations

import sys

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn

from spectral_shards import BandAugmentation, BandLoader, BandManifest, build_network, open_band

BATCH_SIZE = 64


class Band(LightningModule):  # type: ignore[misc]
    """A sub-network of a band."""

    def __init__(self, manifest: BandManifest) -> None:
        super().__init__()
        self.augmentation = BandAugmentation(manifest, flip=True, random_shift=1)
        self.network = build_network("cnn", manifest.geometry.crop, len(manifest.classes))

    def on_train_epoch_start(self) -> None:
        """Take an order of its own for every epoch."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of a batch of stored coefficients, which are augmented on the device."""
        x, y = batch
        return nn.functional.cross_entropy(self.network(self.augmentation(x)), y)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        """Log the accuracy."""
        x, y = batch
        right = (self.network(self.augmentation(x)).argmax(1) == y).float().mean()
        self.log("top1", right, batch_size=len(y), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def main(shards: str, epochs: int) -> None:
    seed_everything(0)
    band = open_band(shards)
    trainer = Trainer(max_epochs=epochs, logger=False, use_distributed_sampler=False)
    place = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    train = BandLoader(band, "train", BATCH_SIZE, **place)
    val = BandLoader(band, "val", BATCH_SIZE, **place)
    trainer.fit(Band(band.manifest), train, val)
    print(f"top-1 {trainer.callback_metrics['top1']:.2%}")


if __name__ == "__main__":
    main(sys.argv[1], epochs=int(sys.argv[2]))
