"""What a training run does: its options, checked once, and written into the checkpoint and run.json.

This module loads no torch by itself, so that the command line can show its choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .data.block_cache import BlockCache
from .data.residence import RESIDENT
from .data.sampler import LAST_BATCH
from .errors import TrainError
from .networks import NetworkOptions
from .recipes import Recipe

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
ON_BAD_SHARD = ("stop", "skip")


@dataclass(frozen=True)
class ReadOptions:
    """How samples are read.

    Attributes:
        workers: threads that read ahead and share the work; with 0, a step waits while its batch is read.
        last_batch: one of LAST_BATCH: what becomes of samples that do not fill a batch.
        cache: folder that keeps the blocks of a band in a bucket; None to fetch them again.
        cache_bytes: size limit of the cache, about.
        skip: go on without shards that are missing or damaged.
        resident: one of residence.RESIDENT: where samples are kept, decompressed.
        networks: how many are trained at once on this machine; None if that is not known.
    """

    workers: int = 1
    last_batch: str = "drop"
    cache: str | None = None
    cache_bytes: int = 50 * 10**9
    skip: bool = False
    resident: str = "off"
    networks: int | None = 1

    def __post_init__(self) -> None:
        if self.last_batch not in LAST_BATCH:
            raise TrainError(f"--last-batch {self.last_batch}: choose {', '.join(LAST_BATCH)}")
        if self.resident not in RESIDENT:
            raise TrainError(f"--resident {self.resident}: choose {', '.join(RESIDENT)}")

    def open_cache(self) -> BlockCache | None:
        """Open the cache, if there is to be one.

        Raises:
            TrainError: if its folder cannot be used.
        """
        try:
            return BlockCache(self.cache, self.cache_bytes) if self.cache else None
        except OSError as error:
            raise TrainError(f"--cache {self.cache} cannot be used ({error.strerror}): choose another folder") from None


@dataclass(frozen=True)
class RunOptions:
    """The options that change the result of a run. The recipe has most of them.

    Attributes:
        network, recipe, seed, holdout_samples: as in TrainPlan.
        last_batch: as in ReadOptions.
        precision: float32, bfloat16 or float16: what auto came to.
    """

    network: NetworkOptions
    recipe: Recipe
    seed: int
    holdout_samples: int
    last_batch: str
    precision: str

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> RunOptions:
        """Read them. Raises KeyError or TypeError."""
        return RunOptions(
            network=NetworkOptions.from_json(raw["network"]),
            recipe=Recipe(**raw["recipe"]),
            seed=int(raw["seed"]),
            holdout_samples=int(raw["holdout_samples"]),
            last_batch=str(raw["last_batch"]),
            precision=str(raw["precision"]),
        )


@dataclass(frozen=True)
class TrainPlan:
    """The options of one run; all but its bands.

    Attributes:
        network: which one, and its size.
        recipe: how the network is trained.
        seed: of the weights, the order of samples and the augmentation.
        device: auto, cpu, cuda or cuda:N.
        precision: one of PRECISIONS, of the forward pass under autocast; auto takes bfloat16 where that is faster.
        compile: use torch.compile.
        reading: how samples are read.
        save_every: seconds between checkpoints within an epoch, about.
        holdout_samples: samples of train that are not trained on; at most a twentieth are taken.
        tensorboard: write TensorBoard's event files too.
        restart: name of a command that starts the run from the beginning, once; empty to go on with what is there.
    """

    network: NetworkOptions
    recipe: Recipe
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    reading: ReadOptions = ReadOptions()
    save_every: float = 600.0
    holdout_samples: int = 10_000
    tensorboard: bool = False
    restart: str = ""

    def torch_device(self, local_rank: int = 0) -> torch.device:
        """Return the device of process `local_rank` of this machine; auto is a GPU if there is one.

        Raises:
            TrainError: if this machine has no such device.
        """
        import torch

        name = "cuda" if self.device == "auto" and torch.cuda.is_available() else self.device
        try:
            device = torch.device("cpu" if name == "auto" else f"cuda:{local_rank}" if name == "cuda" else name)
        except RuntimeError:
            raise TrainError(f"--device {self.device}: write auto, cpu, cuda or cuda:N") from None
        if device.type not in ("cpu", "cuda"):
            raise TrainError(f"--device {self.device}: write auto, cpu, cuda or cuda:N")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise TrainError(f"--device {self.device}: this machine has {torch.cuda.device_count()} CUDA devices")
        return device

    def dtype(self, device: torch.device) -> torch.dtype:
        """Return the autocast dtype on `device`; float32 means no autocast.

        Raises:
            TrainError: if the precision is not one of PRECISIONS.
        """
        import torch

        if self.precision not in PRECISIONS:
            raise TrainError(f"--precision {self.precision}: choose {', '.join(PRECISIONS)}")
        if self.precision != "auto":
            return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.precision]
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        # without AMX, oneDNN's bfloat16 convolutions are slower than float32 (docs/results.md)
        return torch.bfloat16 if _cpu_has_amx() else torch.float32

    def result_options(self) -> RunOptions:
        """Return the options that change the result."""
        return RunOptions(
            network=self.network,
            recipe=self.recipe,
            seed=self.seed,
            holdout_samples=self.holdout_samples,
            last_batch=self.reading.last_batch,
            precision=str(self.dtype(self.torch_device())).removeprefix("torch."),
        )


def _cpu_has_amx() -> bool:
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.6
    return bool(capabilities.get("amx_bf16"))
