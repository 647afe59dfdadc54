"""Processes that are killed at random moments, and resumed until they end."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from jaxvae_md.cli import main; main()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def started(arguments: list[str], cwd: Path) -> subprocess.Popen:
    """The command in a session of its own, so that nothing of it outlives a kill."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(arguments: list[str], cwd: Path) -> float:
    """Runs a command to its end; returns the seconds it took."""
    began = time.perf_counter()
    process = started(arguments, cwd)
    _, error = process.communicate(timeout=1200)
    assert process.returncode == 0, error
    return time.perf_counter() - began


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def same_after_kills(
    command: list[str], resume: list[str], cwd: Path, num_kills: int, same, seed: int = 0
) -> None:
    """Kills a run at random moments and resumes it, until `num_kills` have met a living process.

    A run that ended is compared with one that was never killed, by `same(folder, reference)`, and
    another is begun. **Arguments:** `command` and `resume` without the folder, their last word.
    """
    reference, folder = cwd / "reference", cwd / "killed"
    whole = finish([*command, reference.name], cwd)
    # what the first run compiled is there for the others
    whole = min(whole, finish([*command, "again"], cwd))
    same(cwd / "again", reference)
    clock = random.Random(seed)
    kills = 0
    while kills < num_kills:
        words = resume if folder.exists() else command
        process = started([*words, folder.name], cwd)
        try:
            _, error = process.communicate(timeout=clock.uniform(0.1, 0.8) * whole)
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
        else:
            assert process.returncode == 0, error
            same(folder, reference)
            shutil.rmtree(folder)
    finish([*(resume if folder.exists() else command), folder.name], cwd)
    same(folder, reference)
