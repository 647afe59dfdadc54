"""The command line: parse, call, print. The only place that sets `jax.config`."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from jaxvae_md import __version__
from jaxvae_md.cli.generating import generate
from jaxvae_md.cli.judging import coverage
from jaxvae_md.cli.learning import fit, learn
from jaxvae_md.cli.outcome import failed
from jaxvae_md.cli.simulating import md
from jaxvae_md.errors import OptionError

# click's class, or typer's own copy of it, depending on the version of typer
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds what the training data of an interatomic potential lack, generates it, and "
    "learns from it. Exit codes: 0 done, 1 the run failed and keeps what it had finished, 2 bad "
    "input.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"jaxvae-md {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")
    ] = False,
) -> None:
    pass


for _command in (learn, fit, generate, md, coverage):
    app.command()(_command)


def main() -> None:
    """Entry point of the `jaxvae-md` command."""
    # XLA reports harmless differences of tuning flags whenever it loads a cached program
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "jaxvae-md"
        wrong = OptionError(error.format_message(), remedy=f"{command} --help shows what there is")
        code = failed(wrong, as_json="--json" in sys.argv)
    sys.exit(code)
