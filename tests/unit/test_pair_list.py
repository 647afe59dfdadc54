from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import all_pairs, cell_grid
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.errors import GeometryError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.pair_list import PairList, pair_list, pair_sums
from jaxvae_md.potentials import energy_and_forces, evaluate, lennard_jones, stress
from jaxvae_md.structure import pad, stack, unstack
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close
from tests.pairs import assert_pairs, by_vesin, pair_set
from tests.tiers import some_slow

SKIN = 0.6
FNS = pair_list(ARGON.cutoff, SKIN)
MIXTURE = lennard_jones(("Ar", "Ne"), 6.0, [3.4, 2.8], [0.0103, 0.003], "switch")


class Rows(NamedTuple):
    """The neighbors of a list as atoms."""

    index: jax.Array
    shift: jax.Array
    mask: jax.Array


@jax.jit
def as_rows(pairs: PairList) -> Rows:
    return Rows(*cell_grid.as_rows(pairs.grid, pairs.cells, pairs.places))


update = jax.jit(FNS.update)


@pytest.fixture(autouse=True)
def with_a_list(monkeypatch):
    """Few atoms get a list too, which they would not need."""
    monkeypatch.setattr(all_pairs, "_MOST_TERMS", {4: 0, 8: 0})


def solid(seed: int = 0, rattle: float = 0.25):
    """Argon in a cell that is thinner than twice the reach of the list."""
    perfect = crystal()
    return systems.make(perfect.position, perfect.cell, rattle=rattle, seed=seed)


def mixed(structure):
    """Every third atom is of the second species."""
    species = (np.arange(len(structure.mask)) % 3 == 0).astype(np.int32)
    return structure._replace(species=species)


def outside(structure, seed: int = 0):
    """Every atom is moved by up to three lattice vectors, where they are periodic."""
    turns = np.random.default_rng(seed).integers(-3, 4, structure.position.shape) * structure.pbc
    return structure._replace(position=structure.position + turns @ structure.cell)


def large(kind: str, seed: int = 0, rattle: float = 0.25):
    """More than 300 atoms of two species, many of them far outside the cell."""
    perfect = crystal((5, 4, 4))
    cell, pbc = perfect.cell, KINDS[kind]
    if kind == "skewed":
        # another cell of the same lattice, whose angles are far from right ones
        cell = np.array([[1, 0, 0], [1, 1, 0], [-1, 1, 1]]) @ cell
    if kind == "cluster":
        cell = np.eye(3)
    structure = systems.make(perfect.position, cell, pbc=pbc, rattle=rattle, seed=seed)
    strain = np.eye(3) + np.array([[0.0, 0.02, -0.01], [0.01, 0.03, 0.0], [-0.02, 0.01, -0.02]])
    strained = structure._replace(position=structure.position @ strain, cell=cell @ strain)
    return outside(mixed(strained), seed)


KINDS = {
    "cubic": (True, True, True),
    "skewed": (True, True, True),
    "slab": (True, True, False),
    "wire": (False, True, False),
    "cluster": (False, False, False),
}


@lru_cache
def by_gradients(potential):
    """(structure, rows) -> energy, forces and the virial that the stress stands for, compiled."""
    params = potential.init(None)

    @jax.jit
    def run(structure, rows):
        state = params, structure, rows
        energy, forces = energy_and_forces(potential.energy, *state)
        volume = jnp.abs(jnp.linalg.det(structure.cell))
        return energy, forces, -jnp.trace(stress(potential.energy, *state)) * volume

    return run


def assert_as_by_gradients(potential, structure, found, tolerance: float) -> None:
    """Energy, forces and virial are those of the potential with a list of vesin's."""
    rows = neighbor_list(potential.cutoff).allocate(structure, capacity=100)
    for a, b in zip(found, by_gradients(potential)(structure, rows), strict=True):
        assert np.abs(b).max() > 0.01
        assert_close(a, b, tolerance)


@lru_cache
def computed(potential, dtype="float64"):
    """(structure, list of either kind) -> energy, forces and virial, compiled."""
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), potential.init(None))

    @jax.jit
    def run(structure, neighbors):
        energy = evaluate.energy(potential, params, structure, neighbors)
        return energy, *evaluate.forces_and_virial(potential, params, structure, neighbors)

    return run


def test_pairs_equal_vesin_before_and_after_an_update():
    structure, moved = solid(), solid(seed=1, rattle=0.4)
    pairs = FNS.allocate(structure, extra=1.5)
    assert pair_set(as_rows(pairs)) == by_vesin(structure, ARGON.cutoff + SKIN)
    after = update(moved, pairs)
    assert not after.overflow
    assert pair_set(as_rows(after)) == by_vesin(moved, ARGON.cutoff + SKIN)
    assert pair_set(as_rows(after)) != pair_set(as_rows(pairs))
    assert_close(after.reference_position, moved.position, 0)


