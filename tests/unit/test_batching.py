from itertools import combinations

import jax
import numpy as np
import pytest

from jaxvae_md.batching import Batch, batches
from jaxvae_md.descriptors import chebyshev
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, lennard_jones
from jaxvae_md.structure import Structure
from tests import systems
from tests.asserts import assert_close

CUTOFF = 4.0
DESCRIPTOR = chebyshev(systems.SI, CUTOFF, 4, CUTOFF, 3)
LJ = lennard_jones(systems.SI, CUTOFF, 2.1, 1.0)


@pytest.fixture
def frames() -> list[Structure]:
    names = ("si8", "bcc", "cluster", "triclinic", "slab", "bcc")
    return [systems.ALL[name]() for name in names]


def padded_total(found: list[Batch]) -> int:
    return sum(batch.structure.mask.size for batch in found)


def least_cost(sizes: list[int], num_batches: int) -> float:
    """Padded atoms and a tenth of all atoms for every batch, by trying all borders."""
    levels = sorted(set(sizes))
    costs = []
    for num in range(min(num_batches, len(levels))):
        for borders in combinations(levels[:-1], num):
            tops = [*borders, levels[-1]]
            padded = sum(min(t for t in tops if t >= s) for s in sizes)
            costs.append(padded + 0.1 * sum(sizes) * len(tops))
    return min(costs)


@pytest.mark.parametrize("num_batches", [1, 2, 3, 10])
def test_every_frame_is_there_once_in_at_most_so_many_batches(frames, num_batches):
    found = batches(frames, CUTOFF, num_batches)
    order = np.concatenate([batch.frame for batch in found])
    assert sorted(order) == list(range(len(frames)))
    assert len(found) <= num_batches
    for batch in found:
        for row, number in enumerate(batch.frame):
            mask, frame = batch.structure.mask[row], frames[number]
            np.testing.assert_array_equal(batch.structure.position[row][mask], frame.position)
            np.testing.assert_array_equal(batch.structure.pbc[row], frame.pbc)


@pytest.mark.parametrize("num_batches", [1, 2, 3, 4])
def test_borders_pad_few_atoms_and_every_batch_saves_a_tenth_of_all(num_batches):
    sizes = [1, 1, 2, 2, 2, 5, 6, 6, 9, 9, 9, 9, 10, 3]
    frames = [systems.make(4.0 * np.outer(np.arange(s), [1, 0, 0]), np.eye(3), 0) for s in sizes]
    found = batches(frames, 2.0, num_batches)
    cost = padded_total(found) + 0.1 * sum(sizes) * len(found)
    assert cost == pytest.approx(least_cost(sizes, num_batches))


def test_padding_never_changes_a_result(frames):
    @jax.jit
    @jax.vmap
    def of_batch(structure, neighbors):
        return (
            DESCRIPTOR(structure, neighbors),
            *energy_and_forces(LJ.energy, LJ.init(None), structure, neighbors),
        )

    (batch,) = batches(frames, CUTOFF, num_batches=1)
    assert not batch.structure.mask.all()
    x, energy, forces = map(np.asarray, of_batch(batch.structure, batch.neighbors))
    assert (x[~batch.structure.mask] == 0).all()
    assert (forces[~batch.structure.mask] == 0).all()
    for row, number in enumerate(batch.frame):
        frame, mask = frames[number], batch.structure.mask[row]
        alone = jax.tree.map(lambda a: a[None], (frame, neighbor_list(CUTOFF).allocate(frame)))
        mine, e, f = (np.asarray(a[0]) for a in of_batch(*alone))
        assert_close(x[row][mask], mine, 1e-13)
        assert_close(energy[row], e, 1e-13)
        assert_close(forces[row][mask], f, 1e-13)


def test_batched_lists_can_be_updated(frames):
    """A batch mixes frames of different periodicity and cell size."""
    (batch,) = batches(frames, CUTOFF, num_batches=1)
    assert len(np.unique(batch.structure.pbc, axis=0)) > 1
    updated = jax.jit(jax.vmap(neighbor_list(CUTOFF).update))(batch.structure, batch.neighbors)
    np.testing.assert_array_equal(np.sum(updated.mask, axis=-1), batch.neighbors.mask.sum(axis=-1))
    assert not updated.overflow.any()
