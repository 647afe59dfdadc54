from functools import lru_cache, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vesin
from jax import lax

from jaxvae_md.errors import GeometryError, OptionError, RunError
from jaxvae_md.neighbors import (
    FAR,
    NeighborList,
    by_fewest_slots,
    check_complete,
    displacements,
    host_pairs,
    is_stale,
    neighbor_list,
    neighbor_species,
    perpendicular_widths,
)
from jaxvae_md.structure import Structure, pad
from tests import oracles, systems
from tests.asserts import assert_close
from tests.pairs import by_brute_force, pair_set

CUTOFF, SKIN = 4.2, 0.6
CAPACITY, MOST_IMAGES = 130, 600
MIXES = list(product([False, True], repeat=3))


UPDATE = jax.jit(neighbor_list(CUTOFF).update)
"""Compiled once for all random cells, which are padded to the same shapes."""


@lru_cache
def random_cells(mix: tuple[bool, bool, bool]) -> list[tuple[Structure, NeighborList]]:
    """Thirteen random structures, padded to eight atoms, with their allocated lists."""
    rng = np.random.default_rng([int(p) for p in mix])
    structures = [pad(systems.random_structure(rng, mix), 8) for _ in range(13)]
    return [(s, neighbor_list(CUTOFF).allocate(s)) for s in structures]


@pytest.mark.parametrize("mix", MIXES)
def test_allocated_pairs_equal_brute_force(mix):
    total = 0
    for structure, neighbors in random_cells(mix):
        real = structure._replace(position=structure.position[structure.mask])
        assert pair_set(neighbors) == by_brute_force(real, CUTOFF)
        total += neighbors.mask.sum()
    assert total > 13


@pytest.mark.parametrize("mix", MIXES)
def test_updated_pairs_equal_vesin_and_allocated_ones(mix):
    cells = random_cells(mix)
    calculator = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
    for structure, neighbors in cells:
        empty = systems.forgotten(systems.reshaped(neighbors, CAPACITY, MOST_IMAGES))
        updated = UPDATE(structure, empty)
        position = structure.position[structure.mask]
        i, j, shift = calculator.compute(position, structure.cell, structure.pbc, "ijS")
        assert pair_set(updated) == set(map(tuple, np.column_stack([i, j, shift]).tolist()))
        assert pair_set(updated) == pair_set(neighbors)
        assert not updated.overflow


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
def test_updated_pairs_equal_vesin_on_a_thousand_cells_of_up_to_64_atoms(mix):
    rng = np.random.default_rng([7, *(int(p) for p in mix)])
    fns, calculator = neighbor_list(CUTOFF), vesin.NeighborList(cutoff=CUTOFF, full_list=True)
    for _ in range(125):
        structure = systems.random_structure(rng, mix, int(rng.integers(1, 65)))
        padded = pad(structure, 64)
        built = fns.allocate(padded)
        empty = systems.forgotten(systems.reshaped(built, 600, 729))
        updated = UPDATE(padded, empty)
        i, j, shift = calculator.compute(structure.position, structure.cell, structure.pbc, "ijS")
        assert pair_set(updated) == set(map(tuple, np.column_stack([i, j, shift]).tolist()))
        assert not updated.overflow


@pytest.mark.parametrize("make", systems.ALL.values(), ids=systems.ALL)
def test_cutoff_larger_than_the_cell_meets_every_image(make):
    structure = make()
    neighbors = neighbor_list(6.5).allocate(structure)
    assert pair_set(neighbors) == by_brute_force(structure, 6.5)


def test_displacements_are_the_vectors_to_the_images():
    structure = systems.triclinic()
    neighbors = neighbor_list(CUTOFF).allocate(structure, extra=1.5)
    vector = np.asarray(jax.jit(displacements)(structure, neighbors))
    expected = {(i, j, *image): v for i, j, image, v in oracles.pairs(structure, CUTOFF)}
    for atom, slot in zip(*np.nonzero(neighbors.mask), strict=True):
        key = (atom, neighbors.index[atom, slot], *neighbors.shift[atom, slot])
        assert_close(vector[atom, slot], expected[tuple(map(int, key))], 1e-13)
    assert not neighbors.mask.all()
    assert (np.linalg.norm(vector[~neighbors.mask], axis=-1) == FAR).all()


def test_padded_slots_have_no_gradient():
    structure = systems.triclinic()
    neighbors = neighbor_list(CUTOFF).allocate(structure, extra=1.5)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def padded_length(position, cell):
        vector = displacements(structure._replace(position=position, cell=cell), neighbors)
        return jnp.sum(jnp.where(neighbors.mask, 0, jnp.sum(vector**2, axis=-1)))

    value, gradients = padded_length(structure.position, structure.cell)
    assert value > 0
    assert all((g == 0).all() for g in gradients)


