"""What a command leaves behind for its caller: a result or an error, and an exit code."""

from __future__ import annotations

import _thread
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from threading import Timer
from typing import Any

import typer

from jaxvae_md.errors import InputError, JaxvaeError, OptionError

Result = tuple[dict[str, Any], str]
"""What a command found: for programs, and in words"""


def reported(work: Callable[[bool], Result], as_json: bool, quiet: bool, debug: bool) -> None:
    """Runs a command and prints its result; an error becomes a message and an exit code.

    **Arguments:** `work(progress)` does what the command is for.
    """
    _configure_logging(quiet)
    try:
        with _stdout_kept(), _interrupts_kept():
            result, words = work(not quiet and sys.stderr.isatty())
    except KeyboardInterrupt as error:
        remedies = [f"{note} continues" for note in getattr(error, "__notes__", ())]
        kept = "what was finished is kept" if remedies else "nothing was written"
        interrupted = JaxvaeError(f"interrupted; {kept}", remedy="; ".join(remedies) or None)
        code = failed(interrupted, as_json, debug)
    except JaxvaeError as error:
        code = failed(error, as_json, debug)
    except Exception as error:
        remedy = "see --debug, and report it"
        unknown = JaxvaeError(f"{type(error).__name__}: {error}", remedy=remedy)
        code = failed(unknown, as_json, debug)
    else:
        printed = _print(json.dumps(result, allow_nan=False) if as_json else words)
        code = 0 if printed else 1
    raise typer.Exit(code)


def failed(error: JaxvaeError, as_json: bool, debug: bool = False) -> int:
    """Says what went wrong; returns the exit code."""
    code = 2 if isinstance(error, InputError) else 1
    if debug:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    if as_json:
        where = {"file": error.file and str(error.file), "frame": error.frame, "atom": error.atom}
        _print(json.dumps({"error": error.message, **where, "remedy": error.remedy, "exit": code}))
    return code


def refuse_with_resume(*given: Any) -> None:
    """A resumed run takes its data and options from its folder. **Raises:** `OptionError`."""
    if any(value is not None for value in given):
        raise OptionError(
            "--resume continues a run with its own data and options",
            remedy="give --resume alone, or start a new run without it",
        )


def configure_jax() -> None:
    """float64, and a compilation cache that outlives the process."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxvae_md" / "xla"
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Sends to stderr what a labeller, or a program that it starts, prints meanwhile."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _print(text: str) -> bool:
    """To stdout; False when that cannot be written, the disk or a pipe's reader being gone."""
    try:
        print(text, flush=True)
    except OSError as error:
        # what is still buffered must not fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: stdout cannot be written ({error.strerror})", file=sys.stderr)
        return False
    return True


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Python drops an interrupt that comes in a callback, of garbage collection say: repeat it."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            Timer(0.1, _thread.interrupt_main).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _configure_logging(quiet: bool) -> None:
    """What the package reports goes to stderr, a line each."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("jaxvae_md").setLevel(logging.WARNING if quiet else logging.INFO)
    # Orbax logs every error that it also raises
    logging.getLogger("absl").setLevel(logging.CRITICAL)
