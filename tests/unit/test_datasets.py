"""The data that come with the package."""

import shutil
from collections import Counter

import numpy as np
import pytest

from jaxvae_md import datasets
from jaxvae_md.io import check_frame
from jaxvae_md.label import Espresso, reference_of
from tests.asserts import assert_close

LABELS = {"crystal", "strained", "vacancy", "surface", "melt"}
HELD_OUT = {"amorphous", "phase", "interstitial"}


@pytest.fixture(scope="module")
def sets():
    return datasets.silicon_dft(), datasets.silicon_dft_held_out()


def test_the_dft_set_is_whole(sets):
    for frames, least, labels in zip(sets, (290, 80), (LABELS, HELD_OUT), strict=True):
        assert len(frames) >= least
        counted = Counter(atoms.info["label"] for atoms in frames)
        assert set(counted) == labels and min(counted.values()) >= 25
        for atoms in frames:
            check_frame(atoms)
            assert 2 <= len(atoms) <= 16
            assert np.isfinite(atoms.get_stress()).all()
            assert np.abs(atoms.get_forces().sum(axis=0)).max() < 0.02
    assert reference_of(sets[0]) == reference_of(sets[1]) != ""


def test_energies_are_as_physics_has_them(sets):
    per_atom = {label: [] for label in LABELS | HELD_OUT}
    for atoms in (*sets[0], *sets[1]):
        per_atom[atoms.info["label"]].append(atoms.get_potential_energy() / len(atoms))
    mean = {label: np.mean(values) for label, values in per_atom.items()}
    lowest = min(map(min, per_atom.values()))
    assert mean["crystal"] < mean["amorphous"] < mean["melt"] < lowest + 1.0
    assert mean["crystal"] < mean["vacancy"] and mean["crystal"] < mean["surface"]


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="pw.x is not installed")
def test_the_reference_gives_a_frame_its_label_again(sets):
    smallest = min(sets[0], key=len)
    energy, forces, stress = Espresso()(smallest)
    assert_close(energy, smallest.get_potential_energy(), 1e-6)
    assert np.abs(forces - smallest.get_forces()).max() < 2e-3
    assert np.abs(stress - smallest.get_stress(voigt=False)).max() < 1e-4
