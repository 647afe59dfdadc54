"""Molecular dynamics in a folder: what it writes, what stops it, and that it goes on."""

import json
import os

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from jaxvae_md import errors, md, run_folder
from jaxvae_md.md import MDOptions, continue_md, new_md
from jaxvae_md.model import load_model
from tests.disk import file_size_limit
from tests.models import frames, made
from tests.tiers import some_slow

OPTIONS = MDOptions(temperature=200.0, steps=400, record_every=20)
FILES = ("trajectory.extxyz", "thermo.csv", "md.png", "summary.json", "config.yaml", "model.npz")


@pytest.fixture(scope="module")
def model():
    return made("lj")


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("md") / "run"
    return folder, new_md(model, frames()[0], OPTIONS, folder)


def resumed(folder) -> dict:
    with run_folder.opened(folder, "md") as opened:
        return continue_md(opened)


def thermo(folder) -> dict[str, np.ndarray]:
    table = np.genfromtxt(folder / "thermo.csv", delimiter=",", names=True)
    return {name: table[name] for name in table.dtype.names}


def test_a_simulation_leaves_everything_it_promises(finished):
    folder, summary = finished
    assert {path.name for path in folder.iterdir()} == {*FILES, "checkpoints", ".lock"}
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["finished"]
    assert summary["steps"] == 400
    load_model(folder)


def test_frames_hold_what_the_model_says_of_them(finished, model):
    folder, _ = finished
    read = ase.io.read(folder / "trajectory.extxyz", ":")
    assert [atoms.info["step"] for atoms in read] == list(range(0, 401, 20))
    calculator = model.calculator()
    for atoms in read[::7]:
        stored = atoms.calc.results
        atoms.calc = calculator
        # files hold eight decimals
        assert abs(stored["energy"] - atoms.get_potential_energy()) < 1e-5
        assert np.abs(stored["forces"] - atoms.get_forces()).max() < 1e-5
        assert np.abs(stored["stress"] - atoms.get_stress()).max() < 1e-6
        novelty = calculator.get_property("novelty", atoms)
        assert np.abs(atoms.arrays["novelty"] - novelty).max() < 1e-5
        outside = atoms.arrays["novelty"] > atoms.info["novelty_threshold"]
        assert (atoms.arrays["outside"] == outside).all()
        assert atoms.get_momenta().any()


def test_thermodynamics_are_those_of_the_frames(finished):
    folder, summary = finished
    columns = thermo(folder)
    read = ase.io.read(folder / "trajectory.extxyz", ":")
    for row, atoms in enumerate(read):
        kinetic, volume = atoms.get_kinetic_energy(), atoms.get_volume()
        assert abs(columns["kinetic_energy_ev"][row] - kinetic) < 1e-6
        kelvin = 2 * kinetic / (3 * len(atoms) * ase.units.kB)
        assert abs(columns["temperature_k"][row] - kelvin) < 1e-2
        virial = -np.trace(atoms.get_stress(voigt=False)) / 3
        pressure = (virial + 2 * kinetic / (3 * volume)) / ase.units.GPa
        assert abs(columns["pressure_gpa"][row] - pressure) < 1e-3
        assert abs(columns["volume_a3"][row] - volume) < 1e-5
    assert summary["outside"] == pytest.approx(columns["outside"].mean())


def test_constant_energy_is_constant(model, tmp_path):
    options = MDOptions(temperature=100.0, steps=400, ensemble="nve", time_step=0.5)
    summary = new_md(model, frames()[0], options, tmp_path / "run")
    assert abs(summary["energy_drift_mev_per_atom"]) < 0.5
    assert np.ptp(thermo(tmp_path / "run")["total_energy_ev"]) < 0.02