def test_an_updated_list_gives_what_a_fresh_one_gives():
    moved = solid(seed=1, rattle=0.4)
    updated = update(moved, FNS.allocate(solid(), extra=1.5))
    run = computed(ARGON)
    for a, b in zip(run(moved, updated), run(moved, FNS.allocate(moved)), strict=True):
        assert_close(a, b, 1e-13)


def test_a_list_serves_atoms_that_moved_within_the_skin():
    structure, rng = solid(), np.random.default_rng(0)
    pairs = FNS.allocate(structure)
    # some leave the cell on one side, where their copies must follow
    step = rng.normal(size=structure.position.shape)
    step *= 0.499 * SKIN / np.linalg.norm(step, axis=1, keepdims=True)
    moved = structure._replace(position=structure.position + step)
    run = computed(ARGON)
    for a, b in zip(run(moved, pairs), run(moved, FNS.allocate(moved)), strict=True):
        assert_close(a, b, 1e-13)


@pytest.mark.parametrize("potential", [ARGON, MIXTURE], ids=["one species", "two species"])
def test_sums_over_pairs_equal_the_energy_and_its_derivatives(potential):
    structure = mixed(solid()) if potential is MIXTURE else solid()
    pairs, params = FNS.allocate(structure), potential.init(None)
    energy, force, virial = computed(potential)(structure, pairs)
    rows = neighbor_list(ARGON.cutoff, SKIN).allocate(structure)
    expected, forces = energy_and_forces(potential.energy, params, structure, rows)
    assert_close(energy, expected, 1e-13)
    assert_close(force, forces, 1e-12)
    tensor = stress(potential.energy, params, structure, rows)
    assert_close(virial, -np.trace(tensor) * np.linalg.det(structure.cell), 1e-12)
    assert_close(evaluate.forces(potential, params, structure, pairs), forces, 1e-12)
    for one, other in zip(
        computed(potential)(structure, rows), (energy, force, virial), strict=True
    ):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize("kind", some_slow([*KINDS], "skewed", "slab"))
def test_many_atoms_have_the_energy_and_its_derivatives_before_and_after_they_moved(kind):
    structure, moved = large(kind), large(kind, seed=1, rattle=0.35)
    pairs = FNS.allocate(structure, extra=1.5)
    assert isinstance(pairs, PairList)
    run = computed(MIXTURE)
    assert_as_by_gradients(MIXTURE, structure, run(structure, pairs), 1e-11)
    after = update(moved, pairs)
    assert not after.overflow
    assert pair_set(as_rows(after)) == by_vesin(moved, MIXTURE.cutoff + SKIN)
    assert_as_by_gradients(MIXTURE, moved, run(moved, after), 1e-11)


TAIL = lennard_jones(("Ar", "Ne"), 6.0, [3.4, 2.8], [0.0103, 0.003], "cut", tail=True)


@pytest.mark.slow
@pytest.mark.parametrize("times", [(1, 1, 1), (2, 1, 2)], ids=["images", "more atoms"])
@pytest.mark.parametrize("list_of_few", [False, True], ids=["all pairs", "list"])
def test_few_atoms_far_outside_a_skewed_cell_have_the_energy_and_its_derivatives(
    monkeypatch, list_of_few, times
):
    perfect = crystal(times)
    cell = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ perfect.cell
    structure = outside(mixed(systems.make(perfect.position, cell, rattle=0.2)))
    monkeypatch.setattr(
        all_pairs, "_MOST_TERMS", dict.fromkeys((4, 8), 0 if list_of_few else 10**9)
    )
    pairs = FNS.allocate(structure)
    assert isinstance(pairs, PairList if list_of_few else AllPairs)
    assert_as_by_gradients(TAIL, structure, computed(TAIL)(structure, pairs), 1e-11)


def test_few_atoms_meet_all_others_and_many_get_a_list(monkeypatch):
    monkeypatch.undo()
    assert isinstance(FNS.allocate(crystal()), AllPairs)
    assert isinstance(FNS.allocate(crystal((5, 4, 4))), PairList)