def test_padding_atoms_have_no_neighbors_and_are_none():
    padded = pad(systems.si8(), 11)
    fns = neighbor_list(CUTOFF)
    allocated = fns.allocate(padded)
    updated = jax.jit(fns.update)(padded, allocated)
    for neighbors in (allocated, updated):
        assert pair_set(neighbors) == pair_set(fns.allocate(systems.si8()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_keeps_every_shape_and_dtype(dtype):
    structure = systems.si8()
    structure = structure if dtype == "float64" else systems.single(structure)
    fns = neighbor_list(CUTOFF)
    before = fns.allocate(structure)
    after = jax.eval_shape(fns.update, structure, before)
    assert before.reference_position.dtype == dtype
    described = lambda tree: [(a.shape, a.dtype) for a in jax.tree.leaves(tree)]
    assert described(after) == described(before)


def test_update_finds_the_pairs_of_moved_atoms_without_compiling_again():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF)
    traces = []

    @jax.jit
    def update(structure, neighbors):
        traces.append(structure)
        return fns.update(structure, neighbors)

    neighbors = fns.allocate(structure, extra=2.0)
    before = pair_set(neighbors)
    for seed in range(3):
        moved = systems.make(structure.position, structure.cell, rattle=0.3, seed=seed)
        neighbors = update(moved, neighbors)
        assert pair_set(neighbors) == by_brute_force(moved, CUTOFF)
        assert pair_set(neighbors) != before
        np.testing.assert_array_equal(neighbors.reference_position, moved.position)
    assert len(traces) == 1


def test_update_runs_inside_a_loop():
    structure = jax.tree.map(jnp.asarray, systems.si8())
    fns = neighbor_list(CUTOFF)
    neighbors = jax.tree.map(jnp.asarray, fns.allocate(structure, extra=2.0))

    @jax.jit
    def drift(structure, neighbors):
        def step(_, carry):
            structure, neighbors = carry
            structure = structure._replace(position=structure.position + 0.3)
            return structure, fns.update(structure, neighbors)

        return lax.fori_loop(0, 20, step, (structure, neighbors))

    moved, after = drift(structure, neighbors)
    assert pair_set(after) == by_brute_force(moved, CUTOFF)


def test_overflow_is_set_when_the_capacity_does_not_suffice():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF)
    neighbors = fns.allocate(structure)
    dense = structure._replace(position=0.8 * structure.position, cell=0.8 * structure.cell)
    update = jax.jit(fns.update)
    assert not update(structure, neighbors).overflow
    full = update(dense, neighbors)
    assert full.overflow
    assert pair_set(full) < by_brute_force(dense, CUTOFF)
    check_complete(update(structure, neighbors))
    enough = fns.allocate(dense).index.shape[1]
    words = f"{enough} neighbors, and the list has room for {neighbors.index.shape[1]}"
    with pytest.raises(RunError, match=words) as caught:
        check_complete(full)
    assert f"capacity={enough}" in caught.value.remedy
    back = update(structure, full)
    assert back.most == enough, "what is needed is not forgotten"


def test_overflow_is_set_when_the_cell_became_too_thin_for_the_images():
    structure = systems.bcc()._replace(pbc=np.array([True, True, False]))
    fns = neighbor_list(3.1)
    neighbors = fns.allocate(structure, extra=4.0)
    thin = structure._replace(cell=structure.cell * np.array([[1.0], [0.9], [1.0]]))
    vacuum = structure._replace(cell=structure.cell * np.array([[1.0], [1.0], [0.1]]))
    update = jax.jit(fns.update)
    assert update(thin, neighbors).overflow
    with pytest.raises(RunError, match=r"too thin for the \[\d, \d, 0\] images"):
        check_complete(update(thin, neighbors))
    assert not update(vacuum, neighbors).overflow, "that direction has no images"


def test_overflow_is_sticky():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF)
    neighbors = fns.allocate(structure)._replace(overflow=np.ones((), bool))
    after = jax.jit(fns.update)(structure, neighbors)
    assert after.overflow
    assert not fns.allocate(structure).overflow


def test_list_is_stale_once_an_atom_moved_more_than_half_the_skin():
    structure = systems.si8()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    stale = jax.jit(lambda s: is_stale(s, neighbors, SKIN))
    assert not stale(structure)
    step = np.zeros((8, 3))
    step[5] = np.array([2, -1, 2]) / 3 * SKIN / 2
    assert not stale(structure._replace(position=structure.position + 0.999 * step))
    assert stale(structure._replace(position=structure.position + 1.001 * step))
    assert stale(structure._replace(cell=structure.cell * (1 + 1e-9)))


