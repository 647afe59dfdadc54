"""Growth in a folder: what is written, and that the same call goes on."""

import subprocess
import sys
import time

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from jaxvae_md import growth as module
from jaxvae_md import simulate
from jaxvae_md.errors import FileError, OptionError, RunError
from jaxvae_md.growth import grow, last_deposit
from jaxvae_md.potentials import lennard_jones
from jaxvae_md.simulate import beam, begin_deposit, zoned_langevin
from jaxvae_md.structure import from_atoms

ARGON = lennard_jones(("Ar",), 6.0, 3.4, 0.0104, "switch")
PARAMS = ARGON.init(None)
SIMULATOR = zoned_langevin(ARGON, dt=4.0, temperature=20.0)
ATOM = beam(Atoms("Ar"), ("Ar",), energy=0.05)
STEPS = {"num_steps": 40, "record_every": 20, "frame_every": 2}


def begun():
    atoms = bulk("Ar", "fcc", a=5.26, cubic=True) * (3, 3, 4)
    atoms.pbc = (True, True, False)
    substrate = from_atoms(atoms, ("Ar",))
    options = {"capacity": 150, "initial_temperature": 20.0, "thermostatted": 3.0}
    return begin_deposit(SIMULATOR, PARAMS, substrate, jax.random.key(0), **options)


@pytest.fixture(scope="module")
def start():
    return begun()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """Five arrivals without a break."""
    out = tmp_path_factory.mktemp("growth") / "whole"
    grow(out, SIMULATOR, PARAMS, start, ATOM, 5, **STEPS)
    return out


def files(folder):
    return {name: (folder / name).read_bytes() for name in ("trajectory.extxyz", "energy.csv")}


def test_frames_and_energies_are_written(whole, start):
    frames = ase.io.read(whole / "trajectory.extxyz", ":")
    num = int(np.sum(start.state.structure.mask))
    assert [len(atoms) for atoms in frames] == [num, num + 2, num + 4]
    assert [atoms.info["arrivals"] for atoms in frames] == [0, 2, 4]
    assert frames[0].arrays["fixed"].sum() == np.sum(start.state.dynamics.fixed)
    table = np.genfromtxt(whole / "energy.csv", delimiter=",", names=True)
    assert table["arrivals"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table["atoms"].tolist() == [num + k for k in range(6)]
    assert np.ptp(table["conserved_ev"]) < 1e-3
    assert np.ptp(table["kinetic_ev"]) > 0.01


@pytest.mark.parametrize("moment", ["before the frames", "before the state"])
def test_a_growth_that_was_killed_goes_on_to_the_same_files(
    whole, start, tmp_path, monkeypatch, moment
):
    call = lambda: grow(tmp_path / "film", SIMULATOR, PARAMS, start, ATOM, 5, **STEPS)
    name = "_row" if moment == "before the frames" else "as_arrays"
    function, calls = getattr(module, name), []

    def killed(*args):
        calls.append(args)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return function(*args)

    monkeypatch.setattr(module, name, killed)
    with pytest.raises(KeyboardInterrupt):
        call()
    monkeypatch.undo()
    assert len((tmp_path / "film" / "energy.csv").read_text().splitlines()) < 7
    call()
    assert files(tmp_path / "film") == files(whole)


def test_a_growth_can_be_made_longer(whole, start, tmp_path):
    for num in (2, 5):
        grow(tmp_path / "film", SIMULATOR, PARAMS, start, ATOM, num, **STEPS)
    assert files(tmp_path / "film") == files(whole)
    grow(tmp_path / "film", SIMULATOR, PARAMS, start, ATOM, 5, **STEPS)
    assert files(tmp_path / "film") == files(whole)


def test_what_a_growth_has_come_to_is_at_hand(whole, start):
    before = files(whole)
    now = last_deposit(whole, start)
    assert int(now.num_arrivals) == 5
    steps = {"num_steps": 40, "record_every": 20}
    *_, last = simulate.deposit(SIMULATOR, PARAMS, start, ATOM, 5, **steps)
    assert np.array_equal(now.state.dynamics.momentum, last.deposit.state.dynamics.momentum)
    energies = [simulate.energy_balance(SIMULATOR, PARAMS, d) for d in (now, last.deposit)]
    assert energies[0] == energies[1]
    assert files(whole) == before


def test_where_there_is_no_growth_there_is_no_last_deposit(start, tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        last_deposit(tmp_path / "none", start)


def test_another_growth_in_the_folder_is_refused(whole, start):
    before = files(whole)
    hotter = beam(Atoms("Ar"), ("Ar",), energy=0.5)
    with pytest.raises(OptionError, match="energy differ"):
        grow(whole, SIMULATOR, PARAMS, start, hotter, 6, **STEPS)
    other = jax.tree.map(lambda a: 1.01 * a, PARAMS)
    with pytest.raises(OptionError, match="start differ"):
        grow(whole, SIMULATOR, other, start, ATOM, 6, **STEPS)
    assert files(whole) == before


def test_a_run_that_meets_its_capacity_keeps_what_it_has(start, tmp_path):
    with pytest.raises(RunError, match="finds no room") as caught:
        grow(tmp_path / "film", SIMULATOR, PARAMS, start, ATOM, 20, num_steps=100, record_every=50)
    assert "the same call of grow" in str(caught.value)
    table = np.genfromtxt(tmp_path / "film" / "energy.csv", delimiter=",", names=True)
    assert table["arrivals"][-1] == 150 - np.sum(start.state.structure.mask)


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_files(whole, tmp_path):
    code = (
        "import sys, jax; jax.config.update('jax_enable_x64', True)\n"
        "from tests.unit.test_growth import *\n"
        "grow(sys.argv[1], SIMULATOR, PARAMS, begun(), ATOM, 5, **STEPS)"
    )
    out = tmp_path / "film"
    command = [sys.executable, "-c", code, str(out)]
    lines = lambda: len((out / "energy.csv").read_text().splitlines()) if out.is_dir() else 0
    for num in (2, 4, 5):
        process = subprocess.Popen(command)
        while process.poll() is None and lines() < num:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert num <= lines() < 7
    subprocess.run(command, check=True)
    assert files(out) == files(whole)
