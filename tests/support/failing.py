"""spectral-train in which something fails where FAIL_AT says; its other environment is that of without_norm.py."""

import os
import sys
from typing import Any

import torch
from torch import nn

from spectral_shards.train.cli import main
from spectral_shards.train.data import resident
from spectral_shards.train.data import stream as reader
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.engine.trainer import Trainer
from spectral_shards.train.networks import cnn
from spectral_shards.train.runs.run_folder import RunFolder
from support.without_norm import plain

NO_SPACE = OSError(28, "No space left on device")
BUG = ZeroDivisionError("a bug")


def raising(error: BaseException, after: int = 0) -> Any:
    """A function that raises `error` at call number `after`, and calls before it do nothing."""
    calls = iter(range(after))

    def call(*_: Any, **__: Any) -> None:
        if next(calls, None) is None:
            raise error

    return call


class Breaks(nn.Module):
    """Fails in the mode that it is made for."""

    def __init__(self, training: bool, rank: str = "") -> None:
        super().__init__()
        self._fails, self._rank = training, rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training == self._fails and self._rank in ("", os.environ.get("RANK")):
            raise BUG
        return x


def broken(training: bool, rank: str = "") -> Any:
    return lambda shape, options: nn.Sequential(Breaks(training, rank), plain(shape, options))


if __name__ == "__main__":
    cnn.cnn = plain
    match os.environ.get("FAIL_AT", ""):
        case "network":
            cnn.cnn = broken(training=True)
        case "evaluation":
            cnn.cnn = broken(training=False)
        case "other rank":
            cnn.cnn = broken(training=False, rank="1")
        case "step":
            TrainStep.__call__ = raising(BUG)  # type: ignore[method-assign]
        case "reader":
            sys.argv += ["--resident", "off"]
            reader._BatchAssembler.take = raising(BUG)  # type: ignore[method-assign]
        case "memory":
            sys.argv += ["--resident", "off"]
            reader._BatchAssembler.take = raising(MemoryError())  # type: ignore[method-assign]
        case "resident reader":
            sys.argv += ["--resident", "memory"]
            resident.MemoryPart.take = raising(BUG)  # type: ignore[method-assign]
        case "resident memory":
            sys.argv += ["--resident", "memory"]
            resident.MemoryPart.take = raising(MemoryError())  # type: ignore[method-assign]
        case "checkpoint":
            RunFolder.save = raising(NO_SPACE)  # type: ignore[method-assign]
        case "log":
            RunFolder.log = raising(NO_SPACE, after=2)  # type: ignore[method-assign]
        case "outputs":
            RunFolder.predictions = raising(NO_SPACE)  # type: ignore[method-assign]
        case "result":
            RunFolder.finish = raising(NO_SPACE)  # type: ignore[method-assign]
        case "report":
            Trainer._log_steps = raising(BUG)  # type: ignore[method-assign]
        case "exit":
            Trainer._log_steps = raising(SystemExit(3))  # type: ignore[method-assign]
    main()
