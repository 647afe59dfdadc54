"""Committees: mean, spread, and one fit that is that of each member."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ase.build import bulk

from jaxvae_md import datasets, fit
from jaxvae_md.batching import batches
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import chebyshev_nn, committee, energy_and_forces, lennard_jones
from jaxvae_md.structure import from_atoms
from tests import systems
from tests.asserts import assert_close


@pytest.fixture(scope="module")
def frames():
    return datasets.silicon()[::30]


@pytest.fixture(scope="module")
def network(frames):
    descriptor = chebyshev(("Si",), 4.5, 3, 4.5, 3)
    scale = fit_standardizer(np.concatenate(describe(frames, descriptor)))
    return chebyshev_nn(descriptor, scale, hidden=(8,))


def member(params, number):
    return jax.tree.map(lambda leaf: leaf[number], params)


def test_energy_and_spread_are_those_of_the_members(network):
    group = committee(network, 3)
    params = group.mean.init(jax.random.key(0))
    structure = systems.si8()
    neighbors = neighbor_list(network.cutoff).allocate(structure)
    each = [
        energy_and_forces(network.energy, member(params, k), structure, neighbors) for k in range(3)
    ]
    energies, forces = (np.stack(parts) for parts in zip(*each, strict=True))
    assert np.std(energies) > 0
    assert_close(group.mean.energy(params, structure, neighbors), energies.mean(), 1e-6)
    spread = jax.jit(group.spread)(params, structure, neighbors)
    assert_close(spread.energy, energies.std(ddof=1), 1e-4)
    assert_close(spread.forces, np.sqrt(forces.var(axis=0, ddof=1).sum(axis=1)), 1e-4)


def test_members_that_agree_have_no_spread():
    argon = lennard_jones(("Ar",), 6.0)
    group = committee(argon, 2)
    params = group.mean.init(jax.random.key(0))
    structure = systems.fcc(2)
    neighbors = neighbor_list(argon.cutoff).allocate(structure)
    expected = argon.energy(argon.init(jax.random.key(0)), structure, neighbors)
    assert_close(group.mean.energy(params, structure, neighbors), expected, 1e-12)
    spread = group.spread(params, structure, neighbors)
    assert np.abs(spread.forces).max() < 1e-12 and abs(spread.energy) < 1e-12


def test_one_fit_trains_each_member_as_a_fit_of_its_own(frames, network):
    group = committee(network, 2)
    structures = [from_atoms(atoms, ("Si",)) for atoms in frames]
    energy = np.array([atoms.get_potential_energy() for atoms in frames])
    energy = energy - energy.mean()
    forces = [atoms.get_forces() for atoms in frames]
    data = batches(structures, network.cutoff)
    start = group.mean.init(jax.random.key(1))
    options = {"key": jax.random.key(2), "num_steps": 6, "optimiser": optax.sgd(1e-3)}
    both = fit.force_matching(
        group.members, start, fit.prepare(group.members, data, energy, forces), **options
    ).params
    prepared = fit.prepare(network, data, energy, forces)
    for number in range(2):
        alone = fit.force_matching(network, member(start, number), prepared, **options).params
        change = jax.tree.map(jnp.subtract, alone, member(start, number))
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(change)) > 1e-4
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-4, 1.0), member(both, number), alone)


def test_one_member_is_no_committee(network):
    with pytest.raises(OptionError, match="committee of 1"):
        committee(network, 1)


@pytest.mark.parametrize("num", [40, 150])
def test_a_committee_evaluates_descriptors_once_and_is_the_mean(network, num):
    """In one chunk of environments, and in several of which the last is not full."""
    times = {40: (2, 2, 5), 150: (3, 5, 5)}[num]
    structure = from_atoms(bulk("Si") * times, ("Si",))
    assert len(structure.mask) == num
    noise = np.random.default_rng(0).normal(0, 0.1, structure.position.shape)
    structure = structure._replace(position=structure.position + noise)
    neighbors = neighbor_list(network.cutoff).allocate(structure)
    group = committee(network, 3)
    params = group.mean.init(jax.random.key(1))
    assert group.mean.atomic.descriptor is network.atomic.descriptor
    find = jax.jit(lambda p, f: energy_and_forces(f, p, structure, neighbors), static_argnums=1)
    energy, forces = find(params, group.mean.energy)
    each = [find(member(params, k), network.energy) for k in range(3)]
    assert_close(energy, np.mean([e for e, _ in each]), 1e-6)
    assert_close(forces, np.mean([f for _, f in each], axis=0), 1e-5)
