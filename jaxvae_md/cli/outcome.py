"""What a command leaves behind for its caller: a result or an error, and an exit code."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
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
        result, words = work(not quiet and sys.stderr.isatty())
        print(json.dumps(result, allow_nan=False) if as_json else words, flush=True)
    except KeyboardInterrupt as error:
        remedy = "; ".join(f"{note} continues" for note in getattr(error, "__notes__", ()))
        interrupted = JaxvaeError("interrupted; what was finished is kept", remedy=remedy or None)
        _fail(interrupted, as_json, debug, 1)
    except InputError as error:
        _fail(error, as_json, debug, 2)
    except JaxvaeError as error:
        _fail(error, as_json, debug, 1)
    except Exception as error:
        remedy = "see --debug, and report it"
        unknown = JaxvaeError(f"{type(error).__name__}: {error}", remedy=remedy)
        _fail(unknown, as_json, debug, 1)


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


def _fail(error: JaxvaeError, as_json: bool, debug: bool, code: int) -> None:
    if debug:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    if as_json:
        where = {"file": error.file and str(error.file), "frame": error.frame, "atom": error.atom}
        print(json.dumps({"error": error.message, **where, "remedy": error.remedy, "exit": code}))
    raise typer.Exit(code)


def _configure_logging(quiet: bool) -> None:
    """What the package reports goes to stderr, a line each."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("jaxvae_md").setLevel(logging.WARNING if quiet else logging.INFO)
    # Orbax logs every error that it also raises
    logging.getLogger("absl").setLevel(logging.CRITICAL)
