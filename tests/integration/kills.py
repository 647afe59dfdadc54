"""Processes that are killed at random moments, and resumed until they end."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from jaxvae_md.checkpoint import load_checkpoint
from tests.integration.command import COMMAND, environment
from tests.integration.runs import Runs, listing, metrics, without_time


def learn_is_killed(runs: Runs, cwd: Path, num_kills: int) -> None:
    """`learn` ends as the run that was never killed, whose resolved options it takes."""
    config = runs.path / "run" / "config.yaml"
    same_after_kills(
        ["learn", "--config", str(config), "--quiet", "--out"],
        ["learn", "--quiet", "--resume"],
        cwd,
        num_kills,
        lambda folder: assert_same_run(folder, runs.path / "run"),
        # what was compiled for that run is not compiled again
        runs.seconds["run"] / 4,
    )


def md_is_killed(runs: Runs, cwd: Path, num_kills: int, ensemble: str) -> None:
    """`md` ends as a simulation that was never killed."""
    model, start = str(runs.path / "fitted"), str(runs.path / "si.extxyz")
    command = ["md", model, start, "--ensemble", ensemble, "--steps", "2000", "--quiet", "--out"]
    reference = runs.path / "md"
    if ensemble != "nvt":
        reference = cwd / "reference"
        finish([*command, str(reference)], cwd)
    same_after_kills(
        command,
        ["md", "--quiet", "--resume"],
        cwd,
        num_kills,
        lambda folder: assert_same_files(folder, reference),
        runs.seconds["md"],
    )


def same_after_kills(
    command: list[str],
    resume: list[str],
    cwd: Path,
    num_kills: int,
    assert_same: Callable[[Path], None],
    seconds: float,
) -> None:
    """Kills a run at random moments and resumes it, until `num_kills` have met a living process.

    A run that ended is looked at, and another is begun. **Arguments:** `command` and `resume`
    without the folder, their last word; `seconds` what a whole run takes at most.
    """
    folder = cwd / "killed"
    clock = random.Random(0)
    kills = 0
    while kills < num_kills:
        new = not folder.exists()
        began = time.perf_counter()
        process = started([*(command if new else resume), folder.name], cwd)
        try:
            _, error = process.communicate(timeout=clock.uniform(0.1, 0.8) * seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
        else:
            assert process.returncode == 0, error
            assert_same(folder)
            shutil.rmtree(folder)
            if new:
                seconds = min(seconds, time.perf_counter() - began)
    finish([*(resume if folder.exists() else command), folder.name], cwd)
    assert_same(folder)


def started(arguments: list[str], cwd: Path) -> subprocess.Popen:
    """The command in a session of its own, so that nothing of it outlives a kill."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(arguments: list[str], cwd: Path) -> None:
    """Runs a command to its end."""
    process = started(arguments, cwd)
    _, error = process.communicate(timeout=1200)
    assert process.returncode == 0, error


def kill(process: subprocess.Popen) -> None:
    """As kill -9 does, the whole group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def assert_same_run(folder: Path, reference: Path) -> None:
    """Every file bit by bit; the seconds of metrics.jsonl are those of a clock."""
    assert_same_files(folder, reference, ignored=("metrics.jsonl",))
    ours, theirs = ([without_time(r) for r in metrics(path)] for path in (folder, reference))
    assert ours == theirs
    ours, theirs = (
        load_checkpoint(max((path / "checkpoints").iterdir())) for path in (folder, reference)
    )
    assert_same_tree(ours.tree, theirs.tree)


def assert_same_files(folder: Path, reference: Path, ignored: tuple[str, ...] = ()) -> None:
    """Orbax gives the files of a checkpoint random names; their arrays are compared elsewhere."""
    ours, theirs = (
        {name: content for name, content in listing(path).items() if "checkpoints" not in name}
        for path in (folder, reference)
    )
    assert ours.keys() == theirs.keys()
    for name in theirs.keys() - set(ignored):
        assert ours[name] == theirs[name], name


def assert_same_tree(one, other) -> None:
    """The same names, types and bits."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_tree(one[name], other[name])
    else:
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
