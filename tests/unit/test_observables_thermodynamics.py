from functools import partial
from types import SimpleNamespace

import ase
import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import potentials, simulate, units
from jaxvae_md.errors import GeometryError, InputError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import kinetic_energy, pressure, stress, temperature
from jaxvae_md.potentials import potential
from tests import systems
from tests.argon import ARGON, CUTOFF, MASS, PARAMS, crystal
from tests.asserts import assert_close

NOTHING = potential(("Ar",), 1.0, lambda key: {}, lambda p, s, n: 0.0 * jnp.sum(s.position))


def moving(structure, seed=0):
    """Momenta and masses, of two kinds, for a structure; and the same in ASE."""
    rng = np.random.default_rng(seed)
    momentum = rng.normal(size=structure.position.shape)
    mass = np.where(np.arange(len(momentum)) % 2, 28.0, 16.0)
    atoms = ase.Atoms(
        positions=structure.position, cell=structure.cell, pbc=True, masses=mass, momenta=momentum
    )
    return momentum, mass, atoms


def test_kinetic_energy_and_temperature_are_those_of_ase():
    momentum, mass, atoms = moving(crystal())
    assert_close(kinetic_energy(momentum, mass), atoms.get_kinetic_energy(), 1e-12)
    expected = atoms.get_temperature() * ase.units.kB / units.BOLTZMANN
    assert_close(temperature(momentum, mass, 0), expected, 1e-12)
    assert_close(temperature(momentum, mass, 3), expected * 96 / 93, 1e-12)


def test_temperature_is_that_of_the_simulator():
    momentum, mass, _ = moving(crystal())
    state = simulate.State(SimpleNamespace(momentum=momentum, mass=mass[:, None]), crystal(), None)
    for num_conserved in (0, 3):
        expected = simulate.temperature(state, num_conserved)
        assert_close(temperature(momentum, mass, num_conserved), expected, 1e-12)


def test_frames_have_a_temperature_each():
    momentum = np.random.default_rng(0).normal(size=(5, 2, 7, 3))
    mass = np.arange(1.0, 8.0)
    each = temperature(momentum, mass)
    assert each.shape == (5, 2)
    assert_close(each[3, 1], temperature(momentum[3, 1], mass), 1e-12)


def test_an_ideal_gas_has_the_pressure_of_its_law():
    gas = systems.make(np.random.default_rng(0).uniform(0, 10, (50, 3)), 10.0 * np.eye(3))
    neighbors = neighbor_list(1.0).allocate(gas)
    momentum, mass, _ = moving(gas)
    kT = units.BOLTZMANN * temperature(momentum, mass, num_conserved=0)
    assert_close(pressure(NOTHING, {}, gas, neighbors, momentum, mass), 50 * kT / 1e3, 1e-12)


def test_the_kinetic_part_of_stress_is_that_of_ase():
    structure = crystal((1, 1, 1), rattle=0.1)
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    momentum, mass, atoms = moving(structure)
    state = PARAMS, structure, neighbors
    static = jax.jit(partial(potentials.stress, ARGON.energy))(*state)
    assert_close(jax.jit(partial(stress, ARGON))(*state), static, 1e-12)
    expected = atoms.get_kinetic_stress(voigt=False)
    whole = jax.jit(partial(stress, ARGON))(*state, momentum, mass)
    assert_close(whole - static, expected, 1e-10)
    p = jax.jit(partial(pressure, ARGON))(*state, momentum, mass)
    assert_close(p, -np.trace(whole) / 3, 1e-12)


def test_pressure_is_the_slope_of_energy_by_volume():
    structure = crystal((1, 1, 1), rattle=0.1)
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    volume = 5.3**3

    @jax.jit
    def energy(ratio):
        s = jnp.cbrt(ratio)
        scaled = structure._replace(position=s * structure.position, cell=s * structure.cell)
        return ARGON.energy(PARAMS, scaled, neighbors)

    step = 1e-5
    slope = (energy(1 + step) - energy(1 - step)) / (2 * step * volume)
    assert abs(slope) > 1e-4
    assert_close(jax.jit(partial(pressure, ARGON))(PARAMS, structure, neighbors), -slope, 1e-7)


def test_many_states_by_vmap_under_jit_in_single_precision():
    dtype = np.float32
    structure = crystal((1, 1, 1), rattle=0.1)
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    params = jax.tree.map(lambda a: a.astype(dtype), PARAMS)
    momentum = np.stack([moving(structure, seed)[0] for seed in range(3)]).astype(dtype)
    position = np.stack([crystal((1, 1, 1), 0.05 * k).position for k in range(3)]).astype(dtype)
    structure = structure._replace(cell=structure.cell.astype(dtype))
    mass = np.full(4, MASS, dtype)

    def of_state(x, p):
        moved = structure._replace(position=x)
        return pressure(ARGON, params, moved, neighbors, p, mass)

    together = jax.jit(jax.vmap(of_state))(position, momentum)
    assert together.dtype == dtype
    moved = crystal((1, 1, 1), 0.1)
    of_one = jax.jit(partial(pressure, ARGON, PARAMS))
    alone = of_one(moved, neighbors, np.float64(momentum[2]), mass)
    assert_close(together[2], alone, 1e-4)


def test_what_cannot_be_is_refused():
    structure = crystal((1, 1, 1))
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    state = ARGON, PARAMS, structure, neighbors
    momentum, mass, _ = moving(structure)
    with pytest.raises(GeometryError, match=r"periodic(.|\n)*remedy"):
        pressure(ARGON, PARAMS, structure._replace(pbc=np.array([True, True, False])), neighbors)
    slab = jax.tree.map(jnp.asarray, structure._replace(pbc=np.array([True, True, False])))
    with pytest.raises(GeometryError, match="periodic"):
        jax.jit(lambda x: pressure(ARGON, PARAMS, slab._replace(position=x), neighbors))(
            slab.position
        )
    with pytest.raises(InputError, match="both"):
        stress(*state, momentum)
    with pytest.raises(InputError, match="momentum has the shape"):
        stress(*state, np.stack([momentum] * 2), mass)
    with pytest.raises(InputError, match=r"mass has the shape \(4, 1\) for 4 atoms"):
        kinetic_energy(momentum, mass[:, None])
    with pytest.raises(InputError, match="momentum has the shape"):
        temperature(momentum.T, mass)
