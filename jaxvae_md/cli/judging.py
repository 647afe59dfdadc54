"""jaxvae-md coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxvae_md.cli.arguments import Debug, Json, Quiet, stem
from jaxvae_md.cli.outcome import Result, configure_jax, reported
from jaxvae_md.errors import InputError


def coverage(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Training frames (extxyz).")],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="Frames to judge, a trajectory say (extxyz).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default coverage-of-NEW.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say which atoms of NEW are outside the training data.

    Example:

      jaxvae-md coverage train.extxyz trajectory.extxyz
    """
    folder = out or Path(f"coverage-of-{stem(new)}")
    reported(lambda progress: _coverage(train, new, folder, progress), as_json, quiet, debug)


def _coverage(train: Path, new: Path, out: Path, progress: bool) -> Result:
    from jaxvae_md.io import read_frames, write_frames
    from jaxvae_md.run_folder import new_folder

    with new_folder(out) as folder:
        training, frames = read_frames(train, labelled=False), read_frames(new, labelled=False)

        configure_jax()
        from jaxvae_md.assessment import annotated, assess
        from jaxvae_md.atomic import write_text
        from jaxvae_md.summary import coverage_figures

        try:
            result = assess(training, frames, progress=progress)
        except InputError as error:
            raise error.at(file=new if error.frame is not None else train) from error
        write_frames(folder / "coverage.extxyz", annotated(frames, result))
        coverage_figures(result, folder)
        sentence = result.verdict.sentence
        write_text(folder / "verdict.txt", sentence + "\n")
    found = {
        "verdict": sentence,
        "outside": result.verdict.share,
        "threshold": result.threshold,
        "outside_by_frame": [float(part.mean()) for part in result.outside],
        "file": str(out / "coverage.extxyz"),
    }
    words = f"{sentence}\nscores of every atom: {found['file']}; picture: {out / 'coverage.png'}"
    return found, words
