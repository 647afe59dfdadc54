"""jaxvae-md md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxvae_md.cli.arguments import ConfigFile, Debug, Json, Quiet, Resume, Seed, stem
from jaxvae_md.cli.config_file import gathered
from jaxvae_md.cli.outcome import Result, configure_jax, refuse_with_resume, reported
from jaxvae_md.errors import InputError, OptionError


def md(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder of a run of learn or fit, or its model.npz."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Argument(
            metavar="START", help="Where to start: the last frame of this file (extxyz)."
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="K, of thermostat and drawn velocities; by default 300.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps; by default 5000.")] = None,
    ensemble: Annotated[str | None, typer.Option(help="nve, nvt (the default) or npt.")] = None,
    time_step: Annotated[float | None, typer.Option(help="fs; by default 1.")] = None,
    pressure: Annotated[float | None, typer.Option(help="GPa, for npt; by default 0.")] = None,
    record_every: Annotated[
        int | None, typer.Option(help="Steps from frame to frame; by default 10.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the simulation; by default md-of-START.")
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    resume: Resume = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Simulate with a learned model; judge every atom.

    Every frame says which atoms are outside the training data.

    Examples:

      jaxvae-md md jaxvae-md-run start.extxyz --temperature 600 --steps 5000

      jaxvae-md md jaxvae-md-run start.extxyz --ensemble npt --pressure 1

      jaxvae-md md jaxvae-md-run start.extxyz --config md-of-start/config.yaml --out again

      jaxvae-md md --resume md-of-start
    """
    given = {
        "temperature": temperature,
        "steps": steps,
        "ensemble": ensemble,
        "time_step": time_step,
        "pressure": pressure,
        "record_every": record_every,
        "seed": seed,
    }

    def work(progress: bool) -> Result:
        if resume is not None:
            refuse_with_resume(model, start, config, out, *given.values())
            return _resume_md(resume, progress)
        if model is None or start is None:
            raise OptionError(
                "RUN and START are needed", remedy="jaxvae-md md RUN START.extxyz, or --resume DIR"
            )
        folder = out or Path(f"md-of-{stem(start)}")
        return _new_md(model, start, gathered(config, **given), folder, progress)

    reported(work, as_json, quiet, debug)


def _new_md(model: Path, start: Path, options: dict[str, Any], out: Path, progress: bool) -> Result:
    from jaxvae_md.io import read_frames
    from jaxvae_md.run_folder import check_free

    check_free(out)
    frames = read_frames(start, labelled=False)
    configure_jax()
    from jaxvae_md.md import MDOptions, new_md
    from jaxvae_md.model import load_model
    from jaxvae_md.options import from_plain

    loaded, settings = load_model(model), from_plain(MDOptions, options)
    try:
        summary = new_md(loaded, frames[-1], settings, out, progress)
    except InputError as error:
        raise error.at(file=start, frame=len(frames) - 1) from error
    return summary, _simulated(summary, out)


def _resume_md(path: Path, progress: bool) -> Result:
    from jaxvae_md.run_folder import opened

    with opened(path, "md") as folder:
        configure_jax()
        from jaxvae_md.md import continue_md

        summary = continue_md(folder, progress)
    return summary, _simulated(summary, path)


def _simulated(summary: dict[str, Any], out: Path) -> str:
    return (
        f"{summary['steps']} steps, {summary['num_atoms']} atoms, mean temperature "
        f"{summary['temperature_k']:.0f} K after the first quarter\n"
        f"{summary['outside']:.1%} of the environments are outside the training data "
        f"({summary['outside_by_chance']:.1%} would be by chance)\n"
        f"trajectory: {out / 'trajectory.extxyz'}\npicture: {out / 'md.png'}"
    )
