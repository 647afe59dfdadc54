"""What a command leaves for its caller, whatever happens meanwhile."""

import gc
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from jaxvae_md.cli.outcome import reported
from jaxvae_md.errors import OptionError, RunError

PROGRAM = """
import os, sys, typer
from jaxvae_md.cli.outcome import reported
def work(progress):
    print("printed")
    os.system("echo by a program")
    return {"a": 1}, "in words"
try:
    reported(work, "--json" in sys.argv, True, False)
except typer.Exit as done:
    sys.exit(done.exit_code)
"""


def program(*arguments, stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip


def outcome(work, capfd, as_json: bool = False) -> tuple[int, str, str]:
    with pytest.raises(typer.Exit) as caught:
        reported(work, as_json, True, False)
    return (caught.value.exit_code, *capfd.readouterr())


def raising(error):
    def work(progress):
        raise error

    return work


def test_stdout_has_the_result_and_nothing_that_was_printed_meanwhile():
    done = program("--json")
    assert json.loads(done.stdout) == {"a": 1}
    assert done.stderr.split() == ["printed", "by", "a", "program"]
    assert program().stdout == "in words\n"


def test_a_stdout_that_cannot_be_written_is_an_error_in_a_line():
    with open("/dev/full", "w") as full:
        done = program(stdout=full)
    assert done.returncode == 1
    assert "error: stdout cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = program("--json", stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert "error: stdout cannot be written (Broken pipe)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(OptionError("no"), 2), (RunError("no"), 1), (ZeroDivisionError("no"), 1)],
)
def test_the_kind_of_an_error_decides_the_exit_code(error, code, capfd):
    found, stdout, stderr = outcome(raising(error), capfd, as_json=True)
    assert found == json.loads(stdout)["exit"] == code
    assert stderr.startswith("error: ")


def test_an_interrupt_says_what_is_kept(capfd):
    code, _, stderr = outcome(raising(KeyboardInterrupt()), capfd)
    assert (code, stderr) == (1, "error: interrupted; nothing was written\n")
    noted = KeyboardInterrupt()
    noted.add_note("jaxvae-md md --resume here")
    _, _, stderr = outcome(raising(noted), capfd)
    assert stderr == (
        "error: interrupted; what was finished is kept\n"
        "  remedy: jaxvae-md md --resume here continues\n"
    )


def test_an_interrupt_that_python_drops_comes_again(capfd):
    # whatever started the tests may ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def callback(phase, info):
        gc.callbacks.remove(callback)
        raise KeyboardInterrupt

    def work(progress):
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(5)
        return {}, "not interrupted"

    hook = sys.unraisablehook
    try:
        code, _, stderr = outcome(work, capfd)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 1
    assert "interrupted" in stderr
    assert sys.unraisablehook is hook
