"""The command line: parse, call, print. The only place that sets `jax.config`."""

from __future__ import annotations

import os

import typer

from jaxvae_md.cli.generating import generate
from jaxvae_md.cli.judging import coverage
from jaxvae_md.cli.learning import fit, learn
from jaxvae_md.cli.simulating import md

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds what the training data of an interatomic potential lack, generates it, and "
    "learns from it. Exit codes: 0 done, 1 the run failed and keeps what it had finished, 2 bad "
    "input.",
)
for _command in (learn, fit, generate, md, coverage):
    app.command()(_command)


def main() -> None:
    """Entry point of the `jaxvae-md` command."""
    # XLA reports harmless differences of tuning flags whenever it loads a cached program
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()
