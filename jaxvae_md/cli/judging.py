"""jaxvae-md coverage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from jaxvae_md.cli.arguments import Debug, Json, Quiet, stem
from jaxvae_md.cli.outcome import Result, configure_jax, reported
from jaxvae_md.errors import InputError

if TYPE_CHECKING:
    from jaxvae_md.assessment import Assessment

_TRAJECTORY = 6
"""frames, fewer are no trajectory that leaves anything"""


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
    from jaxvae_md.io import read_frames, write_chemiscope, write_frames
    from jaxvae_md.run_folder import new_folder

    with new_folder(out) as folder:
        training, frames = read_frames(train, labelled=False), read_frames(new, labelled=False)

        configure_jax()
        from jaxvae_md.assessment import annotated, assess
        from jaxvae_md.atomic import write_text
        from jaxvae_md.summary import coverage_figures

        try:
            result = assess(training, frames, name=new.name, progress=progress)
        except InputError as error:
            raise error.at(file=new if error.frame is not None else train) from error
        write_frames(folder / "coverage.extxyz", annotated(frames, result))
        write_chemiscope(
            folder / "map.json.gz", frames, _columns(result), f"coverage of {new.name}"
        )
        coverage_figures(result, folder)
        sentence = result.verdict.sentence + _when(result)
        write_text(folder / "verdict.txt", sentence + "\n")
    left = result.verdict.left_at
    found = {
        "verdict": sentence,
        "outside": result.verdict.share,
        "threshold": result.threshold,
        "outside_by_frame": [float(part.mean()) for part in result.outside],
        "frames_outside": result.verdict.frames.tolist(),
        "left_at_frame": left,
        "left_at_step": None if left is None else int(result.step[left]),
        "groups": [group._asdict() for group in result.verdict.groups],
        "file": str(out / "coverage.extxyz"),
    }
    words = (
        f"{sentence}\nscores of every atom: {found['file']}; pictures: {out / 'coverage.png'} and "
        f"others; to click on at chemiscope.org: {out / 'map.json.gz'}"
    )
    return found, words


def _when(result: Assessment) -> str:
    """When a trajectory left the data; nothing for frames that did not, or are no trajectory."""
    left = result.verdict.left_at
    if left is None or len(result.step) < _TRAJECTORY:
        return ""
    after = np.mean(result.frame_score[left:] > result.frame_threshold)
    return (
        f" It leaves the data at step {result.step[left]} (frame {left}); from there on "
        f"{after:.0%} of the frames are outside."
    )


def _columns(result: Assessment) -> dict[str, Any]:
    """What chemiscope shows of every atom."""
    kinds = [np.asarray(like.kind) for like in result.nearest]
    sure = [np.asarray(like.probability).max(axis=1) for like in result.nearest]
    return {
        "latent dimension 1": result.latent.new[:, 0],
        "latent dimension 2": result.latent.new[:, 1],
        "coverage score": np.concatenate(result.score),
        "outside": np.concatenate(result.outside).astype(float),
        "nearest kind": np.array([*result.labels, "none"])[np.concatenate(kinds)],
        "probability": np.concatenate(sure),
        "step": np.repeat(result.step, [len(part) for part in result.score]),
    }