def test_lists_reach_to_the_cutoff_and_the_skin():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF, SKIN)
    assert (fns.cutoff, fns.skin) == (CUTOFF, SKIN)
    allocated = fns.allocate(structure)
    updated = jax.jit(fns.update)(structure, allocated)
    assert pair_set(allocated) == pair_set(updated) == by_brute_force(structure, CUTOFF + SKIN)
    assert pair_set(allocated) > by_brute_force(structure, CUTOFF)


def test_list_that_is_not_stale_misses_no_pair_within_the_cutoff():
    structure = systems.si8()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    direction = np.random.default_rng(0).normal(size=(8, 3))
    direction *= 0.499 * SKIN / np.linalg.norm(direction, axis=1, keepdims=True)
    moved = structure._replace(position=structure.position + direction)
    assert not is_stale(moved, neighbors, SKIN)
    assert by_brute_force(moved, CUTOFF) - pair_set(neighbors) == set()
    assert by_brute_force(moved, CUTOFF) - by_brute_force(structure, CUTOFF) != set()


def strained(structure: Structure, strain: np.ndarray) -> Structure:
    """Atoms and cell deformed together."""
    deformation = np.eye(3) + strain
    return structure._replace(
        position=structure.position @ deformation, cell=structure.cell @ deformation
    )


STALE = jax.jit(lambda s, n: is_stale(s, n, SKIN, CUTOFF))


@pytest.mark.parametrize("make", systems.ALL.values(), ids=systems.ALL)
def test_list_that_a_strain_left_fresh_misses_no_pair_within_the_cutoff(make):
    structure, rng = make(), np.random.default_rng(0)
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    listed = pair_set(neighbors)
    fresh, came_near = [], 0
    for _ in range(200):
        moved = strained(structure, rng.uniform(0, 0.1) * rng.uniform(-1, 1, (3, 3)))
        step = rng.normal(size=structure.position.shape)
        step *= rng.uniform(0, 0.5 * SKIN) / np.linalg.norm(step, axis=1).max()
        moved = moved._replace(position=moved.position + step)
        fresh.append(not STALE(moved, neighbors))
        if fresh[-1]:
            i, j, shift = host_pairs(moved, CUTOFF)
            near = set(map(tuple, np.column_stack([i, j, shift]).tolist()))
            assert near <= listed
            came_near += len(near - by_brute_force(structure, CUTOFF))
    assert 20 < np.sum(fresh) < 180
    assert came_near > 0 or make is systems.cluster


def test_a_strain_uses_up_its_share_of_the_skin():
    structure = systems.triclinic()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    largest = SKIN / (CUTOFF + SKIN)
    along = np.diag([0.0, -1.0, 0.0])
    stale = lambda s: bool(STALE(s, neighbors))
    assert not stale(structure)
    assert not stale(strained(structure, 0.999 * largest * along))
    assert stale(strained(structure, 1.001 * largest * along))
    assert stale(strained(structure, 5.0 * largest * along)), "the slack is negative"
    half = strained(structure, 0.5 * largest * along)
    step = np.zeros((4, 3))
    step[2, 0] = 0.25 * SKIN
    assert not stale(half._replace(position=half.position + 0.999 * step))
    assert stale(half._replace(position=half.position + 1.001 * step))


def test_with_the_cutoff_a_list_in_the_same_cell_is_stale_after_half_the_skin():
    structure = systems.triclinic()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    for length in np.linspace(0.49, 0.51, 21) * SKIN:
        step = length * np.array([[0, 0, 0], [2, -1, 2], [0, 0, 0], [0, 0, 0]]) / 3
        moved = structure._replace(position=structure.position + step)
        assert STALE(moved, neighbors) == is_stale(moved, neighbors, SKIN)


@pytest.mark.parametrize("name", ["position", "cell"])
def test_with_the_cutoff_a_list_is_stale_where_something_is_not_a_number(name):
    structure = systems.si8()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    getattr(structure, name)[1, 1] = np.nan
    assert STALE(structure, neighbors)


def test_moving_padding_atoms_does_not_make_a_list_stale():
    padded = pad(systems.si8(), 10)
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(padded)
    away = padded.position + 9.0 * ~padded.mask[:, None]
    assert not is_stale(padded._replace(position=away), neighbors, SKIN)


def test_lone_atom_has_no_neighbors():
    lone = systems.make([[0.5, 0.5, 0.5]], np.eye(3), pbc=False)
    fns = neighbor_list(CUTOFF)
    neighbors = fns.allocate(lone)
    assert pair_set(neighbors) == pair_set(jax.jit(fns.update)(lone, neighbors)) == set()
    assert neighbors.index.shape == (1, 1)


