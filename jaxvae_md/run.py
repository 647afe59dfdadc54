"""A run of the closed loop, or of a plain fit, in a folder that can always be resumed.

DIR/config.yaml        the resolved options
DIR/metrics.jsonl      one line a stage; the last has stage "final"
DIR/checkpoints/       the state after the last two stages
DIR/labels.jsonl       every label the labeller has computed, as it came
DIR/generated.extxyz   accepted structures, labelled where a labeller was given
DIR/to_label.extxyz    the same to be labelled, without a labeller
DIR/model.npz          the learned model
DIR/report.html        everything to look at; the figures also as PNG in DIR/figures
DIR/round_0/ ...       the same files of earlier rounds

After a kill at any moment a resumed run ends with the same files, bit by bit, save for the
seconds in metrics.jsonl. What was altered in a finished run is kept as FILE.altered-1 when the
file is written again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxvae_md import atomic, io, run_folder
from jaxvae_md._typing import Labeller
from jaxvae_md.checkpoint import digests, to_tree
from jaxvae_md.errors import FileError, LabelError, OptionError
from jaxvae_md.label import check_reference, check_same_reference, remembered
from jaxvae_md.labelled import read_labelled
from jaxvae_md.learn import FIT_STAGES, STAGES, Config, State, next_round, start, steps
from jaxvae_md.learn.gaps import accepted_frames
from jaxvae_md.learn.gaps import generate as generate_stage
from jaxvae_md.learn.loop import stage_key
from jaxvae_md.learn.state import labelled_frames, restored
from jaxvae_md.model import MODEL, Model, save_model
from jaxvae_md.options import as_plain, from_plain
from jaxvae_md.run_folder import RunFolder
from jaxvae_md.summary import write_summary

if TYPE_CHECKING:
    from ase import Atoms

METRICS = "metrics.jsonl"
LABELS = "labels.jsonl"
GENERATED, TO_LABEL = "generated.extxyz", "to_label.extxyz"
_OF_A_ROUND = (GENERATED, TO_LABEL, MODEL, "report.html", "figures")
_STAGES = {"learn": STAGES, "fit": FIT_STAGES}
_ATTEMPTS = 4
_log = logging.getLogger(__name__)


def new_run(
    frames: Sequence[Atoms],
    config: Config,
    out: str | Path,
    labeller: Labeller | None,
    progress: bool = False,
    *,
    kind: str = "learn",
    data: str | None = None,
) -> dict[str, Any]:
    """Runs the loop in a new folder; returns the final metrics.

    **Arguments:** `kind` "learn" for the whole loop, "fit" for the potential alone; `data` the file
    that the frames came from: with it the options repeat the run. **Raises:** `OutputError` when
    the folder holds another run; errors of the data before anything is written; `RunError`, after
    which `resume` continues.

    ```python
    new_run(datasets.silicon(), Config(labeller="sw"), "run", get_labeller("sw"))
    ```
    """
    out = Path(out)
    run_folder.check_free(out)
    _check_labeller(config, labeller)
    state, config = start(frames, config)
    check_reference(config.reference, labeller)
    options = {"data": data, **as_plain(config)}
    info = {"stage": "start", "records": [], "seconds": 0.0}

    def fill(folder: Path) -> None:
        if labeller is not None:
            check_same_reference(frames, remembered(labeller, folder / LABELS), config.labeller)

    with run_folder.create(out, kind, options, to_tree(state), info, fill) as folder:
        if labeller is not None:
            labeller = remembered(labeller, folder.path / LABELS)
        return _proceed(folder, config, state, info, labeller, progress)


def resume(
    out: str | Path,
    labeller: Labeller | None,
    progress: bool = False,
    *,
    labelled: str | Path | None = None,
) -> dict[str, Any]:
    """Continues a run after its last finished stage; returns the final metrics.

    **Arguments:** `labelled` an extxyz file of structures with energies and forces, those of
    `to_label.extxyz` say: they join the training data of a finished run, and another round begins.

    ```python
    resume("run", get_labeller("sw"))
    ```
    """
    with run_folder.opened(out, "learn", "fit") as folder:
        return continue_in(folder, labeller, progress, labelled=labelled)


def continue_in(
    folder: RunFolder,
    labeller: Labeller | None,
    progress: bool = False,
    *,
    labelled: str | Path | None = None,
) -> dict[str, Any]:
    """`resume` in a folder that is open already."""
    tree, info = folder.last()
    state, config = restored(tree), config_in(folder)
    _check_labeller(config, labeller)
    check_reference(config.reference, labeller)
    if labeller is not None:
        labeller = remembered(labeller, folder.path / LABELS)
    if labelled is not None:
        finished = info["stage"] == "final"
        # what the labeller computed in the last round joins first
        joined = next_round(state) if finished else state
        new = read_labelled(joined, config, labelled, labeller) if folder.kind == "learn" else None
        if folder.kind != "learn" or (new is not None and not finished):
            raise OptionError(
                "only a finished run of jaxvae-md learn takes labelled structures",
                remedy=f"{folder.command} first",
            )
        if new is None and finished:
            raise LabelError(
                "every structure is among the run's data already",
                file=labelled,
                remedy="give structures that are new, those of to_label.extxyz say",
            )
        if new is None:
            _log.info("the labelled structures have joined the training data already")
        else:
            _keep_round(folder.path, int(state.round))
            state, info = next_round(joined._replace(labels=new)), {**info, "stage": "start"}
            folder.commit("labelled", to_tree(state), info)
            _log.info("%d new labelled structures join the training data", len(new.energy))
    return _proceed(folder, config, state, info, labeller, progress)


def config_in(folder: RunFolder) -> Config:
    """The resolved options of the run in an open folder."""
    options = {name: value for name, value in folder.config.items() if name != "data"}
    return from_plain(Config, options)


def finished_state(run: str | Path) -> tuple[State, Config]:
    """State and options of a finished run of the whole loop. **Raises:** `FileError`.

    ```python
    state, config = finished_state("run")
    ```
    """
    with run_folder.opened(run, "learn", read_only=True) as folder:
        tree, info = folder.last()
        if info["stage"] != "final":
            raise FileError("the run is not finished", file=run, remedy=f"{folder.command} first")
        return restored(tree), config_in(folder)


def generate(
    run: str | Path, num: int, seed: int = 0, progress: bool = False
) -> tuple[list[Atoms], dict[str, Any]]:
    """More structures for the gaps of a finished run, none for a gap that is filled already.

    **Returns:** up to `num` structures, with request, start and figures in `info`; and how many
    were asked for, made and rejected, with the reasons.

    ```python
    frames, info = generate("run", num=20)
    ```
    """
    state, config = finished_state(run)
    beside = accepted_frames(state, config)
    found: list[Atoms] = []
    rejected: list[str] = []
    requested = 0
    key = jax.random.fold_in(stage_key(config, state, "generate"), 1 + seed)
    for attempt in range(_ATTEMPTS):
        missing = replace(config, num_generated=num - len(found))
        key = jax.random.fold_in(key, attempt)
        made, info = generate_stage(state, missing, key, progress, [*beside, *found])
        requested += info["num_requested"]
        rejected += info["rejected"]
        found += accepted_frames(made, config)
        if len(found) >= num or not info["num_requested"]:
            break
    return found, {
        "num_asked": num,
        "num_requested": requested,
        "num_generated": len(found),
        "rejected": rejected,
        "novelty_mean": float(np.mean([a.info["novelty"] for a in found])) if found else None,
    }


def model_of(state: State, config: Config, info: dict[str, Any] | None = None) -> Model:
    """The model that a state has learned so far.

    ```python
    save_model("model.npz", model_of(*finished_state("run")))
    ```
    """
    assert state.standardizer is not None and state.coverage is not None
    return Model(
        architecture=config.architecture,
        standardizer=state.standardizer,
        params=state.params,
        coverage=state.coverage,
        vae_params=state.vae_params,
        info={"labels": list(config.labels), **(info or {})},
    )


def _proceed(
    folder: RunFolder,
    config: Config,
    state: State,
    info: dict[str, Any],
    labeller: Labeller | None,
    progress: bool,
) -> dict[str, Any]:
    """Runs what remains of this round, and the rounds that are left."""
    out, names = folder.path, _STAGES[folder.kind]
    while True:
        done = 0 if info["stage"] == "start" else names.index(info["stage"]) + 1
        if done == len(names):
            if int(state.round) >= config.num_rounds or state.labels is None:
                break
            _keep_round(out, int(state.round))
            state, done = next_round(state), 0
        state, info = _run_stages(folder, config, state, info, labeller, progress, names[done:])
    _write_metrics(out, info["records"])
    _restore_outputs(folder, config, state, info, labeller)
    return info["records"][-1]


def _check_labeller(config: Config, labeller: Labeller | None) -> None:
    """The labeller itself cannot be known again, but that there is one can."""
    if (labeller is None) != (config.labeller == "none"):
        raise OptionError(
            f"the run's labeller is {config.labeller}, and "
            f"{'none' if labeller is None else 'one'} was given",
            remedy="give the labeller that the options name",
        )


def _run_stages(
    folder: RunFolder,
    config: Config,
    state: State,
    info: dict[str, Any],
    labeller: Labeller | None,
    progress: bool,
    names: Sequence[str],
) -> tuple[State, dict[str, Any]]:
    """Runs stages and commits each; outputs are written before the last one counts as done."""
    lap = time.perf_counter()
    number = int(state.round)
    for name, after, measured in steps(state, config, labeller, progress, names):
        now = time.perf_counter()
        spent, lap = now - lap, now
        total = info["seconds"] + spent
        # the last line has the time of the whole run, the others their stage's
        seconds = round(total if name == "final" else spent, 2)
        record = _finite({"stage": name, "round": number, **measured, "seconds": seconds})
        records = [*info["records"], record]
        state, info = after, {"stage": name, "records": records, "seconds": total}
        if name == "final":
            info["outputs"] = _write_outputs(folder, state, config, labeller, records)
        folder.commit(name, to_tree(state), info)
        _write_metrics(folder.path, records)
        _log.info("%s: done in %.1f s", name, spent)
    return state, info


def _restore_outputs(
    folder: RunFolder,
    config: Config,
    state: State,
    info: dict[str, Any],
    labeller: Labeller | None,
) -> None:
    """Writes again what is missing of a finished run or was altered, which is kept aside."""
    expected, found = info["outputs"], _digests(folder.path)
    wrong = [name for name, digest in expected.items() if found.get(name) != digest]
    if not wrong:
        return
    for name in wrong:
        _log.warning("%s is missing or was altered; it is written again", folder.path / name)
        if name in found:
            _keep_aside(folder.path / name)
    written = _write_outputs(folder, state, config, labeller, info["records"])
    if written != expected:
        folder.commit("final", to_tree(state), {**info, "outputs": written})


def _keep_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.altered-{number}")).exists():
        number += 1
    with atomic.writing(path):
        os.replace(path, aside)


def _write_outputs(
    folder: RunFolder,
    state: State,
    config: Config,
    labeller: Labeller | None,
    records: Sequence[dict[str, Any]],
) -> dict[str, str]:
    """What a finished round leaves to look at and to use; returns the digest of each file."""
    folder.check_in_place()
    out = folder.path
    errors = {k: v for k, v in records[-1].items() if k not in ("seconds", "stage")}
    save_model(out / MODEL, model_of(state, config, {"held_out": errors}))
    if folder.kind == "learn":
        frames = accepted_frames(state, config)
        if state.labels is not None:
            frames = labelled_frames(state.labels, frames)
            for atoms in frames if config.reference else ():
                atoms.info["reference"] = config.reference
        io.write_frames(out / GENERATED, frames)
        if labeller is None:
            io.write_frames(out / TO_LABEL, frames)
    this_round = [r for r in records if r["round"] == records[-1]["round"]]
    write_summary(state, config, this_round, out)
    return _digests(out)


def _digests(out: Path) -> dict[str, str]:
    known = [path for name in _OF_A_ROUND for path in (out / name, *(out / name).glob("*.png"))]
    return digests(out, [path for path in known if path.is_file()])


def _write_metrics(out: Path, records: Sequence[dict[str, Any]]) -> None:
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
    atomic.write_text(out / METRICS, "".join(lines))


def _keep_round(out: Path, number: int) -> None:
    """Copies what the finished round left, before the next one replaces it."""
    kept = out / f"round_{number - 1}"
    if kept.exists():
        return
    temporary = out / f".part-{kept.name}"
    with atomic.writing(kept):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name in _OF_A_ROUND:
            source = out / name
            if source.is_dir():
                shutil.copytree(source, temporary / name)
            elif source.exists():
                shutil.copy2(source, temporary / name)
        os.replace(temporary, kept)


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
