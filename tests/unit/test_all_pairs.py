import jax
import numpy as np
import pytest

from jaxvae_md.all_pairs import STRAIN, AllPairs
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.pair_list import pair_list
from jaxvae_md.potentials import evaluate, lennard_jones
from jaxvae_md.structure import pad, stack, unstack
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close
from tests.tiers import some_slow

SILICON = lennard_jones(systems.SI, 3.6, 2.1, 0.7)
QUARTZ = lennard_jones(systems.SIO2, 4.8, [1.4, 2.1], [0.3, 0.7])


def computed(lj, structure, pairs):
    state = lj, lj.init(None), structure, pairs
    return evaluate.energy(*state), *evaluate.forces_and_virial(*state)


run = jax.jit(computed, static_argnums=0)
CASES = {name: (SILICON, make) for name, make in systems.ALL.items()} | {
    "two species": (QUARTZ, systems.sio2),
    "a cell of a crystal": (ARGON, lambda: crystal(rattle=0.1)),
    "pair": (SILICON, lambda: systems.dimer(2.3)),
    "lone atom": (SILICON, lambda: systems.make([[9.0, -7.0, 0.3]], 2.5 * np.eye(3))),
}
EVERY_CASE = pytest.mark.parametrize(
    ("lj", "make"), some_slow(CASES, "triclinic", "two species", "slab", "cluster", "pair")
)


@EVERY_CASE
def test_energy_forces_and_virial_equal_those_of_a_neighbor_list(lj, make):
    structure = make()
    pairs = pair_list(lj.cutoff, 0.5).allocate(structure)
    assert isinstance(pairs, AllPairs)
    expected = run(lj, structure, neighbor_list(lj.cutoff).allocate(structure))
    scale = abs(float(expected[0]))
    assert scale > 0
    for a, b in zip(run(lj, structure, pairs), expected, strict=True):
        assert_close(a, b, 1e-12, max(scale, np.abs(b).max()))


# of cells along the axes only strains along them keep what was chosen
@pytest.mark.parametrize("name", ["triclinic", "two species", "slab"])
def test_atoms_anywhere_and_a_cell_a_little_strained_need_no_other_images(name):
    lj, make = CASES[name]
    structure, rng = make(), np.random.default_rng(0)
    fns = pair_list(lj.cutoff, 0.5)
    pairs = fns.allocate(structure)
    for _ in range(10):
        strain = rng.normal(size=(3, 3)) * (np.eye(3) if name == "slab" else 1)
        strain *= 0.99 * STRAIN / np.linalg.norm(strain)
        cell = structure.cell @ (np.eye(3) + strain)
        fraction = rng.uniform(-1, 2, structure.position.shape)
        # not on top of each other, whatever the image
        grid = np.array(list(np.ndindex(2, 2, 3)))[: len(fraction)] / (2, 2, 3)
        moved = structure._replace(position=(grid + 0.05 * fraction) @ cell, cell=cell)
        assert not fns.update(moved, pairs).overflow
        fresh = neighbor_list(lj.cutoff).allocate(moved, capacity=400)
        for a, b in zip(run(lj, moved, pairs), run(lj, moved, fresh), strict=True):
            assert_close(a, b, 1e-11)


def test_a_cell_that_became_another_one_overflows_and_that_stays():
    structure = systems.triclinic()
    fns = pair_list(SILICON.cutoff, 0.5)
    pairs = fns.allocate(structure)
    strained = structure._replace(cell=structure.cell * (1 + 1.01 * STRAIN))
    after = fns.update(strained, pairs)
    assert after.overflow
    assert fns.update(structure, after).overflow
    cubic = systems.si8()
    pairs = fns.allocate(cubic)
    tilted = cubic._replace(cell=cubic.cell + 1e-3 * np.eye(3)[[1, 2, 0]])
    assert fns.update(tilted, pairs).overflow
    cubic.cell[0, 0] = np.nan
    assert fns.update(cubic, pairs).overflow


def test_padding_atoms_add_nothing_and_feel_nothing():
    structure = systems.triclinic()
    padded = pad(structure, 7)
    padded.position[4:] = structure.position[0] + 0.1
    fns = pair_list(SILICON.cutoff, 0.5)
    expected = run(SILICON, structure, fns.allocate(structure))
    energy, force, virial = run(SILICON, padded, fns.allocate(padded))
    assert_close(energy, expected[0], 1e-13)
    assert_close(force[:4], expected[1], 1e-12)
    assert_close(virial, expected[2], 1e-12)
    assert (np.asarray(force[4:]) == 0).all()


def test_single_precision_is_kept_and_near():
    structure = crystal(rattle=0.2)
    fns = pair_list(ARGON.cutoff, 0.5)
    double = run(ARGON, structure, fns.allocate(structure))
    single = systems.single(structure)
    for a, b in zip(run(ARGON, single, fns.allocate(single)), double, strict=True):
        assert a.dtype == np.float32
        assert_close(a, b, 1e-5)


def test_systems_side_by_side_are_as_each_alone():
    batch = stack([systems.si8(), systems.slab()])
    fns = pair_list(SILICON.cutoff, 0.5)
    pairs = fns.allocate(batch)
    assert isinstance(pairs, AllPairs)
    together = jax.jit(jax.vmap(lambda s, p: computed(SILICON, s, p)))(batch, pairs)
    for number, system in enumerate(unstack(batch)):
        for a, b in zip(together, run(SILICON, system, fns.allocate(system)), strict=True):
            assert_close(a[number], b, 1e-12)


def test_a_position_that_is_not_a_number_shows():
    structure = crystal()
    pairs = pair_list(ARGON.cutoff, 0.5).allocate(structure)
    structure.position[3, 1] = np.nan
    assert np.isnan(evaluate.energy(ARGON, PARAMS, structure, pairs))
    assert np.isnan(evaluate.forces(ARGON, PARAMS, structure, pairs)).any()
