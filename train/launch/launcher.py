"""Train the networks of a split: in this process in turn, or at once by other processes and machines."""

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

from ...shards_manifest.dataset import open_bands
from ...shards_manifest.errors import SpectralError, StoreError, WorkerLostError
from ...shards_manifest.runtime.executors import Backend
from ...shards_manifest.storage.address import is_url
from ...shards_manifest.storage.local import LocalStore
from ..config import TrainPlan
from ..distributed import SINGLE_PROCESS, Ranks
from ..engine.trainer import train_network
from ..runs.run_folder import ERROR, RunFolder
from ..runs.run_record import Result
from ..shutdown import StopRequest
from .progress import ProgressBoard, read_progress

STOP_FILE = ".spectral-stop"  # beside the run folders, or in a single one: workers that find it stop after a checkpoint
CANCEL_SECONDS = 5.0  # that Dask's workers get to end tasks that are cancelled
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrainJob:
    """One network to train.

    Attributes:
        name: of its run folder.
        shards: path or URL of the band, or of the split that its bands are in.
        out: its run folder.
        plan: how it is trained.
        bands: numbers of the bands of a split that it reads; empty if `shards` is its band.
        stop_file: ends the work when it exists; None for no such file.
        parent: id of the process that this job ends with; 0 for none.
        gpu_locks: folder of the locks by which networks share the GPUs of this machine; None if the plan names one.
    """

    name: str
    shards: str
    out: Path
    plan: TrainPlan
    bands: tuple[int, ...] = ()
    stop_file: Path | None = None
    parent: int = 0
    gpu_locks: Path | None = None


@dataclass(frozen=True)
class TrainOutcome:
    """How a network ended.

    Attributes:
        name: of its run folder.
        result: what it reached; None if it failed.
        earlier: whether it was finished before this command.
        failure: one sentence about why there is no result.
    """

    name: str
    result: Result | None = None
    earlier: bool = False
    failure: str = ""


def train_one(
    job: TrainJob, quiet: bool = True, stop: StopRequest | None = None, ranks: Ranks = SINGLE_PROCESS
) -> TrainOutcome:
    """Train a network in this process, unless it is finished.

    Args:
        job: the network.
        quiet: print nothing.
        stop: a request to stop, which ends it after a checkpoint.
        ranks: the processes that train it together; all call this.

    Returns:
        Its outcome; what goes wrong with the network is one too.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM.
    """
    try:
        bands = open_bands(job.shards, job.bands).each
        earlier = ranks.broadcast_from_rank0(lambda: RunFolder(job.out).finished(bands, job.plan))
        if earlier is not None:
            return TrainOutcome(job.name, earlier, earlier=True)
        return TrainOutcome(job.name, train_network(job.shards, job.out, job.plan, job.bands, quiet, ranks, stop))
    except SpectralError as error:
        return TrainOutcome(job.name, failure=str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not quiet:  # nothing reads what is printed: that ends all networks
            raise
        return TrainOutcome(job.name, failure=f"{error.strerror or error} ({error.filename or job.out})")
    except Exception as error:  # a fault of ours, of a library or of a GPU must not end the other networks
        if ranks.world_size > 1:
            raise
        text, reason = traceback.format_exc(), (str(error).splitlines() or [""])[0]
        try:
            job.out.mkdir(parents=True, exist_ok=True)
            (job.out / ERROR).write_text(text)
            where = f"all of it is in {job.out / ERROR}"
        except OSError as refused:
            where = f"{job.out / ERROR} cannot be written: {refused.strerror}"
        return TrainOutcome(job.name, failure=f"{type(error).__name__}: {reason} ({where})")


def train_isolated(job: TrainJob) -> TrainOutcome:
    """Train a network in a worker process; an interruption is an outcome there."""
    stop = StopRequest(job.stop_file, job.parent)
    if job.parent and threading.current_thread() is threading.main_thread():
        # a terminal sends Ctrl-C to all processes; the parent passes it on, and between two networks nothing catches it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stop.requested:
        return TrainOutcome(job.name, failure=INTERRUPTED)
    try:
        with _on_free_gpu(job) as placed:
            return train_one(placed, stop=stop)
    except (KeyboardInterrupt, SystemExit):
        if job.parent and os.getppid() != job.parent:  # the parent is gone, and cannot end this process
            os._exit(1)
        return TrainOutcome(job.name, failure=INTERRUPTED)


@contextmanager
def _on_free_gpu(job: TrainJob) -> Iterator[TrainJob]:
    """Give the job the GPU of the first lock that is free: so all GPUs have equally many, or one more or less."""
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
            torch.cuda.empty_cache()  # this process may get another GPU for its next network


def train_networks(
    jobs: Sequence[TrainJob],
    backend: Backend,
    epochs: int,
    on_outcome: Callable[[TrainOutcome], None],
    quiet: bool = False,
) -> Iterator[TrainOutcome]:
    """Train networks at once, in other processes, and show how far they are.

    If a worker process is killed, the networks under way are trained again, each alone: so the network that
    makes its process end is known, and the others do not fail with it.

    Args:
        jobs: the networks.
        backend: where they are trained; isolated from this process.
        epochs: of the recipe.
        on_outcome: prints an outcome.
        quiet: show nothing else.

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
        ProgressBoard({job.name: job.out for job in jobs}, epochs, stop, stop_file, quiet) as board,
        TemporaryDirectory() as gpu_locks,
    ):

        def done(outcome: TrainOutcome) -> TrainOutcome:
            with board.ended(outcome.name, "failed" if outcome.failure else "done"):
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
        else:  # on other machines there may be networks that have not found the file yet
            stop.end_now()


@contextmanager
def _without_stop_file_after(stop_file: Path, backend: Backend) -> Iterator[None]:
    """Remove the stop file at the end, in any case, if no network can go on after that."""
    try:
        yield
    finally:
        if backend.name == "loky":
            with suppress(OSError):
                stop_file.unlink(missing_ok=True)


def _train_together(
    jobs: list[TrainJob], backend: Backend, done: Callable[[TrainOutcome], TrainOutcome], stop: StopRequest
) -> Generator[TrainOutcome, None, list[TrainJob]]:
    """Train networks at once; return those that were being trained when a process was killed."""
    left: dict[str, TrainJob] = {job.name: job for job in jobs}
    started = time.time()
    suspects: list[TrainJob] = []
    while left and not stop.requested:
        try:
            with closing(backend.each(train_isolated, [(job,) for job in left.values()], len(left))) as outcomes:
                for outcome in outcomes:
                    if not (outcome.failure == INTERRUPTED and stop.requested):
                        yield done(outcome)
                    del left[outcome.name]
        except WorkerLostError:
            lost = [job for job in left.values() if read_progress(job.out).written >= started]
            lost = lost or list(left.values())[: max(backend.jobs, 1)]  # killed before they wrote anything
            suspects += lost
            for job in lost:
                del left[job.name]
    return suspects


def _train_alone(
    job: TrainJob, backend: Backend, done: Callable[[TrainOutcome], TrainOutcome], stop: StopRequest
) -> Iterator[TrainOutcome]:
    if stop.requested:
        return
    try:
        with closing(backend.each(train_isolated, [(job,)], 1)) as outcomes:
            for outcome in outcomes:
                if not (outcome.failure == INTERRUPTED and stop.requested):
                    yield done(outcome)
    except WorkerLostError as error:
        if not stop.requested:
            yield done(TrainOutcome(job.name, failure=str(error)))


def _placed(jobs: Iterable[TrainJob], backend: Backend, gpu_locks: Path) -> Iterator[TrainJob]:
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
