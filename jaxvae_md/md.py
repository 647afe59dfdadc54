"""Molecular dynamics with a learned model in a folder, written as it goes and always resumable.

DIR/config.yaml         the options
DIR/model.npz           a copy of the model: the folder needs nothing else
DIR/trajectory.extxyz   frames with energy, forces, stress, momenta, and each atom's novelty
DIR/thermo.csv          one line a frame
DIR/checkpoints/        the simulation after the last two chunks of steps
DIR/md.png, DIR/summary.json

After a kill at any moment a resumed simulation ends with the same files, bit by bit.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxvae_md import atomic, errors, growing, plot, run_folder, units
from jaxvae_md._typing import Array
from jaxvae_md.errors import FileError, GeometryError, OptionError, SimulationError
from jaxvae_md.growing import Mark
from jaxvae_md.io import check_frame, first_frame, frames_text
from jaxvae_md.model import MODEL, Model, load_model, save_model
from jaxvae_md.options import as_plain, from_plain
from jaxvae_md.report import save_figure
from jaxvae_md.run_folder import RunFolder
from jaxvae_md.simulate import (
    Simulator,
    State,
    Trajectory,
    begin,
    chunks,
    npt_langevin,
    nve,
    nvt_langevin,
)
from jaxvae_md.simulate.arrays import as_arrays, from_arrays
from jaxvae_md.simulate.engine import masses
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms

Ensemble = Literal["nve", "nvt", "npt"]
TRAJECTORY, THERMO = "trajectory.extxyz", "thermo.csv"
_COLUMNS = (
    "step", "time_fs", "temperature_k", "potential_energy_ev", "kinetic_energy_ev",
    "total_energy_ev", "pressure_gpa", "volume_a3", "novelty_max", "outside",
)  # fmt: skip
_EXPANSION = 8.0
"""times the start's volume, or less than it by that factor: no cell of a solid or a liquid"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MDOptions:
    """Everything that decides a simulation, beside model and start. **Raises:** `OptionError`."""

    temperature: float = 300.0
    """K; of the thermostat, and of the velocities where the start has none"""
    steps: int = 5000
    ensemble: Ensemble = "nvt"
    time_step: float = 1.0
    """fs"""
    pressure: float = 0.0
    """GPa, for npt"""
    friction: float = 0.01
    """1/fs, of the Langevin thermostat"""
    record_every: int = 10
    """steps between frames"""
    seed: int = 0

    def __post_init__(self):
        if self.ensemble not in get_args(Ensemble):
            raise OptionError(f"ensemble is {self.ensemble!r}", remedy="give nve, nvt or npt")
        for name in ("steps", "record_every", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise OptionError(
                    f"{name} is {value!r}", remedy=f"give a whole number, {least} or more"
                )
        for name in ("temperature", "time_step", "friction", "pressure"):
            value, signed = getattr(self, name), name == "pressure"
            number = isinstance(value, int | float) and np.isfinite(value)
            if not number or (value <= 0 and not signed):
                raise OptionError(
                    f"{name} is {value!r}", remedy=f"give a {'' if signed else 'positive '}number"
                )
        if self.pressure and self.ensemble != "npt":
            raise OptionError(
                f"pressure is {self.pressure!r}, and {self.ensemble} does not control it",
                remedy="give --ensemble npt, or no --pressure",
            )
        if self.steps % self.record_every:
            raise OptionError(
                f"{self.steps} steps are no multiple of {self.record_every}, the steps from frame "
                "to frame",
                remedy="change --steps or --record-every",
            )


def new_md(
    model: Model, start: Atoms, options: MDOptions, out: str | Path, progress: bool = False
) -> dict[str, Any]:
    """Simulates in a new folder; returns a summary.

    The velocities are those of `start` where it has momenta, and drawn otherwise. **Raises:**
    `InputError` for a start that cannot be simulated, before anything is written; `RunError` when
    the simulation blows up, after its good frames were written.

    ```python
    new_md(load_model("run"), ase.build.bulk("Si", cubic=True), MDOptions(steps=1000), "md-of-si")
    ```
    """
    run_folder.check_free(Path(out))
    check_frame(start, labelled=False)
    if start.constraints:
        raise OptionError(
            "the start has constraints, which this simulation does not know",
            remedy="remove them (move_mask in extended XYZ)",
        )
    if options.ensemble == "npt" and not start.pbc.all():
        raise GeometryError(
            f"npt needs three periodic directions, and pbc is {start.pbc.tolist()}",
            remedy="use nvt, or a periodic cell",
        )
    structure = from_atoms(start, model.species)
    if not np.allclose(start.get_masses(), masses(model.species)[structure.species], rtol=1e-3):
        raise OptionError(
            "the start has masses of its own, and the simulation takes the standard ones",
            remedy="remove them (masses in extended XYZ)",
        )
    simulator = _simulator(model, options)
    state = begin(
        simulator,
        _params(model),
        structure,
        jax.random.key(options.seed),
        options.temperature,
        start.get_momenta() if start.has("momenta") else None,
    )
    recorder = _Recorder(model, start, options)
    first = recorder.frame(
        0, start.positions, start.cell.array, np.asarray(state.dynamics.momentum)
    )

    def fill(folder: Path) -> None:
        save_model(folder / MODEL, model)
        marks[TRAJECTORY] = growing.append(folder / TRAJECTORY, frames_text([first]), None)
        head = ",".join(_COLUMNS) + "\n" + recorder.row(first)
        marks[THERMO] = growing.append(folder / THERMO, head, None)

    marks: dict[str, Mark] = {}
    info = {"step": 0, "marks": marks}
    with run_folder.create(
        out, "md", as_plain(options), as_arrays(state, state.neighbors.grid), info, fill
    ) as folder:
        return _proceed(folder, recorder, simulator, state, info, progress)


def continue_md(folder: RunFolder, progress: bool = False) -> dict[str, Any]:
    """Continues the simulation in an open folder after its last finished chunk.

    ```python
    with run_folder.opened("md-of-si", "md") as folder:
        continue_md(folder)
    ```
    """

    def altered(info: dict[str, Any]) -> str | None:
        for name, mark in info["marks"].items():
            if not growing.is_intact(folder.path / name, Mark(*mark)):
                return f"{name} is shorter than it was, or was altered"
        return None

    tree, info = folder.last(altered)
    info = {**info, "marks": {name: Mark(*mark) for name, mark in info["marks"].items()}}
    options = from_plain(MDOptions, folder.config)
    try:
        model = load_model(folder.path / MODEL)
    except FileError as error:
        where = f"copy the {MODEL} that the simulation was started with to {folder.path / MODEL}"
        raise FileError(error.message, file=error.file, remedy=where) from error
    start = first_frame(folder.path / TRAJECTORY)
    simulator = _simulator(model, options)
    template = jax.eval_shape(
        simulator.init,
        jax.random.key(0),
        _params(model),
        from_atoms(start, model.species),
        simulator.neighbor_fns.allocate(from_atoms(start, model.species)),
        options.temperature,
    )
    state, grid = from_arrays(template, tree)
    state = state._replace(neighbors=state.neighbors._replace(grid=grid))
    return _proceed(folder, _Recorder(model, start, options), simulator, state, info, progress)


def _proceed(
    folder: RunFolder,
    recorder: _Recorder,
    simulator: Simulator,
    state: State,
    info: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Chunk after chunk: frames and thermodynamics are written, then the state is committed."""
    options, params = recorder.options, _params(recorder.model)
    step, marks = info["step"], info["marks"]
    bar = tqdm(total=options.steps, initial=step, desc="MD", unit="step", disable=not progress)
    with bar:
        for chunk in chunks(
            simulator,
            params,
            state,
            options.steps - step,
            record_every=options.record_every,
            runaway=max(5000.0, 10 * options.temperature),
            volumes=(recorder.volume / _EXPANSION, recorder.volume * _EXPANSION),
        ):
            folder.check_in_place()
            frames = recorder.frames(step, chunk.trajectory)
            marks = {
                TRAJECTORY: growing.append(
                    folder.path / TRAJECTORY, frames_text(frames), marks[TRAJECTORY]
                ),
                THERMO: growing.append(
                    folder.path / THERMO, "".join(map(recorder.row, frames)), marks[THERMO]
                ),
            }
            if int(chunk.trajectory.error):
                good = frames[-1].info["step"] if frames else step
                _finish(folder, recorder, finished=False)
                raise _failure(int(chunk.trajectory.error), good)
            before, step = step, frames[-1].info["step"]
            tree = as_arrays(chunk.state, chunk.state.neighbors.grid)
            folder.commit("md", tree, {"step": step, "marks": marks})
            bar.update(step - before)
            kelvin = frames[-1].info["temperature_k"]
            bar.set_postfix(T=f"{kelvin:.0f} K")
            if 10 * step // options.steps > 10 * before // options.steps:
                _log.info("step %d of %d, %.0f K", step, options.steps, kelvin)
    return _finish(folder, recorder, finished=True)


class _Recorder:
    """Makes frames and lines of what was simulated, through the model's ASE calculator."""

    def __init__(self, model: Model, start: Atoms, options: MDOptions):
        self.model, self.options = model, options
        self._bare = start.copy()
        self._bare.arrays.pop("masses", None)
        self._calculator = model.calculator()
        self._threshold = float(model.coverage.threshold)
        self.volume = float(abs(np.linalg.det(from_atoms(start, model.species).cell)))
        """of the start, angstrom^3"""

    def frames(self, step: int, trajectory: Trajectory) -> list[Atoms]:
        """The frames of a chunk that began after `step` steps."""
        columns = zip(trajectory.position, trajectory.cell, trajectory.momentum, strict=True)
        every = self.options.record_every
        return [self.frame(step + (i + 1) * every, *one) for i, one in enumerate(columns)]

    def frame(self, step: int, position: Array, cell: Array, momentum: Array) -> Atoms:
        """One frame with everything that is written of it."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.units import kB

        atoms = self._bare.copy()
        atoms.info, atoms.positions = {}, np.asarray(position)
        if atoms.cell.rank == 3:
            atoms.set_cell(np.asarray(cell))
        atoms.set_momenta(np.asarray(momentum))
        names = ["energy", "forces", "stress", "novelty"]
        self._calculator.calculate(atoms, names)
        results = dict(self._calculator.results)
        novelty = results.pop("novelty")
        atoms.set_array("novelty", novelty)
        atoms.set_array("outside", novelty > self._threshold)
        atoms.calc = SinglePointCalculator(atoms, **results)
        kinetic = atoms.get_kinetic_energy()
        # the centre of mass moves only with the thermostat
        freedom = max(1, 3 * len(atoms) - 3 * (self.options.ensemble == "nve"))
        atoms.info = {
            "step": step,
            "time_fs": step * self.options.time_step,
            "temperature_k": 2 * kinetic / (freedom * kB),
            "novelty_threshold": self._threshold,
        }
        return atoms

    def row(self, atoms: Atoms) -> str:
        """The frame's line in thermo.csv."""
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        pressure = volume = np.nan
        if atoms.cell.rank == 3:
            volume = atoms.get_volume()
            virial = -np.trace(atoms.get_stress(voigt=False)) / 3
            pressure = (virial + 2 * kinetic / (3 * volume)) / units.GIGAPASCAL
        values = (
            atoms.info["time_fs"],
            atoms.info["temperature_k"],
            potential,
            kinetic,
            potential + kinetic,
            pressure,
            volume,
            atoms.arrays["novelty"].max(),
            atoms.arrays["outside"].mean(),
        )
        return f"{atoms.info['step']}," + ",".join(f"{value:.10g}" for value in values) + "\n"


def _simulator(model: Model, options: MDOptions) -> Simulator:
    potential, dt, kelvin = model.potential, options.time_step, options.temperature
    simulator = {
        "nve": lambda: nve(potential, dt),
        "nvt": lambda: nvt_langevin(potential, dt, kelvin, options.friction),
        "npt": lambda: npt_langevin(
            potential, dt, kelvin, options.pressure, friction=options.friction
        ),
    }[options.ensemble]()
    # one kind of list, that of every potential: checkpoints hold it
    return simulator._replace(pair_fns=None)


def _params(model: Model) -> Any:
    """In one precision, that of the simulation."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model.params)


def _failure(bits: int, step: int) -> SimulationError:
    remedy = (
        "start again from an earlier frame of trajectory.extxyz with a smaller --time-step, and "
        "see in it which atoms are outside the training data"
    )
    if step == 0:
        remedy = "relax START with the model, or take a smaller --time-step or --temperature"
    return SimulationError(
        f"the simulation blew up after step {step}: a position is not finite, or temperature or "
        "volume ran away"
        if bits & errors.NOT_FINITE
        else f"the simulation stopped after step {step}: atoms crowd beyond every neighbor list",
        remedy=remedy,
    )


def _finish(folder: RunFolder, recorder: _Recorder, finished: bool) -> dict[str, Any]:
    """Picture and summary of what thermo.csv holds."""
    options, coverage = recorder.options, recorder.model.coverage
    table = np.loadtxt(folder.path / THERMO, delimiter=",", skiprows=1, ndmin=2)
    column: dict[str, np.ndarray] = dict(zip(_COLUMNS, table.T, strict=True))
    first = len(table) // 4
    later = slice(first, None)
    num = len(recorder._bare)
    which = "total" if options.ensemble == "nve" else "potential"
    figure = plot.simulation(
        column["time_fs"],
        column["temperature_k"],
        column[f"{which}_energy_ev"] / num,
        column["outside"],
        target_temperature=None if options.ensemble == "nve" else options.temperature,
        pressure_gpa=column["pressure_gpa"] if options.ensemble == "npt" else None,
        threshold_share=float(coverage.false_alarm),
        energy_label=f"{which} energy (eV/atom)",
        averaged_from=first,
    )
    save_figure(figure, folder.path / "md.png")
    total = column["total_energy_ev"] / num
    drift = float(1e3 * (total[-1] - total[0]))
    summary = {
        "finished": finished,
        "steps": int(column["step"][-1]),
        "num_atoms": num,
        "temperature_k": float(column["temperature_k"][later].mean()),
        "potential_energy_ev_per_atom": float(column["potential_energy_ev"][later].mean() / num),
        "energy_drift_mev_per_atom": drift if options.ensemble == "nve" else None,
        "pressure_gpa": _finite_mean(column["pressure_gpa"][later]),
        "novelty_max": float(column["novelty_max"].max()),
        "novelty_threshold": float(coverage.threshold),
        "outside": float(column["outside"].mean()),
        "outside_by_chance": float(coverage.false_alarm),
    }
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    atomic.write_text(folder.path / "summary.json", text)
    return summary


def _finite_mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if np.isfinite(values).all() else None
