"""The outputs of a network on a part, written as they are computed: of ImageNet-21K they would fill the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from ..distributed import Ranks

Rows = tuple[NDArray[np.float16], NDArray[np.int64]]  # logits (samples, classes) and labels (samples,)


@dataclass
class Column:
    """An .npy file that is being written, row by row. start: where its first row begins."""

    file: BinaryIO
    start: int

    @staticmethod
    def begun(file: BinaryIO, kind: str, shape: tuple[int, ...]) -> Column:
        """With its header written. kind: of numpy, as <f2."""
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return Column(file, file.tell())

    def write(self, row: int, rows: NDArray[np.generic]) -> None:
        """Write rows from number `row` on."""
        self.file.seek(self.start + row * rows[:1].nbytes)
        self.file.write(np.ascontiguousarray(rows).data)


@dataclass
class Recorder:
    """Takes what each rank computes to the files of the first, a batch of every rank at a time.

    logits, labels: in the first rank alone.
    """

    ranks: Ranks
    device: torch.device
    logits: Column | None = None
    labels: Column | None = None
    _next: list[int] = field(default_factory=list)

    def begin(self, starts: Sequence[int]) -> None:
        """starts: the first row of every rank, whose samples follow one another."""
        self._next = list(starts)

    def add(self, rows: Rows | None) -> bool:
        """Record one batch of this rank, or none where it has no more; False when no rank had any.

        All ranks together.
        """
        some = torch.tensor([rows is not None], dtype=torch.float64, device=self.device)
        if not self.ranks.all_reduce_sum(some).item():
            return False
        for rank, found in enumerate(self.ranks.gather_to_rank0(rows)):
            if found is not None and self.logits is not None and self.labels is not None:
                self.logits.write(self._next[rank], found[0])
                self.labels.write(self._next[rank], found[1])
                self._next[rank] += len(found[1])
        return True

    def end(self) -> None:
        """Record what other ranks have more than this one."""
        while self.add(None):
            pass
