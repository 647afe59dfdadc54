"""Growth at a surface, written as it goes: the same call continues it after a kill.

DIR/config.yaml         what decides it
DIR/trajectory.extxyz   the atoms that are there, after every few arrivals
DIR/energy.csv          one line an arrival: atoms, and where energy came from and went
DIR/checkpoints/        the simulation after the last two arrivals

A simulation that was killed and continued ends with the same files, bit by bit.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from jaxvae_md import growing, run_folder
from jaxvae_md._typing import Params
from jaxvae_md.errors import OptionError
from jaxvae_md.growing import Mark
from jaxvae_md.io import frames_text
from jaxvae_md.run_folder import CHECKPOINTS, RunFolder
from jaxvae_md.simulate import Beam, Deposit, Growth, Simulator, deposit, energy_balance
from jaxvae_md.simulate.arrays import as_arrays, from_arrays
from jaxvae_md.structure import to_atoms

if TYPE_CHECKING:
    from ase import Atoms

TRAJECTORY, ENERGY = "trajectory.extxyz", "energy.csv"
_TERMS = ("kinetic", "potential", "heat", "brought", "carried", "conserved")
_HEAD = ",".join(("arrivals", "atoms", "left", *(f"{name}_ev" for name in _TERMS))) + "\n"


def grow(
    out: str | Path,
    simulator: Simulator,
    params: Params,
    start: Deposit,
    beam: Beam,
    num_arrivals: int,
    num_steps: int,
    *,
    frame_every: int = 1,
    record_every: int = 100,
    progress: bool = False,
) -> Path:
    """Lets atoms arrive as `simulate.deposit` does, in a folder; returns its trajectory.

    Where the folder holds the beginning of the same growth, it goes on from there, also to more
    arrivals than were asked for at first.

    **Arguments:** as of `simulate.deposit`; a frame is written after every `frame_every` arrivals.
    **Raises:** `OptionError` where the folder holds another growth, before anything is changed;
    `RunError` where the simulation fails or the capacity is exhausted, with all before it kept.

    ```python
    path = grow("film", simulator, params, start, beam, num_arrivals=100, num_steps=1000)
    frames = ase.io.read(path, ":")
    ```
    """
    if frame_every < 1:
        raise OptionError(f"frame_every is {frame_every}", remedy="give a whole number, 1 or more")
    path = Path(out)
    config = {
        "num_steps": num_steps,
        "record_every": record_every,
        "frame_every": frame_every,
        "energy": beam.energy,
        "angle": beam.angle,
        "start": _digest(params, start, beam.position, beam.species),
    }
    again = _again(out)
    species = simulator.potential.species
    if not (path / CHECKPOINTS).is_dir():
        marks: dict[str, Mark] = {}

        def fill(folder: Path) -> None:
            first = _frame(start, species)
            marks[TRAJECTORY] = growing.append(folder / TRAJECTORY, frames_text([first]), None)
            row = _row(start, energy_balance(simulator, params, start))
            marks[ENERGY] = growing.append(folder / ENERGY, _HEAD + row, None)

        info = {"marks": marks}
        arrays = as_arrays(start, start.state.neighbors.grid)
        with run_folder.create(path, "growth", config, arrays, info, fill, again):
            pass
    with run_folder.opened(path, "growth", again=again) as folder:
        tree, info = folder.last(partial(_altered, path))
        different = [name for name in config if folder.config.get(name) != config[name]]
        if different:
            raise OptionError(
                f"the folder holds another growth: {', '.join(different)} differ",
                file=path,
                remedy="give another folder, or what it was begun with",
            )
        now = _restored(start, tree)
        steps = deposit(
            simulator, params, now, beam, num_arrivals, num_steps, record_every=record_every
        )
        marks = {name: Mark(*mark) for name, mark in info["marks"].items()}
        with tqdm(
            total=num_arrivals,
            initial=int(now.num_arrivals),
            desc="growth",
            unit="arrival",
            disable=not progress,
        ) as bar:
            for growth in steps:
                balance = energy_balance(simulator, params, growth.deposit)
                marks = _commit(folder, growth, species, _row(growth.deposit, balance), marks)
                bar.update()
    return path / TRAJECTORY


def last_deposit(out: str | Path, start: Deposit) -> Deposit:
    """What the growth in a folder has come to, to go on with in other ways.

    **Arguments:** `start` as of `grow`. **Raises:** `FileError` where the folder holds no growth,
    `OptionError` where it is of another kind than `start`.

    ```python
    now = last_deposit("film", start)
    for state, trajectory in chunks(hotter, params, now.state, num_steps=10_000, record_every=100):
        ...
    ```
    """
    with run_folder.opened(out, "growth", read_only=True, again=_again(out)) as folder:
        return _restored(start, folder.last(partial(_altered, Path(out))).tree)


def _again(out: str | Path) -> str:
    return f"the same call of grow({str(out)!r}, ...)"


def _altered(path: Path, info: dict[str, Any]) -> str | None:
    """What speaks against a checkpoint with these marks."""
    for name, mark in info["marks"].items():
        if not growing.is_intact(path / name, Mark(*mark)):
            return f"{name} is shorter than it was, or was altered"
    return None


def _restored(start: Deposit, tree: dict[str, Any]) -> Deposit:
    if as_arrays(start, start.state.neighbors.grid).keys() != tree.keys():
        raise OptionError(
            "the folder holds the growth of another simulator", remedy="give what it began with"
        )
    now, grid = from_arrays(start, tree)
    if grid is None:
        return now
    neighbors = now.state.neighbors._replace(grid=grid)
    return now._replace(state=now.state._replace(neighbors=neighbors))


def _commit(folder: RunFolder, growth: Growth, species, row: str, marks: dict[str, Mark]):
    """Writes what an arrival led to, and then the state."""
    folder.check_in_place()
    now = growth.deposit
    marks = marks | {ENERGY: growing.append(folder.path / ENERGY, row, marks[ENERGY])}
    if int(now.num_arrivals) % folder.config["frame_every"] == 0:
        text = frames_text([_frame(now, species)])
        marks[TRAJECTORY] = growing.append(folder.path / TRAJECTORY, text, marks[TRAJECTORY])
    folder.commit("growth", as_arrays(now, now.state.neighbors.grid), {"marks": marks})
    return marks


def _frame(now: Deposit, species: tuple[str, ...]) -> Atoms:
    """Those who are there, with their momenta and who they are among all slots."""
    structure = jax.tree.map(np.asarray, now.state.structure)
    atoms = to_atoms(structure, species)
    atoms.set_momenta(np.asarray(now.state.dynamics.momentum)[structure.mask])
    atoms.set_array("slot", np.nonzero(structure.mask)[0])
    atoms.set_array("fixed", np.asarray(now.state.dynamics.fixed)[structure.mask, 0])
    atoms.info = {"arrivals": int(now.num_arrivals), "left": int(now.num_left)}
    return atoms


def _row(now: Deposit, balance: dict[str, float]) -> str:
    counts = now.num_arrivals, np.sum(now.state.structure.mask), now.num_left
    values = (*(str(int(count)) for count in counts), *(f"{balance[name]:.10g}" for name in _TERMS))
    return ",".join(values) + "\n"


def _digest(*tree: Any) -> str:
    """Of all arrays, to the last bit; random keys as their data."""
    hashed = hashlib.sha256()
    for name, array in as_arrays(tree, None).items():
        hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return hashed.hexdigest()
