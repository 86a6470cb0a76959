"""The processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed, nn

from ..shards_manifest.errors import SpectralError
from .errors import TrainError

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # for a rank that waits for a server


@dataclass(frozen=True)
class Ranks:
    """rank: of this process, from 0.  size: processes in all.  local: its number on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @staticmethod
    def of_environment() -> Ranks:
        """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; one process without it. Raises TrainError."""
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return Ranks()
        try:
            values = {name: int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        except ValueError:
            raise TrainError("RANK, WORLD_SIZE and LOCAL_RANK are not numbers: start with torchrun, or unset") from None
        return Ranks(values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"])

    @property
    def first(self) -> bool:
        """True for the process that writes files and speaks."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Be connected with the other processes: by nccl between GPUs, gloo otherwise.

        Raises TrainError when another has ended. After an error the connections end with the process: to take leave
        of ranks that wait for this one would be to wait for them.
        """
        if self.size == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)  # what objects are sent through, too
            distributed.init_process_group("nccl", timeout=PATIENCE, device_id=device)
        else:
            distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo/transport" in str(error):
                raise TrainError(f"rank {self.rank} ends because another has: see what that one says") from None
            raise
        distributed.destroy_process_group()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, in each of them."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def align(self, module: nn.Module) -> None:
        """Give every process the first one's buffers, such as batch norm's statistics, which each gathers by itself."""
        if self.size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def broadcast_from_rank0(self, function: Callable[[], T]) -> T:
        """What the first process gets from a function, or the SpectralError that it raises, in each of them."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome = [function(), None]
            except SpectralError as error:
                outcome = [None, error]
        distributed.broadcast_object_list(outcome)
        value, failure = outcome
        if failure is not None:
            raise failure
        return cast(T, value)

    def to_first(self, value: T) -> list[T]:
        """What every process gives, in order of ranks, in the first; an empty list in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.first else None
        distributed.gather_object(value, values)
        return values or []


SINGLE_PROCESS = Ranks()
