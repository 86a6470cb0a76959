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
from ..runs.run_folder import ERROR, RunFolder
from ..runs.run_record import Result
from ..shutdown import StopRequest
from .progress import ProgressBoard, read_progress

STOP_FILE = ".spectral-stop"  # beside the run folders, or in a single one: workers that find it stop after a checkpoint
CANCEL_SECONDS = 5.0  # that Dask's workers get to end tasks that are cancelled
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class BandJob:
    """One band to train.

    Attributes:
        band: name of its folder.
        shards: path or URL of the band.
        out: its run folder.
        plan: how it is trained.
        stop_file: ends the work when it exists; None for no such file.
        parent: id of the process that this job ends with; 0 for none.
        gpu_locks: folder of the locks by which bands share the GPUs of this machine; None if the plan names the device.
    """

    band: str
    shards: str
    out: Path
    plan: TrainPlan
    stop_file: Path | None = None
    parent: int = 0
    gpu_locks: Path | None = None


@dataclass(frozen=True)
class BandOutcome:
    """How a band ended.

    Attributes:
        band: name of its folder.
        result: what it reached; None if it failed.
        earlier: whether it was finished before this command.
        failure: one sentence about why there is no result.
    """

    band: str
    result: Result | None = None
    earlier: bool = False
    failure: str = ""


def train_one(
    job: BandJob, quiet: bool = True, stop: StopRequest | None = None, ranks: Ranks = SINGLE_PROCESS
) -> BandOutcome:
    """Train a band in this process, unless it is finished.

    Args:
        job: the band.
        quiet: print nothing.
        stop: a request to stop, which ends it after a checkpoint.
        ranks: the processes that train it together; all call this.

    Returns:
        Its outcome; what goes wrong with the band is one too.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    try:
        _, manifest = open_band(job.shards)
        earlier = ranks.broadcast_from_rank0(lambda: RunFolder(job.out).finished(manifest, job.plan))
        if earlier is not None:
            return BandOutcome(job.band, earlier, earlier=True)
        return BandOutcome(job.band, train_band(job.shards, job.out, job.plan, quiet, ranks, stop))
    except SpectralError as error:
        return BandOutcome(job.band, failure=str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not quiet:  # nothing reads what is printed: that ends all bands
            raise
        return BandOutcome(job.band, failure=f"{error.strerror or error} ({error.filename or job.out})")
    except Exception as error:  # a fault of ours, of a library or of a GPU must not end the other bands
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
    """Train a band in a worker process; an interruption is an outcome there."""
    stop = StopRequest(job.stop_file, job.parent)
    if job.parent and threading.current_thread() is threading.main_thread():
        # a terminal sends Ctrl-C to all processes; the parent passes it on, and between two bands nothing catches it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stop.requested:
        return BandOutcome(job.band, failure=INTERRUPTED)
    try:
        with _on_free_gpu(job) as placed:
            return train_one(placed, stop=stop)
    except (KeyboardInterrupt, SystemExit):
        if job.parent and os.getppid() != job.parent:  # the parent is gone, and cannot end this process
            os._exit(1)
        return BandOutcome(job.band, failure=INTERRUPTED)


@contextmanager
def _on_free_gpu(job: BandJob) -> Iterator[BandJob]:
    """Give the job the GPU of the first lock that is free: so the GPUs have equally many bands, or one more or less."""
    if job.gpu_locks is None:
        yield job
        return
    with ExitStack() as locks:
        for number in count():
            with suppress(BlockingIOError):
                locks.enter_context(LocalStore(job.gpu_locks).locked(str(number), exclusive=True))
                break
        try:
            yield replace(job, plan=replace(job.plan, device=f"cuda:{number % torch.cuda.device_count()}"))
        finally:
            gc.collect()
            torch.cuda.empty_cache()  # this process may get another GPU for its next band


def train_bands(
    jobs: Sequence[BandJob], backend: Backend, epochs: int, on_outcome: Callable[[BandOutcome], None]
) -> Iterator[BandOutcome]:
    """Train bands at once, in other processes, and show how far they are.

    If a worker process is killed, the bands that were being trained are trained again, each alone: so the band that
    makes its process end is known, and the others do not fail with it.

    Args:
        jobs: the bands.
        backend: where they are trained; isolated from this process.
        epochs: of the recipe.
        on_outcome: prints an outcome.

    Yields:
        The outcomes, as they come.

    Raises:
        BackendError: if the cluster cannot be reached.
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    root = jobs[0].out.parent if len(jobs) > 1 else jobs[0].out
    stop, stop_file = StopRequest(), (root / STOP_FILE).absolute()
    _prepare(root, stop_file)
    with (
        _without_stop_file_after(stop_file, backend),
        stop.catching_signals(),
        stop.deferred(),
        ProgressBoard({job.band: job.out for job in jobs}, epochs, stop, stop_file) as board,
        TemporaryDirectory() as gpu_locks,
    ):

        def done(outcome: BandOutcome) -> BandOutcome:
            with board.ended(outcome.band, "failed" if outcome.failure else "done"):
                on_outcome(outcome)
            return outcome

        placed = [replace(job, stop_file=stop_file) for job in _placed(jobs, backend, Path(gpu_locks))]
        try:
            suspects = yield from _train_together(placed, backend, done, stop)
        except BaseException as error:
            if backend.name != "loky" and not isinstance(error, SpectralError):  # its workers would go on
                with suppress(OSError):
                    stop_file.touch()
            raise
        if suspects and backend.name == "dask":  # its workers go on with tasks that are cancelled
            stop_file.touch()
            time.sleep(CANCEL_SECONDS)
            stop_file.unlink(missing_ok=True)
        for job in suspects:
            yield from _train_alone(job, backend, done, stop)
        if not stop.requested:
            stop_file.unlink(missing_ok=True)
        else:  # on other machines there may be bands that have not found the file yet
            stop.end_now()


@contextmanager
def _without_stop_file_after(stop_file: Path, backend: Backend) -> Iterator[None]:
    """Remove the stop file at the end, in any case, if no band can go on after that."""
    try:
        yield
    finally:
        if backend.name == "loky":
            with suppress(OSError):
                stop_file.unlink(missing_ok=True)


def _train_together(
    jobs: list[BandJob], backend: Backend, done: Callable[[BandOutcome], BandOutcome], stop: StopRequest
) -> Generator[BandOutcome, None, list[BandJob]]:
    """Train bands at once; return those that were being trained when a process was killed."""
    left: dict[str, BandJob] = {job.band: job for job in jobs}
    started = time.time()
    suspects: list[BandJob] = []
    while left and not stop.requested:
        try:
            with closing(backend.each(train_isolated, [(job,) for job in left.values()], len(left))) as outcomes:
                for outcome in outcomes:
                    if not (outcome.failure == INTERRUPTED and stop.requested):
                        yield done(outcome)
                    del left[outcome.band]
        except WorkerLostError:
            lost = [job for job in left.values() if read_progress(job.out).written >= started]
            lost = lost or list(left.values())[: max(backend.jobs, 1)]  # killed before they wrote anything
            suspects += lost
            for job in lost:
                del left[job.band]
    return suspects


def _train_alone(
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
    """Yield the jobs with what depends on where they run: the parent process and the GPUs, or absolute paths."""
    for job in jobs:
        if backend.name == "loky":
            shares_gpus = torch.cuda.device_count() > 0 and job.plan.device in ("auto", "cuda")
            yield replace(job, parent=os.getpid(), gpu_locks=gpu_locks if shares_gpus else None)
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