@pytest.mark.parametrize("updated", [False, True], ids=["old list", "updated"])
@pytest.mark.parametrize("component", [0, 2])
@pytest.mark.parametrize("kind", ["cubic", "cluster"])
def test_a_position_that_is_not_a_number_shows(kind, component, updated):
    structure = large(kind)
    if kind == "cluster":
        # round: nobody is in the corners of its window, where such an atom might be put
        center = structure.position.mean(axis=0)
        outer = np.linalg.norm(structure.position - center, axis=1) > 9.0
        structure = structure._replace(mask=~outer)
    pairs = FNS.allocate(structure)
    for atom in np.flatnonzero(structure.mask)[[0, 50, -1]]:
        bad = structure._replace(position=structure.position.copy())
        bad.position[atom, component] = np.nan
        after = update(bad, pairs) if updated else pairs
        energy, force, virial = computed(MIXTURE)(bad, after)
        assert after.overflow or np.isnan([energy, virial]).all()
        assert after.overflow or np.isnan(force[atom]).any()


def test_padding_atoms_add_nothing_and_feel_nothing():
    structure = solid()
    padded = pad(structure, 40)
    padded.position[32:] = structure.position[:8] + 0.3
    pairs = FNS.allocate(padded)
    assert pair_set(as_rows(pairs)) == by_vesin(structure, ARGON.cutoff + SKIN)
    energy, force, virial = computed(ARGON)(padded, pairs)
    expected = computed(ARGON)(structure, FNS.allocate(structure))
    assert_close(energy, expected[0], 1e-13)
    assert_close(force[:32], expected[1], 1e-13)
    assert_close(virial, expected[2], 1e-13)
    assert (np.asarray(force[32:]) == 0).all()


@pytest.mark.parametrize("potential", [ARGON, MIXTURE], ids=["one species", "two species"])
def test_single_precision_is_kept_and_near(potential):
    structure = mixed(solid()) if potential is MIXTURE else solid()
    double = computed(potential)(structure, FNS.allocate(structure))
    single = systems.single(structure)
    pairs = FNS.allocate(single)
    assert_pairs(pair_set(as_rows(pairs)), single, ARGON.cutoff + SKIN)
    for a, b in zip(computed(potential, "float32")(single, pairs), double, strict=True):
        assert a.dtype == np.float32
        assert_close(a, b, 1e-5)


def test_precision_is_that_of_the_positions_even_with_other_parameters():
    lj = lennard_jones(("Ar",), 6.0, 3.4, 0.0103, "cut", tail=True)
    single = systems.single(solid())
    shapes = jax.eval_shape(
        computed(lj, "float64"), single, jax.eval_shape(update, single, FNS.allocate(single))
    )
    assert {shape.dtype for shape in shapes} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["capacity", "crowd", "cell"])
def test_overflow_is_set_where_pairs_may_be_missing_and_stays(kind):
    structure = crystal((4, 4, 4))
    pairs = CROWD.allocate(structure)
    assert not pairs.overflow
    changed = structure
    if kind == "capacity":
        pairs = pairs._replace(places=pairs.places[:4])
    else:
        cell = 0.7 * structure.cell if kind == "cell" else structure.cell
        changed = structure._replace(position=0.7 * structure.position, cell=cell)
    run = jax.jit(CROWD.update)
    after = run(changed, pairs)
    assert after.overflow
    assert after.cells.overflow == (kind != "capacity")
    again = run(structure, after)
    assert again.overflow, "sticky"
    assert again.most >= after.most >= pairs.most
    assert not CROWD.allocate(changed).overflow


CROWD = pair_list(5.3, 0.3)


def test_a_crowd_that_has_no_room_leaves_every_force_a_number():
    # what is not a number would end a run; an overflow is repeated with more room
    structure = crystal((4, 4, 4))
    crowded = structure._replace(position=0.7 * structure.position)
    after = jax.jit(CROWD.update)(crowded, CROWD.allocate(structure))
    assert after.cells.overflow
    assert np.isfinite(evaluate.forces(ARGON, PARAMS, crowded, after)).all()


def test_room_is_what_is_asked_for():
    structure = solid()
    most = neighbor_list(ARGON.cutoff, SKIN).allocate(structure).index.shape[1]
    room = lambda **options: FNS.allocate(structure, **options).places.shape[0]
    assert FNS.allocate(structure).most == most
    assert most <= room(extra=1.0) < most + 4
    assert 1.5 * most <= room(extra=1.5) < 1.5 * most + 4
    assert room(capacity=3 * most) >= 3 * most


def test_no_list_where_no_grid_serves():
    assert FNS.allocate(systems.make([[0, 0, 0]], 0.5 * np.eye(3))) is None


