"""The command line: parse, call, print. The only place that sets `jax.config`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxvae_md.errors import InputError, JaxvaeError, OptionError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds what the training data of an interatomic potential lack, generates it, and "
    "learns from it.",
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

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars; only the result.")]


@app.command()
def learn(
    data: Annotated[
        Path | None,
        typer.Argument(help="Frames with energy and forces (extxyz); by default embedded silicon."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("jaxvae-md-run"),
    labeller: Annotated[
        str | None,
        typer.Option(
            help="Reference that labels new structures: sw (Stillinger-Weber), none, or "
            "module:function, where function(atoms) returns (energy, forces). By default sw for "
            "the embedded set and none for your own data."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder instead.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run, to see what it makes.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run one round of the closed loop: judge the data, generate what they lack, fit, simulate.

    Examples:

      jaxvae-md learn

      jaxvae-md learn train.extxyz --out run

      jaxvae-md learn train.extxyz --labeller my_dft:label
    """
    _reported(debug, lambda: _learn(data, out, labeller, seed, resume, quick, quiet))


@app.command()
def coverage(
    train: Annotated[Path, typer.Argument(help="Training frames (extxyz).")],
    new: Annotated[Path, typer.Argument(help="Frames to judge, a trajectory say (extxyz).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default coverage-of-NEW.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say which atoms of NEW are outside the training data.

    Example:

      jaxvae-md coverage train.extxyz trajectory.extxyz
    """
    _reported(debug, lambda: _coverage(train, new, out, quiet))


def main() -> None:
    """Entry point of the `jaxvae-md` command."""
    # XLA reports harmless differences of tuning flags whenever it loads a cached program
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


def _reported(debug: bool, work: Callable[[], None]) -> None:
    """Runs a command; errors become a message and an exit code (2 bad input, 1 failed run)."""
    try:
        work()
    except KeyboardInterrupt:
        _fail(debug, "interrupted; what was finished is kept", 1)
    except InputError as error:
        _fail(debug, str(error), 2)
    except JaxvaeError as error:
        _fail(debug, str(error), 1)
    except Exception as error:
        _fail(debug, f"{type(error).__name__}: {error}\n  remedy: see --debug, and report it", 1)


def _fail(debug: bool, message: str, code: int) -> None:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _learn(
    data: Path | None,
    out: Path,
    labeller: str | None,
    seed: int,
    resume: Path | None,
    quick: bool,
    quiet: bool,
) -> None:
    from jaxvae_md.io import read_frames
    from jaxvae_md.run import check_free

    if resume is not None:
        if data is not None or quick:
            raise OptionError(
                "--resume continues a run with its own data and options",
                remedy="give --resume alone, or start a new run without it",
            )
        _finish(_resume(resume, labeller, quiet), resume)
        return
    check_free(out)
    name = labeller or ("sw" if data is None else "none")
    if data is not None:
        frames = read_frames(data)
    else:
        from jaxvae_md.datasets import silicon

        frames = silicon()

    _configure_jax()
    from jaxvae_md.label import get_labeller
    from jaxvae_md.learn import Config
    from jaxvae_md.run import new_run

    reference = get_labeller(name)
    try:
        config = Config(seed=seed, labeller=name, **(_QUICK if quick else {}))
        final = new_run(frames, config, out, reference, progress=not quiet)
    except InputError as error:
        raise error.at(file=data or "the embedded set") from error
    _finish(final, out)


def _resume(out: Path, labeller: str | None, quiet: bool) -> dict:
    _configure_jax()
    from jaxvae_md.label import get_labeller
    from jaxvae_md.run import load_config, resume

    name = load_config(out).labeller
    if ":" in name and labeller != name:
        raise OptionError(
            f"the run's labeller is {name}; code is only imported when you name it yourself",
            remedy=f"give --labeller {name} beside --resume",
        )
    return resume(out, get_labeller(name), progress=not quiet)


def _finish(final: dict, out: Path) -> None:
    """The result in a few lines, and what to do next."""
    print(
        f"held-out errors: force {final['force_mae_mev_per_angstrom']:.0f} meV/angstrom, "
        f"energy {final['energy_mae_mev_per_atom']:.1f} meV/atom\n"
        f"VAE: R2 {final['vae_r2']:.3f} (PCA {final['pca_r2']:.3f}), "
        f"{final['active_dims']} active dimensions\n"
        f"generated: {final['num_generated']} structures, in {out / 'generated.extxyz'}\n"
        f"report: {out / 'report.html'}"
    )
    if (out / "to_label.extxyz").is_file() and final["num_generated"]:
        print(
            f"next: compute energy and forces of {out / 'to_label.extxyz'} with the code that made "
            "your data,\n      append them to your data and run learn again"
        )


def _coverage(train: Path, new: Path, out: Path | None, quiet: bool) -> None:
    from jaxvae_md.io import read_frames, write_frames, write_text
    from jaxvae_md.run import check_free

    out = out or Path(f"coverage-of-{new.name.split('.')[0]}")
    check_free(out)
    training, frames = read_frames(train, labelled=False), read_frames(new, labelled=False)

    _configure_jax()
    from jaxvae_md.assessment import annotated, assess
    from jaxvae_md.summary import coverage_figures

    try:
        result = assess(training, frames, progress=not quiet)
    except InputError as error:
        raise error.at(file=new if error.frame is not None else train) from error
    out.mkdir(parents=True, exist_ok=True)
    write_frames(out / "coverage.extxyz", annotated(frames, result))
    coverage_figures(result, out)
    write_text(out / "verdict.txt", result.verdict.sentence + "\n")
    print(result.verdict.sentence)
    print(f"scores of every atom: {out / 'coverage.extxyz'}; picture: {out / 'coverage.png'}")


def _configure_jax() -> None:
    """float64, and a compilation cache that outlives the process."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxvae_md" / "xla"
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
