"""jaxvae-md generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxvae_md.cli.arguments import Debug, Json, Quiet
from jaxvae_md.cli.outcome import Result, configure_jax, reported
from jaxvae_md.errors import FileError, OptionError, OutputError


def generate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run of learn.")],
    num: Annotated[int, typer.Option(help="Number of structures.")] = 20,
    seed: Annotated[int, typer.Option(help="Another seed finds others.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default generated-by-RUN.extxyz.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make structures for what the data of a run lack.

    They are to be labelled. What the finished run generated itself is not made again.

    Example:

      jaxvae-md generate jaxvae-md-run --num 20
    """
    reported(lambda progress: _generate(run, num, seed, out, progress), as_json, quiet, debug)


def _generate(run: Path, num: int, seed: int, out: Path | None, progress: bool) -> Result:
    out = out or Path(f"generated-by-{run.absolute().name}.extxyz")
    if num < 1 or seed < 0:
        raise OptionError(
            f"num is {num}, seed is {seed}", remedy="give num 1 or more, seed 0 or more"
        )
    if out.exists():
        raise OutputError("is there already", file=out, remedy="give another file with --out")
    if not out.absolute().parent.is_dir():
        raise OutputError("its folder is not there", file=out, remedy="make the folder first")
    if not run.is_dir():
        raise FileError("no such folder", file=run, remedy="give the folder of a run of learn")
    configure_jax()
    from jaxvae_md import run as runs
    from jaxvae_md.io import write_frames

    frames, result = runs.generate(run, num, seed, progress)
    if out.exists():
        raise OutputError(
            "was written by another process meanwhile",
            file=out,
            remedy="give another file with --out",
        )
    write_frames(out, frames)
    words = f"{len(frames)} of {num} structures, in {out}"
    if len(frames) < num:
        reasons = sorted(set(result["rejected"])) or ["no further gap was found"]
        words += f"\nnot more, since of the others: {'; '.join(reasons)}"
    return {**result, "file": str(out)}, words
