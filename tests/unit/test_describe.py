import ase.build
import ase.io
import jax
import numpy as np
import pytest

from jaxvae_md.descriptors import chebyshev, describe
from jaxvae_md.errors import GeometryError, InputError, SpeciesError
from jaxvae_md.structure import from_atoms
from tests.asserts import assert_close, evaluator

DESCRIPTOR = chebyshev(("O", "Si"), 3.5, 4, 3.0, 3)


@pytest.fixture
def frames() -> list[ase.Atoms]:
    out = [ase.build.bulk("Si", cubic=True), ase.build.molecule("O2"), ase.build.bulk("Si")]
    out.append(out[0][:7])
    for seed, atoms in enumerate(out):
        atoms.rattle(0.1, seed=seed)
    return out


def test_frames_of_any_size_come_back_in_order(frames):
    of = evaluator(DESCRIPTOR, DESCRIPTOR.cutoff)
    found = describe(frames, DESCRIPTOR)
    assert [len(x) for x in found] == [8, 2, 2, 7]
    for x, atoms in zip(found, frames, strict=True):
        assert_close(x, of(from_atoms(atoms, DESCRIPTOR.species)), 1e-13)


def test_unknown_element_is_named_with_its_frame(frames):
    frames[1].symbols[1] = "W"
    with pytest.raises(SpeciesError, match=r"frame 1.*atom 1: W is not among") as caught:
        describe(frames, DESCRIPTOR)
    assert caught.value.frame == 1


def test_error_keeps_the_atom_and_the_remedy(frames):
    frames[1].symbols[1] = "W"
    with pytest.raises(InputError) as caught:
        describe(frames, DESCRIPTOR)
    assert caught.value.atom == 1
    assert caught.value.remedy is not None


def test_bad_geometry_is_named_with_its_frame(frames):
    frames[2].positions[1] = np.nan
    with pytest.raises(GeometryError, match="not finite") as caught:
        describe(frames, DESCRIPTOR)
    assert caught.value.frame == 2


def test_frames_without_atoms_and_overlapping_ones_are_named(frames):
    with pytest.raises(GeometryError, match="no atoms") as caught:
        describe([*frames, ase.Atoms()], DESCRIPTOR)
    assert caught.value.frame == len(frames)
    frames[1].positions[1] = frames[1].positions[0]
    with pytest.raises(GeometryError, match="same place") as caught:
        describe(frames, DESCRIPTOR)
    assert (caught.value.frame, caught.value.atom) == (1, 0)


def test_many_frames_are_described_a_part_at_a_time():
    frames = [ase.build.bulk("Si")] * 300
    found = describe(frames, DESCRIPTOR)
    assert len(found) == 300
    for x in found:
        assert_close(x, found[0], 1e-14)


def test_real_frames_of_silicon(silicon_train):
    frames = ase.io.read(silicon_train, ":214:71")
    descriptor = chebyshev(("Si",), 4.0, 4, 4.0, 3)
    found = describe(frames, descriptor)
    assert [x.shape for x in found] == [(len(atoms), 9) for atoms in frames]
    of = jax.tree.map(np.asarray, evaluator(descriptor, 4.0)(from_atoms(frames[-1], ("Si",))))
    assert_close(found[-1], of, 1e-13)
