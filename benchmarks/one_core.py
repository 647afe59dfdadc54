"""One core for a benchmark, and for the peers in it."""

import os
import sys


def one_core() -> None:
    """Starts this script again on a single core, unless it is on one.

    Set from within, the choice would hold for the main thread only: JAX's threads are there as
    soon as it is imported, and would go on using the other cores.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        return
    os.sched_setaffinity(0, {min(cores)})
    os.environ["OMP_NUM_THREADS"] = "1"
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
    os.execv(sys.executable, [sys.executable, *sys.argv])
