"""Start programs from a process that has loaded torch: most of a short training's time is the start of Python.

A server process loads torch once, and forks for every program. A program runs the installed script with arguments,
environment, folder and output of its own. What Python reads at its start alone is the server's: the seed of hashes, and
settings such as PYTHONPATH.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

LOADED = ("spectral_shards.train.commands", "spectral_shards.train.ensemble_commands", "torch._dynamo")
MOST_BYTES = 1 << 17  # of a request


def run(
    arguments: Sequence[str], environment: Mapping[str, str], cwd: str | os.PathLike[str] | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run the script `arguments[0]`, like subprocess.run. Raises TimeoutExpired."""
    request = {"arguments": arguments, "environment": dict(environment), "cwd": os.fspath(cwd or os.getcwd())}
    data = json.dumps(request).encode()
    assert len(data) <= MOST_BYTES
    status, given = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(status, "rb", 0) as said:
        try:
            socket.send_fds(_server(), [data], [out.fileno(), err.fileno(), given])
        finally:
            os.close(given)
        started = said.readline()
        assert started, "the server could not start: stderr says why"
        pid = int(started)
        if not select.select([said], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        code = int(said.readline())
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read().decode(), err.read().decode())


@cache
def _server() -> socket.socket:
    """The connection to this process's server, which ends when the connection does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "support.warm_start", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)

    def stop() -> None:
        ours.close()
        process.wait(30)

    atexit.register(stop)
    return ours


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for every request until the connection ends; returns in the processes of programs alone."""
    for name in LOADED:
        import_module(name)
    assert threading.active_count() == 1, "a fork would lose threads"
    gc.freeze()  # what is loaded stays shared
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
        if not data:
            raise SystemExit
        *output, status = descriptors
        if os.fork():  # one process waits for the program, so that programs may run side by side
            for descriptor in (*output, status):
                os.close(descriptor)
            _reap()
        elif pid := os.fork():
            os.write(status, b"%d\n" % pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(status, b"%d\n" % code)
            os._exit(0)
        else:
            connection.close()
            os.close(status)
            for descriptor, number in zip(output, (1, 2), strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return dict(json.loads(data))


def _reap() -> None:
    """Forget the processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _program(arguments: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
    """Be a script."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _program(**_serve(socket.socket(fileno=int(sys.argv[1]))))
