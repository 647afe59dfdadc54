"""jaxvae-md learn and jaxvae-md fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jaxvae_md.cli.arguments import ConfigFile, Debug, Json, Quick, Quiet, Resume, Seed, stem
from jaxvae_md.cli.config_file import EMBEDDED, SETS, gathered
from jaxvae_md.cli.outcome import Result, configure_jax, refuse_with_resume, reported
from jaxvae_md.errors import InputError, OptionError

Labeller = Annotated[
    str | None,
    typer.Option(
        help="Reference that labels new structures: sw (Stillinger-Weber), qe (Quantum "
        "ESPRESSO, silicon), none, or "
        "module:function, where function(atoms) returns (energy, forces). By default sw for "
        "the embedded set and none for your own data."
    ),
]


def learn(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Frames with energy and forces (extxyz), or silicon-dft, the embedded set of "
            "DFT; by default embedded silicon of Stillinger-Weber.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default jaxvae-md-run.")
    ] = None,
    labeller: Labeller = None,
    rounds: Annotated[
        int | None,
        typer.Option(help="How often the loop is closed, with a labeller; by default 1."),
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    resume: Resume = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="With --resume: structures that you had labelled (to_label.extxyz with energy and "
            "forces). They join the data, and another round begins."
        ),
    ] = None,
    quick: Quick = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the closed loop: judge the data, generate, fit, simulate.

    Examples:

      jaxvae-md learn

      jaxvae-md learn train.extxyz --out run

      jaxvae-md learn train.extxyz --labeller my_dft:label --rounds 3

      jaxvae-md learn silicon-dft --labeller qe

      jaxvae-md learn --resume run

      jaxvae-md learn --resume run --labelled labelled.extxyz
    """

    def work(progress: bool) -> Result:
        if resume is not None:
            refuse_with_resume(data, out, rounds, seed, config, quick or None)
            final = _resume(resume, "learn", labeller, labelled, progress)
            return final, _learned(final, resume)
        if labelled is not None:
            raise OptionError("--labelled needs --resume", remedy="name the run with --resume DIR")
        options = gathered(config, quick, seed=seed, labeller=labeller, num_rounds=rounds)
        folder = out or Path("jaxvae-md-run")
        final = _new_run("learn", data, folder, options, progress)
        return final, _learned(final, folder)

    reported(work, as_json, quiet, debug)


def fit(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="Frames with energy and forces (extxyz)."),
    ] = None,
    potential: Annotated[
        str | None,
        typer.Option(
            help="lj (Lennard-Jones), nn (a network on Chebyshev descriptors), or lj+nn (the "
            "network on a Lennard-Jones core), the default."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the fit; by default fit-of-DATA.")
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    resume: Resume = None,
    quick: Quick = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit a potential to energies and forces: model.npz.

    Finer descriptors than in learn, and four networks, which know how much they differ: the
    options radial_order, angular_order, num_members and fit_steps.

    Examples:

      jaxvae-md fit train.extxyz

      jaxvae-md fit train.extxyz --potential lj --out argon
    """

    def work(progress: bool) -> Result:
        if resume is not None:
            refuse_with_resume(data, out, potential, seed, config, quick or None)
            final = _resume(resume, "fit", None, None, progress)
            return final, _fitted(final, resume)
        given = gathered(config, quick, seed=seed, potential=potential, labeller="none")
        from jaxvae_md.learn import FINE

        options = {**FINE, **given}
        source = data or options.get("data")
        if source is None:
            raise OptionError("no data", remedy="name the file: jaxvae-md fit DATA.extxyz")
        folder = out or Path(f"fit-of-{stem(Path(source))}")
        final = _new_run("fit", data, folder, options, progress)
        return final, _fitted(final, folder)

    reported(work, as_json, quiet, debug)


def _new_run(
    kind: str,
    data: Path | None,
    out: Path,
    options: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    from jaxvae_md.io import read_frames
    from jaxvae_md.learn import Config
    from jaxvae_md.options import from_plain
    from jaxvae_md.run_folder import check_free

    check_free(out)
    noted = options.pop("data", EMBEDDED)
    source = noted if data is None else str(data)
    if source is None:
        raise OptionError(
            "the frames of that run came from Python and not from a file",
            remedy=f"name a file with them: jaxvae-md {kind} DATA.extxyz --config ...",
        )
    options.setdefault("labeller", "sw" if source == EMBEDDED else "none")
    config = from_plain(Config, options)
    if source in SETS:
        from jaxvae_md import datasets

        frames = getattr(datasets, SETS[source])()
    else:
        frames = read_frames(source)
        source = str(Path(source).absolute())
    configure_jax()
    from jaxvae_md.label import get_labeller
    from jaxvae_md.run import new_run

    reference = get_labeller(config.labeller)
    try:
        return new_run(frames, config, out, reference, progress, kind=kind, data=source)
    except InputError as error:
        raise error.at(file=data or source) from error


def _resume(
    path: Path, kind: str, labeller: str | None, labelled: Path | None, progress: bool
) -> dict[str, Any]:
    from jaxvae_md.run_folder import opened

    # the folder is locked before JAX is imported, so that a second process is refused at once
    with opened(path, kind) as folder:
        configure_jax()
        folder.last()
        from jaxvae_md.label import get_labeller
        from jaxvae_md.run import continue_in

        name = folder.config["labeller"]
        if labeller is not None and labeller != name:
            raise OptionError(
                f"the run's labeller is {name}, not {labeller}",
                remedy="labels of two references must not be mixed: start a new run",
            )
        if ":" in name and labeller is None:
            raise OptionError(
                f"the run's labeller is {name}; code is only imported when you name it yourself",
                remedy=f"give --labeller {name} beside --resume",
            )
        return continue_in(folder, get_labeller(name), progress, labelled=labelled)


def _learned(final: dict[str, Any], out: Path) -> str:
    """The result in a few lines, and what to do next."""
    lines = [
        _errors(final),
        f"VAE: R2 {final['vae_r2']:.3f} (PCA {final['pca_r2']:.3f}), "
        f"{final['active_dims']} active dimensions",
        f"generated: {final['num_generated']} structures, in {out / 'generated.extxyz'}",
        *_physics(final),
        f"model: {out / 'model.npz'}",
        f"report: {out / 'report.html'}",
    ]
    if (out / "to_label.extxyz").is_file() and final["num_generated"]:
        lines.append(
            f"next: compute energy and forces of {out / 'to_label.extxyz'} with the code that made "
            f"your data,\n      then jaxvae-md learn --resume {out} --labelled THEM.extxyz"
        )
    return "\n".join(lines)


def _fitted(final: dict[str, Any], out: Path) -> str:
    lines = [_errors(final), *_physics(final), f"model: {out / 'model.npz'}"]
    return "\n".join([*lines, f"figures: {out / 'figures'}"])


def _physics(final: dict[str, Any]) -> list[str]:
    """The table of the crystal's properties, where there is one."""
    if "properties" not in final:
        return []
    from jaxvae_md.properties import Properties, table

    # what is not a number is null in JSON
    number = lambda value: float("nan") if value is None else value
    columns = {
        name: Properties(**{key: number(value) for key, value in column.items()})
        for name, column in final["properties"].items()
    }
    return [table(columns)]


def _errors(final: dict[str, Any]) -> str:
    return (
        f"held-out errors: force {final['force_mae_mev_per_angstrom']:.0f} meV/angstrom, "
        f"energy {final['energy_mae_mev_per_atom']:.1f} meV/atom"
    )
