"""Where tasks are done: by processes of this machine, or by the workers of a cluster, through joblib.

joblib is imported where it is used, so that the names in BACKENDS cost nothing. What is written by hand here, and
why, is in docs/decisions/0017-libraries.md.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool  # joblib's own is one
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import BackendError, SpectralError, WorkerLostError

Result = TypeVar("Result")
LOKY_THREAD = "QueueFeederThread"  # passes tasks on to the processes
LONGEST_WAIT = 5.0  # seconds


@dataclass(frozen=True)
class Backend:
    """A way to run tasks.

    For one task at a time no other process is started, except by Dask, or where `isolated` asks for it.

    Attributes:
        name: A name in BACKENDS.
        address: Of the scheduler of a cluster. Empty for what the library of the cluster finds: Ray takes
            RAY_ADDRESS, else a new cluster on this machine; Dask a new one on this machine; Spark the master of the
            session.
        jobs: Tasks at a time; -1 for all that there is room for.
        gpu: Whether a task takes a GPU where the cluster has some. Ray deals them out; a Dask worker sees those that
            it was started with.
        isolated: Whether every task has to be done by another process than this one.
    """

    name: str = "loky"
    address: str = ""
    jobs: int = 1
    gpu: bool = False
    isolated: bool = False

    def __post_init__(self) -> None:
        if self.name not in BACKENDS:
            raise BackendError(f"--backend {self.name}: choose {', '.join(BACKENDS)}")
        if self.address and self.name == "loky":
            raise BackendError("--address names a cluster: choose one with --backend dask, ray or spark")

    def each(
        self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], count: int
    ) -> Generator[Result, None, None]:
        """Yield the results of `function`, each as it comes, in any order.

        Close it where you stop before its end: that ends the tasks under way.

        Args:
            function: What to do; workers of other processes import or unpickle it.
            calls: A tuple of arguments for each task; taken as workers need them.
            count: How many there are.

        Raises:
            SpectralError: What the function raises of this kind.
            BackendError: The cluster cannot be reached.
            WorkerLostError: One of its processes was killed.
        """
        import joblib

        try:
            with BACKENDS[self.name](self) as most:
                jobs = self._jobs(most, count)
                if jobs == 1 and self.isolated and self.name == "ray":
                    yield from _one_by_one(function, calls, self.gpu)
                    return
                # two tasks more than there are workers, so that none waits for the next; but Dask does all it is given
                given = str(self.jobs) if self.name == "dask" and self.jobs > 0 else "n_jobs + 2"
                parallel = joblib.Parallel(
                    n_jobs=jobs, return_as="generator_unordered", pre_dispatch=given, batch_size=1
                )
                tasks = (joblib.delayed(_attempt)(function, *arguments) for arguments in calls)
                with _closing(parallel(tasks)) as results:
                    for result in results:
                        if isinstance(result, SpectralError):
                            raise result
                        yield result
        except BrokenProcessPool:  # also of one that never began
            raise WorkerLostError(
                "a worker process was killed, perhaps for lack of memory: run the same command again to go on, "
                "with fewer --jobs"
            ) from None

    def _jobs(self, most: int, count: int) -> int:
        """Return n_jobs for joblib. most: tasks at a time that there is room for, -1 for what joblib finds."""
        wanted = most if self.jobs < 0 else self.jobs if most < 0 else min(self.jobs, most)
        least = 2 if self.isolated and self.name == "loky" else 1  # for one joblib starts no process
        return max(min(wanted, count), least) if wanted > 0 else wanted


@contextmanager
def _closing(results: Generator[Result, None, None]) -> Iterator[Iterator[Result]]:
    """Give the results of joblib's tasks, and end the tasks with the block."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib advises against tasks whose results are not wanted any more
            results.close()


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | SpectralError:
    """Call in a worker. An error for the user is returned, not raised: every cluster wraps exceptions its own way."""
    try:
        return function(*arguments)
    except SpectralError as error:
        return error


# Each of these sets joblib's backend for its block, and gives the tasks at a time that there is room for, -1 for what
# joblib finds.


@contextmanager
def _loky(backend: Backend) -> Iterator[int]:
    import joblib

    if backend.isolated and joblib.effective_n_jobs(2) < 2:  # joblib would do the tasks in this process
        raise BackendError(
            "this machine lets no processes work side by side, perhaps for lack of a /dev/shm: leave out --jobs"
        )
    atexit.register(_wait_for_loky)
    with joblib.parallel_config(backend="loky"):
        yield -1


def _wait_for_loky() -> None:
    """Wait for loky's thread: if it is stopped while it frees a semaphore, loky complains of that after all else."""
    for thread in threading.enumerate():
        if thread.name == LOKY_THREAD:
            thread.join(LONGEST_WAIT)


