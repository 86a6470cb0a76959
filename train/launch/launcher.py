"""Train the bands of a split: in this process one after another, or at once by other processes and machines."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...shards_manifest.dataset import open_band
from ...shards_manifest.errors import SpectralError, StoreError, WorkerLostError
from ...shards_manifest.runtime.executors import Backend
from ...shards_manifest.storage.address import is_url
from ...shards_manifest.storage.local import LocalStore
from ..config import TrainPlan
from ..distributed import SINGLE_PROCESS, Ranks
from ..engine.trainer import train_band
from ..runs.run_folder import ERROR, Result, RunFolder
from ..shutdown import StopRequest
from .progress import Board, reached

STOP = ".spectral-stop"  # file beside the run folders, in that of a single one: who finds it ends after a checkpoint
CANCELLED = 5.0  # seconds that Dask's workers get to end what is no longer wanted
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class BandJob:
    """One band to train. band: its folder's name.

    stop: file that ends the work when it is there.  parent: the process that it ends with; 0 for none.  gpu_locks: folder
    of the locks by which bands share this machine's GPUs; None where the plan names the device.
    """

    band: str
    shards: str
    out: Path
    plan: TrainPlan
    stop: Path | None = None
    parent: int = 0
    gpu_locks: Path | None = None


@dataclass(frozen=True)
class BandOutcome:
    """How a band ended: its result, or one sentence about why it has none. earlier: it was finished before."""

    band: str
    result: Result | None = None
    earlier: bool = False
    failure: str = ""


def train_one(
    job: BandJob, quiet: bool = True, stop: StopRequest | None = None, ranks: Ranks = SINGLE_PROCESS
) -> BandOutcome:
    """Train a band, or find it finished. What goes wrong with it is its outcome; Ctrl-C and SIGTERM are not."""
    try:
        _, manifest = open_band(job.shards)
        earlier = ranks.broadcast_from_rank0(lambda: RunFolder(job.out).finished(manifest, job.plan))
        if earlier is not None:
            return BandOutcome(job.band, earlier, earlier=True)
        return BandOutcome(job.band, train_band(job.shards, job.out, job.plan, quiet, ranks, stop))
    except SpectralError as error:
        return BandOutcome(job.band, failure=str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not quiet:  # no one reads what is printed: the end of all bands
            raise
        return BandOutcome(job.band, failure=f"{error.strerror or error} ({error.filename or job.out})")
    except Exception as error:  # a fault of ours, of a library or of a GPU is this band's affair alone
        if ranks.world_size > 1:
            raise
        text, reason = traceback.format_exc(), (str(error).splitlines() or [""])[0]
        try:
            job.out.mkdir(parents=True, exist_ok=True)
            (job.out / ERROR).write_text(text)
            where = f"all of it is in {job.out / ERROR}"
        except OSError as refused:
            where = f"{job.out / ERROR} cannot be written: {refused.strerror}"
        return BandOutcome(job.band, failure=f"{type(error).__name__}: {reason} ({where})")


def train_isolated(job: BandJob) -> BandOutcome:
    """`train_one` in a process made for such work; an interruption is an outcome there."""
    stop = StopRequest(job.stop, job.parent)
    if job.parent and threading.current_thread() is threading.main_thread():
        # a terminal sends Ctrl-C to all: the parent hands it on, and between two bands no one here would catch it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stop.requested:
        return BandOutcome(job.band, failure=INTERRUPTED)
    try:
        with _on_gpu(job) as placed:
            return train_one(placed, stop=stop)
    except (KeyboardInterrupt, SystemExit):
        if job.parent and os.getppid() != job.parent:  # no one is there to be told, or to end this process
            os._exit(1)
        return BandOutcome(job.band, failure=INTERRUPTED)


@contextmanager
def _on_gpu(job: BandJob) -> Iterator[BandJob]:
    """The job on the GPU of the first lock that is free: so none has a band more than N while another has room."""
    if job.gpu_locks is None:
        yield job
        return
    with ExitStack() as held:
        for turn in count():
            with suppress(BlockingIOError):
                held.enter_context(LocalStore(job.gpu_locks).locked(str(turn), exclusive=True))
                break
        try:
            yield replace(job, plan=replace(job.plan, device=f"cuda:{turn % torch.cuda.device_count()}"))
        finally:
            gc.collect()
            torch.cuda.empty_cache()  # this process may get another GPU for its next band


def train_bands(
    jobs: Sequence[BandJob], backend: Backend, epochs: int, on_outcome: Callable[[BandOutcome], None]
) -> Iterator[BandOutcome]:
    """The outcomes of all bands, as they come. Raises BackendError, KeyboardInterrupt, SystemExit.

    backend: isolated from this process.  on_outcome: prints an outcome.

    A process that is killed takes the bands with it that were under way. They go on, each alone: then the one that
    does it again is known, and the others are not its victims.
    """
    root = jobs[0].out.parent if len(jobs) > 1 else jobs[0].out
    stop, stop_file = StopRequest(), (root / STOP).absolute()
    _prepare(root, stop_file)
    with (
        _removed(stop_file, backend),
        stop.catching_signals(),
        stop.deferred(),
        Board({job.band: job.out for job in jobs}, epochs, stop, stop_file) as board,
        TemporaryDirectory() as gpu_locks,
    ):

        def done(outcome: BandOutcome) -> BandOutcome:
            with board.ended(outcome.band, "failed" if outcome.failure else "done"):
                on_outcome(outcome)
            return outcome

        placed = [replace(job, stop=stop_file) for job in _placed(jobs, backend, Path(gpu_locks))]
        try:
            suspects = yield from _together(placed, backend, done, stop)
        except BaseException as error:
            if backend.name != "loky" and not isinstance(error, SpectralError):  # its workers would go on for no one
                with suppress(OSError):
                    stop_file.touch()
            raise
        if suspects and backend.name == "dask":  # its workers go on with what is cancelled
            stop_file.touch()
            time.sleep(CANCELLED)
            stop_file.unlink(missing_ok=True)
        for job in suspects:
            yield from _alone(job, backend, done, stop)
        if not stop.requested:
            stop_file.unlink(missing_ok=True)
        else:  # elsewhere bands may be under way that have still to find the file
            stop.end_now()


@contextmanager
def _removed(stop_file: Path, backend: Backend) -> Iterator[None]:
    """Without the file that stops bands at the end, however it comes, where no band goes on after that."""
    try:
        yield
    finally:
        if backend.name == "loky":
            with suppress(OSError):
                stop_file.unlink(missing_ok=True)


def _together(
    jobs: list[BandJob], backend: Backend, done: Callable[[BandOutcome], BandOutcome], stop: StopRequest
) -> Generator[BandOutcome, None, list[BandJob]]:
    """Train bands at once; returns those that were under way when a process was killed."""
    left: dict[str, BandJob] = {job.band: job for job in jobs}
    begun = time.time()
    suspects: list[BandJob] = []
    while left and not stop.requested:
        try:
            with closing(backend.each(train_isolated, [(job,) for job in left.values()], len(left))) as outcomes:
                for outcome in outcomes:
                    if not (outcome.failure == INTERRUPTED and stop.requested):
                        yield done(outcome)
                    del left[outcome.band]
        except WorkerLostError:
            lost = [job for job in left.values() if reached(job.out).written >= begun]
            lost = lost or list(left.values())[: max(backend.jobs, 1)]  # killed before they wrote anything
            suspects += lost
            for job in lost:
                del left[job.band]
    return suspects


def _alone(
    job: BandJob, backend: Backend, done: Callable[[BandOutcome], BandOutcome], stop: StopRequest
) -> Iterator[BandOutcome]:
    if stop.requested:
        return
    try:
        with closing(backend.each(train_isolated, [(job,)], 1)) as outcomes:
            for outcome in outcomes:
                if not (outcome.failure == INTERRUPTED and stop.requested):
                    yield done(outcome)
    except WorkerLostError as error:
        if not stop.requested:
            yield done(BandOutcome(job.band, failure=str(error)))


def _placed(jobs: Iterable[BandJob], backend: Backend, gpu_locks: Path) -> Iterator[BandJob]:
    """The jobs with what depends on where they are done: whose work it is, and which GPUs it takes turns on."""
    for job in jobs:
        if backend.name == "loky":
            shared = torch.cuda.device_count() > 0 and job.plan.device in ("auto", "cuda")
            yield replace(job, parent=os.getpid(), gpu_locks=gpu_locks if shared else None)
        else:
            reading = job.plan.reading
            cache = os.path.abspath(reading.cache) if reading.cache else None
            plan = replace(job.plan, reading=replace(reading, cache=cache))
            yield replace(job, out=job.out.absolute(), shards=_absolute(job.shards), plan=plan)


def _absolute(shards: str) -> str:
    return shards if is_url(shards) else os.path.abspath(shards)


def _prepare(root: Path, stop_file: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        stop_file.unlink(missing_ok=True)  # of a run that was killed
    except OSError as error:
        raise StoreError(f"cannot write to {root}: {error.strerror}") from None
