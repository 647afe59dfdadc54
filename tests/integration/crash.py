"""A process that dies before each change of the file system that a run folder makes, in turn.

Run as a program in an empty folder. It forks before anything has started a thread, so that every
life of the run, and every look at what a death left, is a child of its own.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import orbax.checkpoint  # noqa: F401  (once, not in every child)

from jaxvae_md import run_folder

CALLS = ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")
CONFIG = {"seed": 3}
STEPS = 3
RUN, COMMITTED = Path("run"), Path("committed")


def tree(step: int) -> dict:
    return {"a": np.full(5, step), "b": {"c": np.arange(step + 1.0)}}


def live() -> None:
    """Begins a run or goes on with it, and notes each step that it was told is committed."""
    if RUN.exists():
        with run_folder.opened(RUN, "md") as folder:
            proceed(folder, folder.last().info["step"])
    else:
        with run_folder.create(RUN, "md", CONFIG, tree(0), {"step": 0}) as folder:
            proceed(folder, 0)


def proceed(folder: run_folder.RunFolder, step: int) -> None:
    COMMITTED.write_text(str(step))
    while step < STEPS:
        step += 1
        folder.commit("md", tree(step), {"step": step})
        COMMITTED.write_text(str(step))


def look() -> None:
    """What was said to be committed is there, whole, and with it the options."""
    committed = int(COMMITTED.read_text()) if COMMITTED.exists() else 0
    if not RUN.exists():
        assert committed == 0
        return
    with run_folder.opened(RUN, "md") as folder:
        found, info = folder.last()
        assert info["step"] in (committed, committed + 1)
        assert np.array_equal(found["a"], tree(info["step"])["a"])
        assert np.array_equal(found["b"]["c"], tree(info["step"])["b"]["c"])
        assert folder.config == CONFIG
    assert (RUN / "config.yaml").is_file()


def die_before(number: int) -> None:
    """Replaces the calls that change the file system; the one of this number is never made."""
    made = 0

    def counted(call: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            nonlocal made
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            return call(*args, **kwargs)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def in_child(*functions: Callable[[], None]) -> int:
    """The signal that ended a child which called these, 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        for function in functions:
            function()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "a child failed"
    return os.WTERMSIG(status)


def main() -> None:
    deaths = 0
    while True:
        killed = in_child(partial(die_before, deaths), live)
        in_child(look)
        if not killed:
            break
        deaths += 1
        # whatever was left, the run goes on to its end
        assert in_child(live, look) == 0
        assert int(COMMITTED.read_text()) == STEPS
        assert sorted(os.listdir("run")) == [".lock", "checkpoints", "config.yaml"]
        assert len(os.listdir("run/checkpoints")) == 2
        shutil.rmtree(RUN)
        COMMITTED.unlink()
    print(deaths)


if __name__ == "__main__":
    sys.exit(main())