def test_extra_capacity_is_a_factor():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF)
    exact = fns.allocate(structure)
    assert exact.mask.sum(axis=1).max() == exact.index.shape[1]
    assert fns.allocate(structure, extra=1.5).index.shape[1] == np.ceil(1.5 * exact.index.shape[1])


def test_pairs_come_sorted_by_atom():
    i, j, shift = host_pairs(systems.triclinic(), CUTOFF)
    assert (np.diff(i) >= 0).all()
    assert len(i) == len(j) == len(shift) > 0


def test_widths_are_distances_between_faces():
    cell = systems.triclinic().cell
    area = [np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)]
    assert_close(perpendicular_widths(cell), abs(np.linalg.det(cell)) / np.array(area), 1e-13)


@pytest.mark.parametrize("lengths", [(-1.0, 0.0), (3.0, -0.1), (np.nan, 0.0), (np.inf, 0.0)])
def test_lengths_that_make_no_list_are_refused(lengths):
    with pytest.raises(OptionError, match=str(lengths[0])):
        neighbor_list(*lengths)


def test_singular_cell_is_refused():
    flat = systems.si8()._replace(cell=np.array([[5.0, 0, 0], [5.0, 0, 0], [0, 0, 5.0]]))
    with pytest.raises(GeometryError, match=r"cell is singular.*\n  remedy: "):
        neighbor_list(CUTOFF).allocate(flat)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_position_that_is_not_finite_is_refused_and_named(value):
    structure = systems.si8()
    structure.position[3, 1] = value
    with pytest.raises(GeometryError, match="atom 3: the position is not finite"):
        neighbor_list(CUTOFF).allocate(structure)


def test_padding_positions_need_not_be_finite():
    padded = pad(systems.si8(), 9)
    padded.position[8] = np.nan
    assert neighbor_list(CUTOFF).allocate(padded).mask[:8].any()


def test_update_does_not_hide_a_position_that_became_nan():
    structure = systems.si8()
    fns = neighbor_list(CUTOFF)
    neighbors = fns.allocate(structure)
    structure.position[3, 1] = np.nan
    updated = jax.jit(fns.update)(structure, neighbors)
    hidden = np.isfinite(displacements(structure, updated)).all()
    assert updated.overflow or not hidden


def test_list_is_stale_when_a_position_became_nan():
    structure = systems.si8()
    neighbors = neighbor_list(CUTOFF, SKIN).allocate(structure)
    structure.position[3, 1] = np.nan
    assert is_stale(structure, neighbors, SKIN)


def test_update_takes_numpy_arrays_outside_jit():
    structure = systems.bcc()
    fns = neighbor_list(CUTOFF)
    neighbors = fns.allocate(structure)
    assert pair_set(fns.update(structure, neighbors)) == pair_set(neighbors)


def test_displacements_and_species_of_some_centres_are_rows_of_all():
    structure = systems.sio2()
    neighbors = neighbor_list(3.0).allocate(structure)
    atoms = np.array([7, 2, 2])
    some = jax.jit(displacements)(structure, neighbors, atoms)
    np.testing.assert_array_equal(some, jax.jit(displacements)(structure, neighbors)[atoms])
    species = neighbor_species(structure, neighbors)
    np.testing.assert_array_equal(species, structure.species[neighbors.index])
    np.testing.assert_array_equal(neighbor_species(structure, neighbors, atoms), species[atoms])


@pytest.mark.parametrize("num", [3, 6, 11])
def test_fewest_slots_hold_every_neighbor_to_keep(num):
    """Few, some, and more than there is a shorter list for."""
    structure = systems.repeated(systems.si8(), (2, 2, 2))
    neighbors = neighbor_list(4.5).allocate(structure, extra=1.3)

    def of(position, function):
        moved = structure._replace(position=position)
        square = jnp.sum(displacements(moved, neighbors) ** 2, axis=-1)
        nearest = (
            jnp.argsort(jnp.argsort(square, axis=1), axis=1) < num - (jnp.arange(64) % 2)[:, None]
        )
        return function(moved, nearest & neighbors.mask)

    def triples(structure, neighbors):
        vector = displacements(structure, neighbors)
        weight = jnp.exp(-jnp.sum(vector**2, axis=-1))
        return jnp.sum(jnp.einsum("njc,nkc,nj,nk->njk", vector, vector, weight, weight) ** 2)

    shortest = lambda s, keep: by_fewest_slots(lambda n: triples(s, n), neighbors, keep)
    whole = lambda s, keep: triples(s, neighbors._replace(mask=keep))
    one, other = (
        jax.jit(jax.value_and_grad(partial(of, function=f)))(structure.position)
        for f in (shortest, whole)
    )
    assert_close(one[0], other[0], 1e-12)
    assert_close(one[1], other[1], 1e-12)
