"""Train one band with a network, an optimizer and a schedule of timm's.

pip install timm
python examples/timm_loop.py sub4/00 10 resnet18
"""

from __future__ import annotations

import sys

import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, accuracy

from spectral_shards import BandAugmentation, BandLoader, open_band

BATCH_SIZE = 64


def main(shards: str, epochs: int, name: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    band = open_band(shards)
    classes = len(band.manifest.classes)
    train, val = (BandLoader(band, part, BATCH_SIZE) for part in ("train", "val"))
    augmentation = BandAugmentation(band.manifest, flip=True, random_shift=1).to(device)
    model = timm.create_model(name, num_classes=classes).to(device)
    mixup = Mixup(mixup_alpha=0.2, label_smoothing=0.1, num_classes=classes)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    schedule = CosineLRScheduler(optimizer, t_initial=epochs, warmup_t=1, warmup_lr_init=1e-5)
    criterion = SoftTargetCrossEntropy()

    for epoch in range(epochs):
        train.set_epoch(epoch)
        schedule.step(epoch)
        model.train()
        augmentation.train()
        losses, top1 = AverageMeter(), AverageMeter()
        for x, y in train:
            inputs, targets = mixup(augmentation(x.to(device)), y.to(device))
            loss = criterion(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(y))

        model.eval()
        augmentation.eval()
        with torch.inference_mode():
            for x, y in val:
                (right,) = accuracy(model(augmentation(x.to(device))), y.to(device))
                top1.update(right.item(), len(y))
        print(f"epoch {epoch + 1}: loss {losses.avg:.3f}, top-1 {top1.avg:.2f}%")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
