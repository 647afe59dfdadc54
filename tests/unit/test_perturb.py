import numpy as np

from jaxvae_md import datasets
from jaxvae_md.descriptors import perturbed


def test_copies_are_strained_and_rattled_and_the_frames_are_left_alone():
    frames = datasets.silicon()[:3]
    before = [atoms.positions.copy() for atoms in frames]
    copies = perturbed(frames, 2, rattle=0.1, strain=0.02, seed=1)
    assert len(copies) == 6
    for atoms, positions in zip(frames, before, strict=True):
        assert np.array_equal(atoms.positions, positions)
    for copy, atoms in zip(copies, frames * 2, strict=True):
        strain = np.linalg.solve(atoms.cell.array, copy.cell.array) - np.eye(3)
        assert np.allclose(strain, strain.T)
        assert 0 < np.abs(strain).max() < 0.1
        moved = copy.positions - atoms.positions @ (np.eye(3) + strain)
        assert 0 < np.std(moved) < 0.1
        assert copy.calc is None


def test_the_seed_decides_the_copies_and_zero_leaves_them_as_they_are():
    frames = datasets.silicon()[:2]
    positions = lambda **options: perturbed(frames, 1, **options)[0].positions
    assert np.array_equal(positions(rattle=0.1, seed=3), positions(rattle=0.1, seed=3))
    assert not np.array_equal(positions(rattle=0.1, seed=3), positions(rattle=0.1, seed=4))
    assert np.allclose(positions(rattle=0.0, strain=0.0), frames[0].positions)
