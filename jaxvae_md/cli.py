"""The command line: parse, call, print. The only place that sets `jax.config`."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxvae_md.errors import FileError, InputError, JaxvaeError, OptionError, OutputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds what the training data of an interatomic potential lack, generates it, and "
    "learns from it. Exit codes: 0 done, 1 the run failed and keeps what it had finished, 2 bad "
    "input.",
)

_QUICK: dict[str, Any] = {
    "num_generated": 4,
    "vae_steps": 1500,
    "lj_steps": 200,
    "fit_steps": 1500,
    "refit_steps": 500,
    "md_steps": 400,
    "refine_updates": 2,
    "refine_window": 20,
    "refine_replicas": 2,
}

Result = tuple[dict[str, Any], str]
"""What a command found: for programs, and in words"""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; only the result.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result, or the error, as one JSON object.")
]
Labeller = Annotated[
    str | None,
    typer.Option(
        help="Reference that labels new structures: sw (Stillinger-Weber), none, or "
        "module:function, where function(atoms) returns (energy, forces). By default sw for "
        "the embedded set and none for your own data."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Options as YAML, the config.yaml of another run say; options given here win.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random; by default 0.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small run, to see what it makes.")]
Resume = Annotated[Path | None, typer.Option(help="Continue the run in this folder instead.")]


@app.command()
def learn(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Frames with energy and forces (extxyz); by default embedded silicon.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("jaxvae-md-run"),
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
    """Run the closed loop: judge the data, generate what they lack, fit, simulate.

    Examples:

      jaxvae-md learn

      jaxvae-md learn train.extxyz --out run

      jaxvae-md learn train.extxyz --labeller my_dft:label --rounds 3

      jaxvae-md learn --resume run

      jaxvae-md learn --resume run --labelled labelled.extxyz
    """

    def work(progress: bool) -> Result:
        if resume is not None:
            _refuse(data, rounds, seed, config, quick or None)
            final = _resume(resume, "learn", labeller, labelled, progress)
            return final, _learned(final, resume)
        if labelled is not None:
            raise OptionError("--labelled needs --resume", remedy="name the run with --resume DIR")
        options = _options(config, quick, seed=seed, labeller=labeller, num_rounds=rounds)
        final = _new_run("learn", data, out, options, labeller, progress)
        return final, _learned(final, out)

    _reported(work, as_json, quiet, debug)


@app.command()
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
    """Fit a potential to energies and forces, and write it as model.npz.

    Examples:

      jaxvae-md fit train.extxyz

      jaxvae-md fit train.extxyz --potential lj --out argon
    """

    def work(progress: bool) -> Result:
        if resume is not None:
            _refuse(data, potential, seed, config, quick or None)
            final = _resume(resume, "fit", None, None, progress)
            return final, _fitted(final, resume)
        options = _options(config, quick, seed=seed, potential=potential, labeller="none")
        source = data if data is not None else options.get("data")
        if source is None:
            raise OptionError("no data", remedy="name the file: jaxvae-md fit DATA.extxyz")
        folder = out or Path(f"fit-of-{_stem(Path(source))}")
        final = _new_run("fit", data, folder, options, None, progress)
        return final, _fitted(final, folder)

    _reported(work, as_json, quiet, debug)


@app.command()
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
    """Make structures for what the data of a finished run lack, to be labelled.

    Structures that the run generated itself are not made again.

    Example:

      jaxvae-md generate jaxvae-md-run --num 20
    """
    _reported(lambda progress: _generate(run, num, seed, out, progress), as_json, quiet, debug)


@app.command()
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
    resume: Resume = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Simulate with a learned model, and say which atoms leave the training data.

    Examples:

      jaxvae-md md jaxvae-md-run start.extxyz --temperature 600 --steps 5000

      jaxvae-md md jaxvae-md-run start.extxyz --ensemble npt --pressure 1

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
    given = {name: value for name, value in given.items() if value is not None}

    def work(progress: bool) -> Result:
        if resume is not None:
            _refuse(model, start, *given.values())
            return _resume_md(resume, progress)
        if model is None or start is None:
            raise OptionError(
                "RUN and START are needed", remedy="jaxvae-md md RUN START.extxyz, or --resume DIR"
            )
        folder = out or Path(f"md-of-{_stem(start)}")
        return _new_md(model, start, given, folder, progress)

    _reported(work, as_json, quiet, debug)


@app.command()
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
    folder = out or Path(f"coverage-of-{_stem(new)}")
    _reported(lambda progress: _coverage(train, new, folder, progress), as_json, quiet, debug)


def main() -> None:
    """Entry point of the `jaxvae-md` command."""
    # XLA reports harmless differences of tuning flags whenever it loads a cached program
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


def _reported(work: Callable[[bool], Result], as_json: bool, quiet: bool, debug: bool) -> None:
    """Runs a command and prints its result; an error becomes a message and an exit code."""
    _configure_logging(quiet)
    try:
        result, words = work(not quiet and sys.stderr.isatty())
        print(json.dumps(result, allow_nan=False) if as_json else words, flush=True)
    except KeyboardInterrupt as error:
        hint = "".join(f"\n  remedy: {note} continues" for note in getattr(error, "__notes__", ()))
        _fail(JaxvaeError(f"interrupted; what was finished is kept{hint}"), as_json, debug, 1)
    except InputError as error:
        _fail(error, as_json, debug, 2)
    except JaxvaeError as error:
        _fail(error, as_json, debug, 1)
    except Exception as error:
        remedy = "see --debug, and report it"
        unknown = JaxvaeError(f"{type(error).__name__}: {error}", remedy=remedy)
        _fail(unknown, as_json, debug, 1)


def _fail(error: JaxvaeError, as_json: bool, debug: bool, code: int) -> None:
    if debug:
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    if as_json:
        where = {"file": error.file and str(error.file), "frame": error.frame, "atom": error.atom}
        print(json.dumps({"error": error.message, **where, "remedy": error.remedy, "exit": code}))
    raise typer.Exit(code)


def _refuse(*given: Any) -> None:
    """A resumed run takes its data and options from its folder."""
    if any(value is not None for value in given):
        raise OptionError(
            "--resume continues a run with its own data and options",
            remedy="give --resume alone, or start a new run without it",
        )


def _options(config: Path | None, quick: bool, **given: Any) -> dict[str, Any]:
    """Options of a run as plain types: of --quick, then of the file, then of the command line."""
    options = dict(_QUICK) if quick else {}
    if config is not None:
        options |= _read_options(config)
        name = options.get("labeller", "")
        if ":" in str(name) and given.get("labeller") != name:
            raise OptionError(
                f"the labeller is {name}; code is only imported when you name it yourself",
                file=config,
                remedy=f"give --labeller {name} beside --config",
            )
    return options | {name: value for name, value in given.items() if value is not None}


def _read_options(path: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(options, dict):
            raise ValueError("no mapping of names to values")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FileError(
            f"cannot be read as options ({error})", file=path, remedy="give lines like seed: 1"
        ) from None
    if options.get("data") is not None:
        options["data"] = str(path.parent / str(options["data"]))
    return options


def _new_run(
    kind: str,
    data: Path | None,
    out: Path,
    options: dict[str, Any],
    labeller: str | None,
    progress: bool,
) -> dict[str, Any]:
    from jaxvae_md.io import read_frames
    from jaxvae_md.learn import Config
    from jaxvae_md.options import from_plain
    from jaxvae_md.run_folder import check_free

    check_free(out)
    source = options.pop("data", None) if data is None else str(data)
    options.pop("data", None)
    options.setdefault("labeller", "sw" if source is None else "none")
    config = from_plain(Config, options)
    if source is not None:
        frames = read_frames(source)
        source = str(Path(source).absolute())
    else:
        from jaxvae_md.datasets import silicon

        frames = silicon()
    _configure_jax()
    from jaxvae_md.label import get_labeller
    from jaxvae_md.run import new_run

    reference = get_labeller(config.labeller)
    try:
        return new_run(frames, config, out, reference, progress, kind=kind, data=source)
    except InputError as error:
        raise error.at(file=data or source or "the embedded set") from error


def _resume(
    path: Path, kind: str, labeller: str | None, labelled: Path | None, progress: bool
) -> dict[str, Any]:
    from jaxvae_md.run_folder import opened

    # the folder is locked before JAX is imported, so that a second process is refused at once
    with opened(path, kind) as folder:
        _configure_jax()
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
    return f"{_errors(final)}\nmodel: {out / 'model.npz'}\nfigures: {out / 'figures'}"


def _errors(final: dict[str, Any]) -> str:
    return (
        f"held-out errors: force {final['force_mae_mev_per_angstrom']:.0f} meV/angstrom, "
        f"energy {final['energy_mae_mev_per_atom']:.1f} meV/atom"
    )


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
    _configure_jax()
    from jaxvae_md import run as runs
    from jaxvae_md.io import write_frames

    frames, result = runs.generate(run, num, seed, progress)
    write_frames(out, frames)
    words = f"{len(frames)} of {num} structures, in {out}"
    if len(frames) < num:
        reasons = sorted(set(result["rejected"])) or ["no further gap was found"]
        words += f"\nnot more, since of the others: {'; '.join(reasons)}"
    return {**result, "file": str(out)}, words


def _new_md(model: Path, start: Path, options: dict[str, Any], out: Path, progress: bool) -> Result:
    from jaxvae_md.io import read_frames
    from jaxvae_md.run_folder import check_free

    check_free(out)
    frames = read_frames(start, labelled=False)
    _configure_jax()
    from jaxvae_md.md import MDOptions, new_md
    from jaxvae_md.model import load_model

    loaded, settings = load_model(model), MDOptions(**options)
    try:
        summary = new_md(loaded, frames[-1], settings, out, progress)
    except InputError as error:
        raise error.at(file=start, frame=len(frames) - 1) from error
    return summary, _simulated(summary, out)


def _resume_md(path: Path, progress: bool) -> Result:
    from jaxvae_md.run_folder import opened

    with opened(path, "md") as folder:
        _configure_jax()
        from jaxvae_md.md import continue_md

        summary = continue_md(folder, progress)
    return summary, _simulated(summary, path)


def _simulated(summary: dict[str, Any], out: Path) -> str:
    return (
        f"{summary['steps']} steps, {summary['num_atoms']} atoms, mean temperature "
        f"{summary['temperature_k']:.0f} K\n"
        f"{summary['outside']:.1%} of the environments are outside the training data "
        f"({summary['outside_by_chance']:.1%} would be by chance)\n"
        f"trajectory: {out / 'trajectory.extxyz'}\npicture: {out / 'md.png'}"
    )


def _coverage(train: Path, new: Path, out: Path, progress: bool) -> Result:
    from jaxvae_md.io import read_frames, write_frames
    from jaxvae_md.run_folder import check_free

    check_free(out)
    training, frames = read_frames(train, labelled=False), read_frames(new, labelled=False)

    _configure_jax()
    from jaxvae_md.assessment import annotated, assess
    from jaxvae_md.atomic import write_text
    from jaxvae_md.summary import coverage_figures

    try:
        result = assess(training, frames, progress=progress)
    except InputError as error:
        raise error.at(file=new if error.frame is not None else train) from error
    write_frames(out / "coverage.extxyz", annotated(frames, result))
    coverage_figures(result, out)
    sentence = result.verdict.sentence
    write_text(out / "verdict.txt", sentence + "\n")
    found = {
        "verdict": sentence,
        "outside": result.verdict.share,
        "threshold": result.threshold,
        "outside_by_frame": [float(part.mean()) for part in result.outside],
        "file": str(out / "coverage.extxyz"),
    }
    words = f"{sentence}\nscores of every atom: {found['file']}; picture: {out / 'coverage.png'}"
    return found, words


def _stem(path: Path) -> str:
    """A file's name without its endings."""
    return path.name.split(".")[0]


def _configure_logging(quiet: bool) -> None:
    """What the package reports goes to stderr, a line each."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("jaxvae_md").setLevel(logging.WARNING if quiet else logging.INFO)
    # Orbax logs every error that it also raises
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _configure_jax() -> None:
    """float64, and a compilation cache that outlives the process."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxvae_md" / "xla"
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
