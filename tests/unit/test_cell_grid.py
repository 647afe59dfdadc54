from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.cell_grid import as_rows, fill, plan, search, spread, take, window
from jaxvae_md.errors import RunError
from jaxvae_md.neighbors import check_complete, displacements, neighbor_list
from jaxvae_md.structure import Structure, pad, stack, unstack
from tests import systems
from tests.argon import crystal
from tests.pairs import assert_pairs, by_brute_force, by_vesin, pair_set
from tests.tiers import some_slow


class Found(NamedTuple):
    """What a search with a grid gives."""

    index: np.ndarray
    shift: np.ndarray
    mask: np.ndarray
    most: np.ndarray
    overflow: np.ndarray


@partial(jax.jit, static_argnums=(0, 3, 4))
def searched(grid, structure, span, radius, capacity) -> Found:
    """Over the systems of a leading axis, where there is one."""
    if structure.position.ndim == 3:
        one = lambda s, w: searched(grid, s, w, radius, capacity)
        return jax.vmap(one)(structure, span)
    cells = fill(grid, structure, span, radius)
    coordinates = spread(grid, cells, structure.position, structure.cell)
    places, most = search(grid, cells, coordinates, radius, capacity)
    return Found(*as_rows(grid, cells, places), most, cells.overflow | (most > capacity))


def find(structure: Structure, radius: float, capacity: int, grid=None) -> Found:
    grid = plan(structure, radius) if grid is None else grid
    return jax.tree.map(np.asarray, searched(grid, structure, window(structure), radius, capacity))


def scattered(pbc, num: int, seed: int = 0) -> Structure:
    """Atoms in a random, often skewed cell; along periodic directions up to three cells outside."""
    return systems.random_structure(np.random.default_rng([seed, *pbc]), pbc, num)


def gas(num: int, lengths, pbc=True, seed: int = 0, frame: float = 0.0) -> Structure:
    """Atoms anywhere in a box, of a cell at least as long as `frame` where it is not periodic."""
    lengths = np.broadcast_to(np.asarray(lengths, float), 3)
    rng = np.random.default_rng(seed)
    sides = np.where(pbc, lengths, np.maximum(lengths, frame))
    return systems.make(rng.uniform(0, 1, (num, 3)) * lengths, np.diag(sides), pbc=pbc)


TTT, TTF, TFF, FFF = [(True,) * k + (False,) * (3 - k) for k in (3, 2, 1, 0)]
CASES = {
    "cubic": (lambda: gas(150, 14.0), 4.0),
    "elongated": (lambda: gas(100, (5.0, 9.0, 40.0)), 3.7),
    "skewed": (lambda: systems.repeated(systems.triclinic(), (3, 3, 3)), 4.8),
    "thinner than the cutoff": (systems.triclinic, 4.8),
    "two atoms and images": (systems.bcc, 6.1),
    "one atom and images": (lambda: systems.make([[7.0, -9.0, 0.1]], 2.9 * np.eye(3)), 5.7),
    "periodic": (lambda: scattered(TTT, 90), 4.0),
    "slab": (lambda: scattered(TTF, 90), 4.0),
    "wire": (lambda: scattered(TFF, 90), 4.0),
    "cluster": (lambda: scattered(FFF, 90), 4.0),
    "flat": (lambda: gas(60, (20.0, 9.0, 0.0), pbc=TTF, frame=25.0), 4.0),
    "straight": (lambda: gas(60, (30.0, 0.0, 0.1), pbc=TFF, frame=2.0), 4.0),
}
EVERY_CASE = pytest.mark.parametrize(
    ("make", "radius"), some_slow(CASES, "cubic", "skewed", "slab", "flat", "two atoms and images")
)


@EVERY_CASE
def test_pairs_equal_vesin_and_those_without_a_grid(make, radius):
    structure = make()
    fns = neighbor_list(radius)
    neighbors = fns.allocate(structure)
    assert neighbors.grid is None
    found = find(structure, radius, neighbors.index.shape[1])
    updated = jax.jit(fns.update)(structure, systems.forgotten(neighbors))
    assert pair_set(found) == pair_set(updated) == by_vesin(structure, radius)
    assert found.most == neighbors.index.shape[1]
    assert not found.overflow


@pytest.mark.parametrize("name", ["cubic", "skewed", "slab"])
def test_pairs_in_single_precision(name):
    make, radius = CASES[name]
    structure = systems.single(make())
    found = find(structure, radius, 128)
    assert_pairs(pair_set(found), structure, radius)
    assert not found.overflow


