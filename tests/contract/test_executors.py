"""How processes that do tasks side by side end."""

import subprocess
import sys

# loky's thread is the last to let its semaphores go, and the process ends while it frees one, as on a loaded machine
SCRIPT = """
import sys, threading, time
import joblib.externals.loky.backend.queues as queues
import joblib.externals.loky.backend.synchronize
from joblib.externals.loky.backend import resource_tracker
from spectral_shards.shards_manifest.runtime.executors import Backend

semaphores = sys.modules["joblib.externals.loky.backend.synchronize"]
feed = queues.Queue._feed
freeing = threading.Event()

def feed_slowly(*arguments):
    feed(*arguments)
    time.sleep(0.5)

def free(name):
    semaphores.sem_unlink(name)
    if threading.current_thread().name == "QueueFeederThread":
        freeing.set()
        time.sleep(0.5)
    resource_tracker.unregister(name, "semlock")

queues.Queue._feed = staticmethod(feed_slowly)
semaphores.SemLock._cleanup = staticmethod(free)
results = Backend(jobs=2).each(abs, ((-1,) for _ in range(20)), 20)
next(results)
results.close()
assert freeing.wait(60)
"""


def test_nothing_is_said_after_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
