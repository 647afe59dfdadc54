"""The command line as a person runs it, and as tests of what is refused can run it quickly."""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from jaxvae_md.cli import app

# what a shell starts in the background ignores interrupts, and so would its children
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jaxvae_md.cli import main
main()
"""
COMMAND = [sys.executable, "-c", _PROGRAM]


def environment() -> dict[str, str]:
    """As it is now: the configuration of pytest may come after this module."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def jaxvae_md(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    """A command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        cwd=cwd,
        env=environment(),
    )


def assert_refused(*arguments, cwd: Path, words: str) -> str:
    """The command, in this process, ends as bad input; returns what it said."""
    root, ours = logging.getLogger(), logging.getLogger("jaxvae_md")
    handlers, level = root.handlers[:], ours.level
    try:
        with contextlib.chdir(cwd):
            result = CliRunner().invoke(app, list(map(str, arguments)))
    finally:
        root.handlers[:] = handlers
        ours.setLevel(level)
    assert_says_refused(result.exit_code, result.stdout, result.stderr, words)
    return result.stderr


def assert_says_refused(code: int, stdout: str, stderr: str, words: str) -> None:
    """Exit code 2, what is wrong in a line, what to do in another, and nothing else."""
    assert code == 2, stderr
    assert stdout == ""
    message, remedy = stderr.rstrip("\n").split("\n")
    assert message.startswith("error: ")
    assert words in message
    assert remedy.startswith("  remedy: ")
