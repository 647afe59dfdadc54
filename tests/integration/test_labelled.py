"""Structures that come back labelled, as they may come: twice, known, or of another reference."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import run
from jaxvae_md.errors import LabelError, RunError
from jaxvae_md.generate import rejection
from jaxvae_md.label import get_labeller, label
from jaxvae_md.labelled import read_labelled
from jaxvae_md.learn import next_round
from jaxvae_md.learn.gaps import accepted_frames, label_generated
from tests.integration.runs import TINY, small_silicon


@pytest.fixture(scope="module")
def joined(runs):
    """State and options of a finished run whose own labels have joined the data."""
    state, config = run.finished_state(runs.path / "run")
    return next_round(state), config


def run_before_labels(runs):
    """The state of the finished run, with structures that are not labelled yet."""
    state, config = run.finished_state(runs.path / "run")
    return state._replace(labels=None), config


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


def test_labels_of_another_reference_are_refused(joined, tmp_path):
    state, config = joined
    path = tmp_path / "labelled.extxyz"
    atoms = new(100)
    atoms.info["reference"] = "a code"
    ase.io.write(path, [atoms], format="extxyz")
    assert read_labelled(state, config, path, None) is not None
    with pytest.raises(LabelError, match="its labels are of a code, those of the run's") as caught:
        read_labelled(state, replace(config, reference="another code"), path, None)
    assert str(path) in str(caught.value)


def test_data_of_two_references_make_no_run(tmp_path):
    frames = small_silicon()
    for number, atoms in enumerate(frames):
        atoms.info["reference"] = "a code" if number != 5 else "another code"
    with pytest.raises(LabelError, match="must not be mixed"):
        run.new_run(frames, TINY, tmp_path / "run", get_labeller("sw"))
    assert not (tmp_path / "run").exists()


def test_a_structure_without_a_label_is_no_longer_accepted(runs):
    state, config = run_before_labels(runs)
    sw = get_labeller("sw")
    positions = [atoms.positions for atoms in accepted_frames(state, config)]
    num = len(positions)
    assert num > 1

    def labeller(atoms):
        if np.array_equal(atoms.positions, positions[0]):
            raise ValueError("no convergence")
        return sw(atoms)

    after, info = label_generated(state, config, labeller, False)
    assert info["num_labelled"] == num - 1 and "no convergence" in info["without_label"][0]
    assert len(after.labels.energy) == len(accepted_frames(after, config)) == num - 1
    refused = np.flatnonzero(np.asarray(state.generated.accepted))[0]
    assert rejection(after.generated.error[refused]) == "no label from the reference"
    for labelled in (lambda atoms: 1 / 0, lambda atoms: (np.nan, atoms.positions)):
        with pytest.raises(RunError, match=f"{num} of {num} have no label"):
            label_generated(state, config, labelled, False)
