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

TIMEOUT = timedelta(minutes=30)  # long: a rank may wait for a server


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one network together.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process on its machine, from 0.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @staticmethod
    def from_environment() -> Ranks:
        """Read RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets; without them there is one process.

        Raises:
            TrainError: if they are not numbers.
        """
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return Ranks()
        try:
            values = {name: int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        except ValueError:
            raise TrainError("RANK, WORLD_SIZE and LOCAL_RANK are not numbers: start with torchrun, or unset") from None
        return Ranks(values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"])

    @property
    def is_rank0(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    @contextmanager
    def process_group(self, device: torch.device) -> Iterator[None]:
        """Connect the processes while the block runs: by nccl between GPUs, by gloo otherwise.

        After an error the connections end with the process: to close them properly, it would have to wait for ranks
        that wait for it.

        Raises:
            TrainError: if another process has ended.
        """
        if self.world_size == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)  # objects are sent through it, too
            distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
        else:
            distributed.init_process_group("gloo", timeout=TIMEOUT)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo/transport" in str(error):
                raise TrainError(f"rank {self.rank} ends because another has: see what that one says") from None
            raise
        distributed.destroy_process_group()

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place, and return it in each of them."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Give every process the buffers of rank 0, such as the statistics of batch norm, which each rank gathers."""
        if self.world_size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def broadcast_from_rank0(self, function: Callable[[], T]) -> T:
        """Call a function in rank 0, and return its value, or raise its SpectralError, in every process."""
        if self.world_size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_rank0:
            try:
                outcome = [function(), None]
            except SpectralError as error:
                outcome = [None, error]
        distributed.broadcast_object_list(outcome)
        value, failure = outcome
        if failure is not None:
            raise failure
        return cast(T, value)

    def gather_to_rank0(self, value: T) -> list[T]:
        """Return the values of all processes, in order of ranks, in rank 0; an empty list in the others."""
        if self.world_size == 1:
            return [value]
        values: list[Any] | None = [None] * self.world_size if self.is_rank0 else None
        distributed.gather_object(value, values)
        return values or []


SINGLE_PROCESS = Ranks()
