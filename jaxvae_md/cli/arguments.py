"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; only the result.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result, or the error, as one JSON object.")
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


def stem(path: Path) -> str:
    """A file's name without its endings."""
    return path.name.split(".")[0]
