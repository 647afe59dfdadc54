"""Structures that come back labelled, as they may come: twice, known, or of another reference."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import run
from jaxvae_md.label import get_labeller, label
from jaxvae_md.labelled import read_labelled
from jaxvae_md.learn import next_round
from tests.integration.runs import small_silicon


@pytest.fixture(scope="module")
def joined(runs):
    """State and options of a finished run whose own labels have joined the data."""
    state, config = run.finished_state(runs.path / "run")
    return next_round(state), config


def new(seed: int) -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.07, seed=seed)
    atoms.info["label"] = "crystal"
    (done,) = label([atoms], get_labeller("sw"))
    return done


def shifted(atoms: Atoms, energy: float) -> Atoms:
    """The frame with another energy, in eV per atom."""
    copy = atoms.copy()
    total = atoms.get_potential_energy() + energy * len(atoms)
    copy.calc = SinglePointCalculator(copy, energy=total, forces=atoms.get_forces())
    return copy


def test_what_is_known_or_there_twice_is_left_out(joined, tmp_path, caplog):
    path = tmp_path / "labelled.extxyz"
    moved = new(100)
    moved.positions += moved.cell[0]
    ase.io.write(path, [new(100), small_silicon()[3], new(101), moved], format="extxyz")
    dataset = read_labelled(*joined, path, None)
    assert np.allclose(dataset.energy, [new(s).get_potential_energy() for s in (100, 101)])
    assert "2 of 4 structures are left out" in caplog.text
    ase.io.write(path, small_silicon()[:3], format="extxyz")
    assert read_labelled(*joined, path, None) is None


@pytest.mark.parametrize(("energy", "warns"), [(0.0, False), (-5.0, True), (100.0, True)])
def test_energies_that_no_data_had_are_warned_of(joined, tmp_path, caplog, energy, warns):
    path = tmp_path / "labelled.extxyz"
    ase.io.write(path, [shifted(new(100 + i), energy) for i in range(3)], format="extxyz")
    read_labelled(*joined, path, None)
    assert ("computed by the same reference?" in caplog.text) == warns
