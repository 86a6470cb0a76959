"""spectral-train with a cnn whose loss does not depend on how a batch is dealt to ranks: no batch norm.

What one process and two compute then differs by rounding only, if they read the same batches. With SLOW_STEPS in the
environment a step takes some milliseconds more, so that a run can be killed where a test wants it; with SLOW_VAL an
evaluation takes seconds; with DROPOUT there is some.
"""

import os
import time
from typing import Any

import torch
from torch import nn

from spectral_shards.train.cli import main
from spectral_shards.train.engine import evaluate, trainer
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.networks import InputShape, NetworkOptions, cnn


def plain(shape: InputShape, options: NetworkOptions) -> nn.Module:
    side = ((shape.plane - 3) // 2 + 1) - 2
    return nn.Sequential(
        nn.Conv2d(shape.channels, 16, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5 if "DROPOUT" in os.environ else 0.0),
        nn.Linear(32 * side * side, shape.classes),
    )


class SlowStep(TrainStep):
    def __call__(self, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.005)
        return super().__call__(*arguments)


at_speed = evaluate.evaluate


def slow_evaluate(*arguments: Any, **options: Any) -> Any:
    print("evaluating", flush=True)
    time.sleep(20)
    return at_speed(*arguments, **options)


if __name__ == "__main__":
    cnn.cnn = plain
    if "SLOW_STEPS" in os.environ:
        trainer.TrainStep = SlowStep  # type: ignore[attr-defined]
    if "SLOW_VAL" in os.environ:
        evaluate.evaluate = slow_evaluate  # type: ignore[assignment]
    main()