def test_vectors_to_the_neighbors_are_shorter_than_the_radius():
    structure = scattered(TTF, 90)
    found = find(structure, 4.0, 128)
    length = np.linalg.norm(displacements(structure, found), axis=-1)
    assert (length[found.mask] < 4.0).all()
    assert (length[~found.mask] > 100).all()


@pytest.mark.parametrize("pbc", [TTF, FFF], ids=["slab", "cluster"])
def test_an_atom_that_leaves_the_window_loses_no_neighbor(pbc):
    structure = gas(300, (9.0, 9.0, 60.0), pbc=pbc)
    grid, span = plan(structure, 4.0, room=2.0), window(structure)
    assert grid.shape[2] > 3
    for move in ([0, 0, 9.0], [0, 0, -300.0], [40.0, -70.0, 33.0]):
        position = structure.position.copy()
        # three atoms go together, so that they stay neighbors
        position[:3] = structure.position[0] + np.array(move) + np.diag([0.5, 0.5, 2.0])
        moved = structure._replace(position=position)
        found = searched(grid, moved, span, 4.0, 64)
        assert not found.overflow
        assert pair_set(found) == by_vesin(moved, 4.0)
        assert pair_set(found) != by_vesin(structure, 4.0)


def test_padding_atoms_are_no_neighbors_and_have_none():
    structure = gas(60, 9.0)
    padded = pad(structure, 70)
    padded.position[60:] = structure.position[:10] + 0.1
    padded.position[-1] = np.nan
    found = find(padded, 4.0, 64)
    assert pair_set(found) == by_vesin(structure, 4.0)
    assert not found.overflow


def test_crowding_overflows_and_finds_no_wrong_pair():
    structure = gas(100, 16.0)
    grid, span = plan(structure, 4.0), window(structure)
    assert grid.capacity < 50
    crowded = structure.position.copy()
    crowded[:50] = 2.0 + np.random.default_rng(0).uniform(0, 1, (50, 3))
    crowded = structure._replace(position=crowded)
    found = searched(grid, crowded, span, 4.0, 128)
    assert found.overflow
    assert pair_set(found) < by_vesin(crowded, 4.0)
    assert not searched(grid, structure, span, 4.0, 128).overflow


def test_neighbors_beyond_the_capacity_are_counted_and_overflow():
    structure = gas(150, 14.0)
    exact = by_vesin(structure, 4.0)
    most = np.bincount([int(i) for i, *_ in exact]).max()
    found = find(structure, 4.0, int(most) - 1)
    assert found.overflow
    assert found.most == most
    assert pair_set(found) < exact


@pytest.mark.parametrize("atom", [0, 7])
@pytest.mark.parametrize("pbc", [TTT, FFF], ids=["periodic", "cluster"])
def test_a_position_that_is_not_a_number_shows(pbc, atom):
    structure = gas(60, (8.0, 8.0, 30.0), pbc=pbc)
    grid, span = plan(structure, 4.0), window(structure)
    for component in range(3):
        position = structure.position.copy()
        position[atom, component] = np.nan
        bad = structure._replace(position=position)
        found = jax.tree.map(np.asarray, searched(grid, bad, span, 4.0, 64))
        hidden = np.isfinite(displacements(bad, found)).all()
        assert found.overflow or not hidden


SQUEEZED = {
    "cubic": lambda: gas(150, 14.0),
    "skewed slab": lambda: scattered(TTF, 90),
    "tall slab": lambda: gas(150, (9.0, 9.0, 36.0), pbc=TTF),
}


@pytest.mark.parametrize("make", SQUEEZED.values(), ids=SQUEEZED)
def test_a_grid_serves_until_the_cell_is_as_thin_as_planned(make):
    structure, radius = make(), 4.0
    grid, span = plan(structure, radius, thinnest=0.8), window(structure)
    overflow = []
    for factor in (1.0, 0.801, 0.7, 0.6):
        squeezed = structure._replace(
            position=factor * structure.position, cell=factor * structure.cell
        )
        found = searched(grid, squeezed, span, radius, 256)
        overflow.append(bool(found.overflow))
        complete = pair_set(found) == by_vesin(squeezed, radius)
        assert complete or found.overflow, f"lost pairs at {factor}"
        assert complete or factor < 0.8
    assert overflow[:2] == [False, False]