@contextmanager
def _dask(backend: Backend) -> Iterator[int]:
    import joblib

    try:
        from distributed import Client, LocalCluster
        from distributed.scheduler import KilledWorker
        from joblib._dask import DaskDistributedBackend
    except ImportError:
        raise BackendError("--backend dask needs the package distributed: pip install distributed") from None

    class Tasks(DaskDistributedBackend):  # type: ignore[misc]
        """joblib's backend calls back for results, not for errors of Dask itself: its caller would wait for ever."""

        def configure(self, **options: Any) -> int:
            return max(int(super().configure(**options)), 2)  # for one slot joblib does the tasks itself

        def submit(self, task: Any, callback: Callable[[Any], None]) -> Any:
            def report_error(future: Future[Any]) -> None:
                if not future.cancelled() and (error := future.exception()) is not None:
                    callback(error)

            future = super().submit(task, callback)
            future.add_done_callback(report_error)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    address, workers = backend.address, backend.jobs if backend.jobs > 0 else None
    try:
        cluster = None if address else LocalCluster(workers, threads_per_worker=1, dashboard_address="127.0.0.1:0")
        client = Client(address or cluster, timeout=20)
    except (OSError, TimeoutError, ValueError) as error:
        raise BackendError(f"cannot reach the Dask scheduler at {address} ({error}): is it running?") from None
    try:
        if backend.isolated and max(client.nthreads().values(), default=1) > 1:
            raise BackendError(
                "a Dask worker with several threads would do several of these tasks in one process: "
                "start one for each task, dask worker --nthreads 1 --nworkers N"
            )
        joblib.register_parallel_backend("dask-tasks", Tasks)
        with joblib.parallel_config(backend="dask-tasks", client=client):
            yield -1
    except KilledWorker as error:
        raise WorkerLostError(
            f"the Dask workers died over and over ({error}), perhaps for lack of memory: run the same command again "
            "to go on, with smaller shards or larger workers"
        ) from None
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


@contextmanager
def _ray(backend: Backend) -> Iterator[int]:
    import joblib

    try:
        import ray
        from ray.util.joblib.ray_backend import RayBackend
    except ImportError:
        raise BackendError("--backend ray needs the package ray: pip install ray") from None

    class Tasks(RayBackend):  # type: ignore[misc]
        supports_return_generator = True  # joblib denies it to the class that this inherits from, made for pipes

    address = backend.address
    try:
        if ":" in address:  # Ray itself tries for many minutes
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
        ray.init(address=address or None, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise BackendError(f"cannot reach the Ray cluster at {address} ({error}): is it running?") from None
    try:
        joblib.register_parallel_backend("ray-tasks", Tasks)
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if backend.gpu else 0
        with joblib.parallel_config(backend="ray-tasks", ray_remote_args={"num_gpus": 1} if gpus else None):
            yield gpus or max(int(there.get("CPU", 1)), 1)
    except ray.exceptions.RayError as error:
        raise WorkerLostError(
            f"a Ray worker was lost ({_first_line(error)}): run the same command again to go on"
        ) from None
    finally:
        ray.shutdown()


def _one_by_one(function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], gpu: bool) -> Iterator[Result]:
    """Yield results of one Ray worker after another; joblib would do a single task at a time in this process."""
    import ray

    gpus = 1 if gpu and ray.cluster_resources().get("GPU") else 0
    remote = ray.remote(num_gpus=gpus)(_attempt)
    for arguments in calls:
        result = ray.get(remote.remote(function, *arguments))
        if isinstance(result, SpectralError):
            raise result
        yield result


@contextmanager
def _spark(backend: Backend) -> Iterator[int]:
    import joblib

    try:
        from joblib.parallel import ThreadingBackend
        from joblibspark.backend import SparkDistributedBackend
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise BackendError(
            f"--backend spark lacks a package ({error}): pip install joblibspark packaging pyspark"
        ) from None

    class Tasks(SparkDistributedBackend):  # type: ignore[misc]
        # its tasks are threads that wait for Spark, and report results as those of joblib's own pool of threads do
        supports_retrieve_callback = True
        retrieve_result_callback = ThreadingBackend.retrieve_result_callback

        def abort_everything(self, ensure_ready: bool = True) -> None:
            self.terminate()  # its own then reads an attribute that joblib has renamed

    address = backend.address
    if address.startswith("local"):  # workers of this machine: Spark takes another Python unless it is told
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("spectral-shards")
    try:
        session = (builder.master(address) if address else builder).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise BackendError(f"cannot reach the Spark master at {address} ({_first_line(error)}): is it up?") from None
    try:
        joblib.register_parallel_backend("spark-tasks", Tasks)
        with joblib.parallel_config(backend="spark-tasks"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stage-level scheduling, which tasks of one kind do not need
            yield -1
    except (PySparkException, Py4JError) as error:
        errors = re.findall(r"^\w[\w.]*Error: .*", str(error), re.MULTILINE)  # of the worker, amid Java's traces
        reason = errors[-1] if errors else _first_line(error)
        raise BackendError(f"a Spark task failed ({reason}): run the same command again to go on") from None
    finally:
        session.stop()


BACKENDS: Mapping[str, Callable[[Backend], AbstractContextManager[int]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
    "spark": _spark,
}


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
