"""A run of the closed loop in a folder: stages, checkpoints, metrics, report.

DIR/config.yaml        the resolved options
DIR/metrics.jsonl      one line a stage; the last has stage "final"
DIR/checkpoints/       the state after the last two stages
DIR/generated.extxyz   accepted structures, labelled where a labeller was given
DIR/to_label.extxyz    the same to be labelled, without a labeller
DIR/report.html        everything to look at; the figures also as PNG in DIR/figures
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from jaxvae_md import io
from jaxvae_md._typing import Labeller
from jaxvae_md.errors import FileError, OutputError
from jaxvae_md.label import check_same_reference
from jaxvae_md.learn import Config, State, start, steps
from jaxvae_md.learn.gaps import accepted_frames
from jaxvae_md.learn.loop import stages
from jaxvae_md.learn.state import from_tree, labelled_frames, to_tree
from jaxvae_md.summary import write_summary

if TYPE_CHECKING:
    from ase import Atoms

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
_KEPT_CHECKPOINTS = 2


def check_free(out: Path) -> None:
    """Raises `OutputError` when a folder cannot take a new run."""
    if out.is_file():
        raise OutputError("is a file", file=out, remedy="give a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        remedy = "give another folder with --out, or remove this one"
        if (out / CONFIG).is_file():
            raise OutputError(
                "the folder holds another run",
                file=out,
                remedy=f"continue it with --resume {out}, or {remedy}",
            )
        raise OutputError("the folder is not empty", file=out, remedy=remedy)


def new_run(
    frames: Sequence[Atoms],
    config: Config,
    out: str | Path,
    labeller: Labeller | None,
    progress: bool = False,
) -> dict[str, Any]:
    """Runs one round of the loop in a new folder; returns the final metrics.

    **Raises:** `OutputError` when the folder holds another run; errors of the data before
    anything is written.

    ```python
    new_run(datasets.silicon(), Config(labeller="sw"), "run", get_labeller("sw"))
    ```
    """
    out = Path(out)
    check_free(out)
    if labeller is not None:
        check_same_reference(frames, labeller, config.labeller)
    state, config = start(frames, config)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot be made ({error})", file=out, remedy="give another folder with --out"
        ) from None
    _write_config(config, out)
    return _continue(state, config, out, labeller, [], [], progress)


def resume(out: str | Path, labeller: Labeller | None, progress: bool = False) -> dict[str, Any]:
    """Continues a run after its last finished stage; returns the final metrics.

    ```python
    resume("run", get_labeller("sw"))
    ```
    """
    out = Path(out)
    config = load_config(out)
    name, state = _last_checkpoint(out)
    names = list(stages(None))
    done = names[: names.index(name) + 1]
    records = [r for r in _read_records(out / METRICS) if r["stage"] in done]
    return _continue(state, config, out, labeller, records, done, progress)


def load_config(out: str | Path) -> Config:
    """The resolved options of a run. **Raises:** `FileError`."""
    path = Path(out) / CONFIG
    remedy = "give the folder of a run of jaxvae-md learn"
    try:
        values: dict[str, Any] = yaml.safe_load(path.read_text())
        known = {field.name for field in fields(Config)}
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
        }
        return Config(**plain)
    except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise FileError(f"no readable options ({error})", file=path, remedy=remedy) from None


def _continue(
    state: State,
    config: Config,
    out: Path,
    labeller: Labeller | None,
    records: list[dict[str, Any]],
    done: Sequence[str],
    progress: bool,
) -> dict[str, Any]:
    names = list(stages(labeller))
    if len(done) == len(names):
        return records[-1]
    before = sum(record["seconds"] for record in records)
    began = lap = time.perf_counter()
    for name, after, info in steps(state, config, labeller, progress, first=names[len(done)]):
        if name == "final":
            _write_structures(after, config, out, labeller)
            write_summary(after, config, records, out)
            _write_config(with_temperature(config, after), out)
        io.save_checkpoint(out / CHECKPOINTS / f"{names.index(name):02d}_{name}", to_tree(after))
        now = time.perf_counter()
        # the last line has the time of the whole run, the others their stage's
        seconds = now - began + before if name == "final" else now - lap
        lap = now
        records.append({"stage": name, **info, "seconds": round(seconds, 2)})
        lines = [json.dumps(_finite(record), allow_nan=False) + "\n" for record in records]
        io.write_text(out / METRICS, "".join(lines))
        _remove_old_checkpoints(out)
    return records[-1]


def with_temperature(config: Config, state: State) -> Config:
    """The config with the temperature that the trial simulation had."""
    if state.trial is None:
        return config
    return replace(config, temperature=float(state.trial.temperature))


def _write_config(config: Config, out: Path) -> None:
    io.write_text(out / CONFIG, yaml.safe_dump(config.as_dict(), sort_keys=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _read_records(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        remedy = "remove the folder and start the run again"
        raise FileError(f"cannot be read ({error})", file=path, remedy=remedy) from None


def _write_structures(state: State, config: Config, out: Path, labeller: Labeller | None) -> None:
    frames = accepted_frames(state, config)
    if state.labels is not None:
        frames = labelled_frames(state.labels, frames)
    io.write_frames(out / "generated.extxyz", frames)
    if labeller is None:
        io.write_frames(out / "to_label.extxyz", frames)


def _last_checkpoint(out: Path) -> tuple[str, State]:
    folders = sorted((out / CHECKPOINTS).glob("[0-9][0-9]_*"), reverse=True)
    for folder in folders:
        try:
            return folder.name[3:], from_tree(io.load_checkpoint(folder))
        except FileError as error:
            print(f"warning: {error}")
    raise FileError(
        "no whole checkpoint", file=out, remedy="remove the folder and start the run again"
    )


def _remove_old_checkpoints(out: Path) -> None:
    for folder in sorted((out / CHECKPOINTS).glob("[0-9][0-9]_*"))[:-_KEPT_CHECKPOINTS]:
        shutil.rmtree(folder)