@pytest.mark.parametrize("batched", [False, True], ids=["", "batch"])
def test_bad_structures_are_refused_with_a_typed_error(batched):
    def allocate(bad):
        FNS.allocate(stack([solid(), bad]) if batched else bad)

    bad = solid()
    bad.position[3, 1] = np.nan
    with pytest.raises(GeometryError, match="atom 3: the position is not finite"):
        allocate(bad)
    flat = solid()
    flat.cell[1] = flat.cell[0]
    with pytest.raises(GeometryError, match="cell is singular"):
        allocate(flat)


# many at once


def scaled(factor: float):
    return jax.tree.map(lambda leaf: factor * leaf, PARAMS)


@pytest.mark.parametrize("potential", [ARGON, MIXTURE], ids=["one species", "two species"])
def test_systems_side_by_side_are_as_each_alone(potential):
    parts = [solid(), solid(seed=1), solid(seed=2, rattle=0.4)]
    if potential is MIXTURE:
        parts = [mixed(part) for part in parts]
        parts[1] = parts[1]._replace(species=1 - parts[1].species)
    batch = stack(parts)
    pairs = FNS.allocate(batch)
    run = computed(potential)
    together = jax.jit(jax.vmap(run))(batch, pairs)
    for number, system in enumerate(unstack(batch)):
        for a, b in zip(together, run(system, FNS.allocate(system)), strict=True):
            assert_close(a[number], b, 1e-12)


together = jax.jit(jax.vmap(FNS.update))


def test_systems_of_other_cells_and_sizes_are_updated_together():
    parts, moved = (
        [
            large("skewed", seed, rattle),
            mixed(solid(seed, rattle)),
            mixed(solid(seed, rattle)._replace(pbc=np.array([True, False, True]))),
        ]
        for seed, rattle in ((0, 0.25), (1, 0.3))
    )
    after = together(stack(moved), FNS.allocate(stack(parts), extra=1.5))
    assert not np.any(after.overflow)
    found = jax.jit(jax.vmap(computed(MIXTURE)))(stack(moved), after)
    for number, system in enumerate(moved):
        num = len(system.mask)
        energy, force, virial = (np.asarray(leaf)[number] for leaf in found)
        assert_as_by_gradients(MIXTURE, system, (energy, force[:num], virial), 1e-11)
        assert (force[num:] == 0).all()


def test_only_the_system_that_has_no_room_overflows():
    batch = stack([solid(), solid(seed=1), solid(seed=2)])
    pairs = FNS.allocate(batch, extra=1.2)
    batch.position[1] *= 0.5
    assert together(batch, pairs).overflow.tolist() == [False, True, False]


def test_sums_map_over_parameters_positions_and_both():
    structure = jax.tree.map(jnp.asarray, solid())
    pairs = FNS.allocate(solid(), extra=1.2)
    moved = jnp.stack([solid(rattle=rattle).position for rattle in (0.25, 0.26, 0.27)])
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), PARAMS, scaled(1.1))

    def forces(params, position):
        return evaluate.forces(ARGON, params, structure._replace(position=position), pairs)

    one = jax.jit(forces)
    by_hand = np.array(
        [[one(jax.tree.map(lambda leaf, a=a: leaf[a], params), x) for x in moved] for a in range(2)]
    )
    over_params = jax.vmap(forces, (0, None))
    over_positions = jax.vmap(forces, (None, 0))
    assert_close(jax.jit(over_params)(params, moved[0]), by_hand[:, 0], 1e-12)
    assert_close(jax.jit(over_positions)(PARAMS, moved), by_hand[0], 1e-12)
    assert_close(jax.jit(jax.vmap(over_positions, (0, None)))(params, moved), by_hand, 1e-12)
    assert_close(
        jax.jit(jax.vmap(over_params, (None, 0)))(params, moved), by_hand.swapaxes(0, 1), 1e-12
    )


@partial(jax.jit, static_argnums=2)
def count(structure, pairs, radius):
    near = lambda r, *_: ((r[0] ** 2 + r[1] ** 2 + r[2] ** 2 < radius**2).astype(float),)
    return pair_sums(structure, pairs, near, 1)[0]


def test_neighbors_are_counted_in_the_order_of_the_atoms():
    structure = solid()
    order = np.random.default_rng(0).permutation(32)
    mixed_up = structure._replace(position=structure.position[order])
    expected = np.bincount([int(i) for i, *_ in by_vesin(structure, 4.0)], minlength=32)
    assert len(set(expected.tolist())) > 2
    assert_close(count(structure, FNS.allocate(structure), 4.0), expected, 0)
    assert_close(count(mixed_up, FNS.allocate(mixed_up), 4.0), expected[order], 0)