filled = jax.jit(fill, static_argnums=(0, 3))


@pytest.mark.parametrize("precision", [systems.single, lambda s: s], ids=["single", "double"])
@pytest.mark.parametrize(("length", "num"), [(12.5, 3), (23.0, 3), (30.0, 4)])
def test_a_cell_that_is_exactly_some_radii_wide_is_not_too_thin(length, num, precision):
    structure = precision(gas(100, length))
    grid = plan(structure, length / num)
    assert not filled(grid, structure, window(structure), length / num).overflow


@pytest.mark.parametrize("precision", [systems.single, lambda s: s], ids=["single", "double"])
def test_atoms_between_two_grid_cells_fit(precision):
    # planes of a perfect crystal, on the borders of the grid
    structure = precision(crystal((6, 6, 6)))
    for radius in (5.3, 7.9):
        grid = plan(structure, radius)
        assert not filled(grid, structure, window(structure), radius).overflow


def test_systems_side_by_side_share_a_grid_that_has_room_for_each():
    # one cubic, one skewed, one crowded, all of other sizes
    crowded = gas(70, 12.0)
    crowded.position[:20] = 3.0 + 0.1 * crowded.position[:20]
    skewed = systems.repeated(systems.triclinic(), (3, 2, 2))
    batch = stack([gas(60, 13.0), skewed, crowded])
    grid = plan(batch, 4.0)
    span = np.stack([window(system) for system in unstack(batch)])
    found = searched(grid, batch, span, 4.0, 64)
    assert not np.any(found.overflow)
    for number, system in enumerate(unstack(batch)):
        one = jax.tree.map(lambda leaf, k=number: np.asarray(leaf)[k], found)
        assert pair_set(one) == by_vesin(system, 4.0)


def test_a_sheet_of_atoms_needs_no_layers_above_it():
    structure = gas(600, (40.0, 40.0, 0.0), pbc=TTF, frame=25.0)
    grid = plan(structure, 4.0)
    assert grid is not None
    assert (grid.shape[2], grid.reach[2]) == (1, 0)


def test_many_atoms_are_searched_in_blocks():
    structure = gas(4500, 45.0)
    found = find(structure, 4.0, 40)
    assert pair_set(found) == by_vesin(structure, 4.0)
    assert not found.overflow


def test_no_grid_is_better_than_one_of_too_many_cells():
    assert plan(systems.make([[0, 0, 0]], 0.4 * np.eye(3)), 6.0) is None
    crowd = np.random.default_rng(0).uniform(0, 0.5, (60, 3))
    assert plan(systems.make(crowd, 20.0 * np.eye(3)), 4.0) is None


# neighbor lists of many atoms

LISTS = neighbor_list(4.6, 0.6)
update = jax.jit(LISTS.update)
SHEAR = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]])
"""of lattice vectors: another cell of the same lattice"""
MANY = {
    "cubic": (np.eye(3), TTT),
    "triclinic": (SHEAR, TTT),
    "slab": (np.eye(3), TTF),
    "triclinic slab": (SHEAR, TTF),
    "wire": (np.eye(3), (False, True, False)),
    "cluster": (np.eye(3), FFF),
}


def many(name: str, seed: int = 0, rattle: float = 0.2) -> Structure:
    """600 atoms, each up to three lattice vectors outside where they are periodic."""
    perfect = crystal((5, 5, 6))
    vectors, pbc = MANY[name]
    cell = vectors @ perfect.cell
    turns = np.random.default_rng(seed).integers(-3, 4, perfect.position.shape) * pbc
    return systems.make(perfect.position + turns @ cell, cell, pbc, rattle=rattle, seed=seed)


@pytest.mark.parametrize("name", some_slow([*MANY], "cubic", "triclinic slab"))
def test_lists_of_many_atoms_are_updated_by_a_grid_to_the_pairs_of_vesin(name):
    structure = many(name)
    neighbors = LISTS.allocate(structure, extra=1.5)
    assert neighbors.grid is not None
    found = pair_set(neighbors)
    again = update(structure, systems.forgotten(neighbors))
    assert pair_set(again) == found == by_vesin(structure, 5.2)
    for seed in (1, 2):
        # moved, and by whole lattice vectors too; each list from the one before
        moved = many(name, seed, rattle=0.3)
        again = update(moved, again)
        assert not again.overflow
        exact = by_vesin(moved, 5.2)
        assert pair_set(again) == exact != found
        fresh = LISTS.allocate(moved)
        assert pair_set(fresh) == exact
        assert again.most >= fresh.most
        np.testing.assert_array_equal(again.reference_position, moved.position)