def test_constant_pressure_changes_the_cell(model, tmp_path):
    options = MDOptions(temperature=100.0, steps=400, ensemble="npt", pressure=5.0)
    new_md(model, frames()[0], options, tmp_path / "run")
    volume = thermo(tmp_path / "run")["volume_a3"]
    assert np.ptp(volume) > 1e-3 * volume[0]
    last = ase.io.read(tmp_path / "run" / "trajectory.extxyz", -1)
    assert abs(last.get_volume() - volume[-1]) < 1e-4


def test_velocities_of_the_start_are_kept(model, tmp_path):
    start = frames()[0]
    momenta = np.random.default_rng(0).normal(size=(8, 3))
    start.set_momenta(momenta)
    options = MDOptions(steps=20, record_every=20, ensemble="nve")
    new_md(model, start, options, tmp_path / "run")
    first = ase.io.read(tmp_path / "run" / "trajectory.extxyz", 0)
    assert np.abs(first.get_momenta() - momenta).max() < 1e-6


def test_a_start_at_rest_stays_at_rest(model, tmp_path):
    start = frames()[0]
    start.set_momenta(np.zeros((8, 3)))
    new_md(model, start, MDOptions(steps=20, ensemble="nve"), tmp_path / "run")
    first = ase.io.read(tmp_path / "run" / "trajectory.extxyz", 0)
    assert not first.get_momenta().any()


