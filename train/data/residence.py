"""Where the samples of a run are kept: in the shards, or decompressed in memory or on the device (`--resident`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...shards_manifest.dataset import Bands
from ...shards_manifest.manifest import DTYPES
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..errors import TrainError

RESIDENT = ("auto", "device", "memory", "off")
SHARE = 0.7  # of what is free, which `auto` takes at most; the rest is for networks and for files
ROOT = Path("/")


def decompressed_bytes(bands: Bands, parts: Iterable[str]) -> int:
    """Return the bytes of the samples and labels of some parts of bands."""
    geometry = bands.first.geometry
    sample = len(bands.each) * 3 * geometry.plane**2 * DTYPES[geometry.dtype].itemsize
    return sum(bands.first.parts[part].samples for part in parts) * (sample + 8)


@dataclass(frozen=True)
class FreeMemory:
    """What is free for the samples of networks that are trained at once.

    Attributes:
        memory: Bytes of memory; None if that is not known.
        device: Bytes on a GPU, beside what training steps take there; None without one.
        networks: How many share the memory; each is assumed to read other samples. None if that is not known.
        networks_on_device: How many share the GPU.
        shared: Bytes of the wanted samples that other processes have in memory, where they need no more.
    """

    memory: int | None
    device: int | None = None
    networks: int | None = 1
    networks_on_device: int = 1
    shared: int = 0


def residence(wanted: str, needed: int, free: FreeMemory) -> str:
    """Return where the samples of a run are kept.

    Args:
        wanted: One of RESIDENT.
        needed: Bytes of the samples of one network.
        free: What is free.

    Returns:
        device, memory or off.

    Raises:
        TrainError: The wanted place has too little free memory.
    """
    in_memory = max((free.networks or 1) * needed - free.shared, 0)
    places = {"device": (free.device, free.networks_on_device * needed), "memory": (free.memory, in_memory)}
    if wanted == "auto":
        fits = (
            place
            for place, (size, more) in places.items()
            if size is not None and free.networks is not None and more <= SHARE * size
        )
        return next(fits, "off")
    if wanted == "off":
        return wanted
    size, more = places[wanted]
    if wanted == "device" and size is None:
        raise TrainError("--resident device needs a GPU: choose memory, or leave it out")
    if size is not None and more > size:
        raise TrainError(
            f"--resident {wanted} needs {human_bytes(more)} and {human_bytes(size)} are free: "
            "leave it out, or train fewer networks at once"
        )
    return wanted


def free_memory(root: Path = ROOT) -> int | None:
    """Return the bytes of memory that this process may still use, by the machine and its control group.

    Args:
        root: Of the file system with proc and sys, for tests.

    Returns:
        None where the system does not say.
    """
    found = list(_of_the_machine(root))
    return min([*found, *_of_the_groups(root)]) if found else None


def _of_the_machine(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])


def _of_the_groups(root: Path) -> Iterator[int]:
    """Yield what is left of the limit of this process's control group, and of those that it is in."""
    with suppress(OSError, ValueError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
        kinds = (
            ("", "", "memory.max", "memory.current"),
            ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        )
        for controllers, folder, limit, usage in kinds:
            path = Path(paths.get(controllers, "/").lstrip("/"))
            for group in (path, *path.parents):
                place = root / "sys/fs/cgroup" / folder / group
                with suppress(OSError, ValueError):  # no limit is written as "max"
                    left = int((place / limit).read_text()) - int((place / usage).read_text())
                    yield max(left + _cached(place), 0)


def _cached(group: Path) -> int:
    """Return the bytes that a control group uses to cache files, which are given back when they are needed."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return 0