def test_few_atoms_need_no_grid():
    assert LISTS.allocate(crystal((5, 5, 4))).grid is None
    padded = pad(crystal((5, 5, 4)), 600)
    assert LISTS.allocate(padded).grid is None


def test_room_for_twice_the_neighbors_is_room_in_the_grid():
    structure = pad(gas(600, 20.0), 1200)
    # beside every atom there is a second one, at first as padding
    structure.position[600:] = structure.position[:600] + 1e-7
    twice = structure._replace(mask=np.ones(1200, bool))
    after = update(twice, LISTS.allocate(structure, extra=2.2))
    assert not after.overflow
    assert pair_set(after) == by_vesin(twice, 5.2)
    assert update(twice, LISTS.allocate(structure)).overflow


def test_a_crowd_in_a_list_of_many_atoms_is_refused():
    structure = many("cubic")
    neighbors = LISTS.allocate(structure)
    crowded = structure.position.copy()
    crowded[:60] = 10 + 0.05 * (crowded[:60] % 20)
    after = update(structure._replace(position=crowded), neighbors)
    assert after.overflow
    with pytest.raises(RunError, match="neighbors, and the list has room for"):
        check_complete(after)
    assert update(structure, after).overflow, "sticky"


def test_a_list_of_many_atoms_overflows_where_the_cell_became_too_thin():
    structure = many("triclinic")
    neighbors = LISTS.allocate(structure, extra=5.0)
    assert neighbors.grid is not None
    factors = np.linspace(1.0, 0.6, 9)
    for factor in factors:
        thin = structure._replace(
            position=structure.position * factor, cell=structure.cell * factor
        )
        after = update(thin, neighbors)
        assert after.overflow or pair_set(after) == by_vesin(thin, 5.2)
    assert after.overflow


@pytest.mark.slow
@pytest.mark.parametrize("pbc", [TTT, TTF, TFF, FFF], ids=["TTT", "TTF", "TFF", "FFF"])
def test_pairs_of_random_cells(pbc):
    rng = np.random.default_rng([11, *pbc])
    searches = 0
    for _ in range(40):
        structure = systems.random_structure(rng, pbc, int(rng.integers(1, 200)))
        radius = float(rng.uniform(1.5, 6.0))
        grid = plan(structure, radius)
        if grid is None:
            continue
        searches += 1
        exact = by_brute_force(structure, radius)
        most = max(1, np.bincount([i for i, *_ in exact], minlength=1).max())
        found = find(structure, radius, int(most), grid)
        assert pair_set(found) == exact
        assert not found.overflow
    assert searches > 20


# take

TABLE = np.arange(24.0).reshape(2, 3, 4) ** 2
INDEX = np.random.default_rng(0).integers(0, 4, (2, 3, 5))


@pytest.mark.parametrize("index", [INDEX[0, 0], INDEX[0], INDEX[0, 0, 0]], ids=["1", "2", "0"])
def test_take_is_indexing(index):
    np.testing.assert_array_equal(take(TABLE[0, 0], jnp.asarray(index)), TABLE[0, 0][index])


@pytest.mark.parametrize("jit", [False, True], ids=["", "jit"])
@pytest.mark.parametrize("inner", [(0, 0), (0, None), (None, 0)], ids=["both", "table", "index"])
@pytest.mark.parametrize(
    "outer", [(0, 0), (0, None), (None, 0)], ids=["both outside", "table outside", "index outside"]
)
def test_take_of_many_tables_and_indices(outer, inner, jit):
    table, index = TABLE, INDEX
    # leave out the axes that are not mapped
    for axis, axes in ((1, inner), (0, outer)):
        table = np.take(table, 0, axis) if axes[0] is None else table
        index = np.take(index, 0, axis) if axes[1] is None else index
    nested = lambda f: jax.vmap(jax.vmap(f, inner), outer)
    f = jax.jit(nested(take)) if jit else nested(take)
    plain = nested(lambda table, index: table[index])
    got = f(jnp.asarray(table), jnp.asarray(index))
    np.testing.assert_array_equal(got, plain(jnp.asarray(table), jnp.asarray(index)))
    assert got.shape == (2, 3, 5)
