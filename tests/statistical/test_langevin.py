"""Averages of long runs at constant temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import units
from jaxvae_md.potentials import potential
from jaxvae_md.simulate import nvt_langevin, run
from tests import systems
from tests.argon import ARGON, MASS, PARAMS, crystal
from tests.statistical.averages import assert_mean

pytestmark = pytest.mark.statistical


@pytest.mark.parametrize("times", [(1, 1, 1), (2, 2, 2)], ids=["4 atoms", "32 atoms"])
def test_kinetic_temperature_of_a_crystal(times):
    kelvin = 30.0
    simulator = nvt_langevin(ARGON, dt=5.0, temperature=kelvin, friction=0.02)
    trajectory = run(
        simulator,
        PARAMS,
        crystal(times),
        jax.random.key(0),
        40000,
        initial_temperature=2 * kelvin,
        record_every=5,
        chunk=2000,
    )
    assert int(trajectory.error) == 0
    # friction and noise act on the centre too, and its motion must not count as heat
    assert_mean(trajectory.temperature, kelvin, 0.01)


SPRING = 2.0
"""eV / angstrom^2"""
SITES = 10.0 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3) + 5.0


def springs():
    """Every atom on a spring of its own."""

    def energy(params, structure, neighbors):
        return 0.5 * params["k"] * jnp.sum((structure.position - SITES) ** 2)

    return potential(("Ar",), 1.0, lambda key: {"k": jnp.asarray(SPRING)}, energy)


def test_equipartition_of_atoms_on_springs():
    kelvin, oscillators = 300.0, springs()
    structure = systems.make(SITES, 30.0 * np.eye(3))
    period = 2 * np.pi * (MASS / SPRING) ** 0.5 / units.FEMTOSECOND
    simulator = nvt_langevin(
        oscillators, dt=period / 40, temperature=kelvin, friction=2 / period, skin=5.0
    )
    trajectory = run(
        simulator,
        oscillators.init(None),
        structure,
        jax.random.key(1),
        20000,
        initial_temperature=kelvin,
        record_every=5,
        chunk=2000,
    )
    assert int(trajectory.error) == 0
    square = np.mean((trajectory.position - SITES) ** 2, axis=(1, 2))
    assert_mean(square, units.BOLTZMANN * kelvin / SPRING, 0.02)
    energy = trajectory.potential_energy / SITES.size
    assert_mean(energy, 0.5 * units.BOLTZMANN * kelvin, 0.02)
    assert_mean(trajectory.temperature, kelvin, 0.02)
