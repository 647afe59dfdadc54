"""Averages of long runs at constant pressure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import units
from jaxvae_md.potentials import potential
from jaxvae_md.simulate import npt_langevin, run
from tests import systems
from tests.statistical.averages import assert_mean

pytestmark = pytest.mark.statistical


def test_volume_of_an_ideal_gas():
    """Its density in V is V^N exp(-P V / kT)."""
    num, kelvin, pressure = 8, 300.0, 0.001
    scale = units.BOLTZMANN * kelvin / (pressure * units.GIGAPASCAL)
    length = (num * scale) ** (1 / 3)
    start = np.random.default_rng(0).uniform(0, length, (num, 3))
    gas = potential(("Ar",), 0.5, lambda key: {}, lambda p, s, n: 0.0 * jnp.sum(s.position))
    simulator = npt_langevin(
        gas,
        dt=5.0,
        temperature=kelvin,
        pressure=pressure,
        friction=0.002,
        compressibility=1 / pressure,
        skin=4.0,
    )
    trajectory = run(
        simulator,
        {},
        systems.make(start, length * np.eye(3)),
        jax.random.key(0),
        500_000,
        record_every=5,
        chunk=5000,
    )
    assert int(trajectory.error) == 0
    volume = np.linalg.det(trajectory.cell) / scale
    assert_mean(volume, num + 1, 0.015)
    assert_mean((volume - (num + 1)) ** 2, num + 1, 0.04)
    assert_mean(trajectory.temperature, kelvin, 0.01)