def test_a_molecule_is_simulated_without_pressure(model, tmp_path):
    start = Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]])
    options = MDOptions(temperature=50.0, steps=40, record_every=20)
    summary = new_md(model, start, options, tmp_path / "run")
    assert summary["pressure_gpa"] is None
    assert np.isnan(thermo(tmp_path / "run")["pressure_gpa"]).all()
    assert not ase.io.read(tmp_path / "run" / "trajectory.extxyz", -1).pbc.any()


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.mark.parametrize("ensemble", some_slow(["nve", "nvt", "npt"], "nvt"))
@pytest.mark.parametrize("where", ["before the commit", "before the frames"])
def test_a_killed_simulation_goes_on_to_the_same_files(
    model, tmp_path, monkeypatch, ensemble, where
):
    options = MDOptions(temperature=200.0, steps=600, ensemble=ensemble, record_every=20)
    whole = new_md(model, frames()[0], options, tmp_path / "whole")
    target, name = {
        "before the commit": (run_folder.RunFolder, "commit"),
        "before the frames": (md.growing, "append"),
    }[where]
    original, calls = getattr(target, name), []

    def dies_later(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(target, name, dies_later)
    with pytest.raises(Killed):
        new_md(model, frames()[0], options, tmp_path / "run")
    monkeypatch.undo()
    assert resumed(tmp_path / "run") == whole
    for name in FILES:
        same = (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert same, name


def test_a_finished_simulation_resumes_to_itself(finished):
    folder, summary = finished
    before = {name: (folder / name).read_bytes() for name in FILES}
    assert resumed(folder) == summary
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_a_wild_simulation_stops_and_keeps_its_good_frames(model, tmp_path):
    options = MDOptions(temperature=300.0, steps=2000, ensemble="nve", time_step=40.0)
    with pytest.raises(errors.RunError, match="blew up after step") as caught:
        new_md(model, frames()[3], options, tmp_path / "run")
    assert "--time-step" in caught.value.remedy
    read = ase.io.read(tmp_path / "run" / "trajectory.extxyz", ":")
    assert all(np.isfinite(atoms.positions).all() for atoms in read)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert not summary["finished"]
    assert f"step {read[-1].info['step']}:" in str(caught.value)
    with pytest.raises(errors.RunError, match=f"after step {read[-1].info['step']}:"):
        resumed(tmp_path / "run")


def test_a_cell_that_runs_away_stops_the_simulation(model, tmp_path):
    options = MDOptions(temperature=300.0, steps=2000, ensemble="npt", pressure=-1e3)
    with pytest.raises(errors.SimulationError, match="volume ran away"):
        new_md(model, frames()[0], options, tmp_path / "run")
    volume = thermo(tmp_path / "run")["volume_a3"]
    assert volume.max() < 8 * volume[0]


def test_a_start_that_blows_up_at_once_has_no_earlier_frame(model, tmp_path):
    options = MDOptions(temperature=300.0, steps=200, ensemble="nve", time_step=1e3)
    with pytest.raises(errors.SimulationError, match="after step 0:") as caught:
        new_md(model, frames()[3], options, tmp_path / "run")
    assert "relax START" in caught.value.remedy


def test_a_damaged_model_can_be_put_back(model, tmp_path):
    new_md(model, frames()[0], OPTIONS, tmp_path / "run")
    path = tmp_path / "run" / "model.npz"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(errors.FileError, match="no whole npz archive") as caught:
        resumed(tmp_path / "run")
    assert "copy the model.npz that the simulation was started with" in caught.value.remedy


def test_an_altered_trajectory_is_noticed(model, tmp_path, caplog):
    new_md(model, frames()[0], OPTIONS, tmp_path / "run")
    path = tmp_path / "run" / "trajectory.extxyz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    # the step before the last is whole: it is taken
    resumed(tmp_path / "run")
    assert "shorter than it was" in caplog.text
    assert path.read_bytes() == whole
    path.write_bytes(whole.replace(b"Si", b"Ge", 1))
    with pytest.raises(errors.FileError, match="altered"):
        resumed(tmp_path / "run")


def test_a_full_disk_is_reported_and_what_was_written_goes_on(model, tmp_path):
    options = MDOptions(temperature=200.0, steps=1000, record_every=1)
    whole = new_md(model, frames()[0], options, tmp_path / "whole")
    size = (tmp_path / "whole" / "trajectory.extxyz").stat().st_size
    with file_size_limit(size - 100), pytest.raises(errors.WriteError, match="too large") as caught:
        new_md(model, frames()[0], options, tmp_path / "run")
    assert "--resume" in caught.value.remedy
    assert resumed(tmp_path / "run") == whole
    for name in FILES:
        same = (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert same, name


def fixed() -> Atoms:
    start = frames()[0]
    start.set_constraint(FixAtoms([0]))
    return start


def foreign() -> Atoms:
    start = frames()[0]
    start.symbols[3] = "Ge"
    return start


def isotope() -> Atoms:
    start = frames()[0]
    start.set_masses([30.0] * 8)
    return start


BAD_STARTS = {
    "masses": (isotope, "nvt", errors.OptionError, "masses of its own"),
    "constraints": (fixed, "nvt", errors.OptionError, "constraints"),
    "element": (foreign, "nvt", errors.SpeciesError, "atom 3: Ge"),
    "npt molecule": (lambda: Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]]), "npt", None, "periodic"),
    "overlap": (lambda: Atoms("Si2", [[0, 0, 0], [0.1, 0, 0]]), "nvt", None, "same place"),
    "empty": (Atoms, "nvt", errors.GeometryError, "no atoms"),
}


@pytest.mark.parametrize(
    ("start", "ensemble", "kind", "words"), BAD_STARTS.values(), ids=BAD_STARTS.keys()
)
def test_a_bad_start_is_refused_before_anything_is_written(
    model, tmp_path, start, ensemble, kind, words
):
    with pytest.raises(kind or errors.GeometryError, match=words):
        new_md(model, start(), MDOptions(ensemble=ensemble), tmp_path / "run")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"steps": 0},
        {"steps": 5001},
        {"ensemble": "nvx"},
        {"time_step": -1.0},
        {"pressure": float("inf")},
        {"pressure": 1.5},
        {"pressure": 1.5, "ensemble": "nve"},
        {"record_every": 0},
        {"seed": -1},
        {"seed": True},
        {"steps": 50.0},
        {"friction": "lots"},
    ],
)
def test_wrong_options_are_refused_by_name(wrong):
    with pytest.raises(errors.OptionError) as caught:
        MDOptions(**wrong)
    assert caught.value.remedy
    assert str(next(iter(wrong.values()))) in str(caught.value)
