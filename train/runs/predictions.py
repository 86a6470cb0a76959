"""The outputs of a network on a part, written as they are computed: those of ImageNet-21K would fill the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from ..distributed import Ranks

LOGITS = "{}-logits.npy"
LABELS = "{}-labels.npy"

Rows = tuple[NDArray[np.float16], NDArray[np.int64]]  # logits (samples, classes) and labels (samples,)


@dataclass
class PredictionFile:
    """An .npy file that is written row by row.

    Attributes:
        file: Open for writing.
        start: Where the first row begins, in bytes.
    """

    file: BinaryIO
    start: int

    @staticmethod
    def create(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> PredictionFile:
        """Write the header of an array.

        Args:
            file: Open for writing, empty.
            dtype: NumPy's name of it, as <f2.
            shape: Of the whole array.
        """
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return PredictionFile(file, file.tell())

    def write(self, row: int, rows: NDArray[np.generic]) -> None:
        """Write rows from number `row` on."""
        self.file.seek(self.start + row * rows[:1].nbytes)
        self.file.write(np.ascontiguousarray(rows).data)


@dataclass
class PredictionWriter:
    """Takes what each rank computes to the files of rank 0, a batch of every rank at a time.

    Attributes:
        ranks, device: Who computes, and on what.
        logits, labels: The files, in rank 0 alone.
    """

    ranks: Ranks
    device: torch.device
    logits: PredictionFile | None = None
    labels: PredictionFile | None = None
    _next: list[int] = field(default_factory=list)

    def begin(self, starts: Sequence[int]) -> None:
        """Begin a part. starts: the first row of every rank, whose samples follow one another."""
        self._next = list(starts)

    def add(self, rows: Rows | None) -> bool:
        """Write one batch of every rank. All ranks call this together.

        Args:
            rows: The batch of this rank; None where it has no more.

        Returns:
            False when no rank had any.
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
        """Write what other ranks have more than this one."""
        while self.add(None):
            pass
