"""Averages of long runs with a chain of thermostats."""

import jax
import pytest

from jaxvae_md.simulate import nvt_nose_hoover, run
from tests.argon import ARGON, PARAMS, crystal
from tests.statistical.averages import assert_mean

pytestmark = pytest.mark.statistical


def test_kinetic_temperature_and_its_fluctuation():
    """Twice the kinetic energy over kT has the mean f and the variance 2 f, f = 3 n - 3."""
    kelvin, structure = 30.0, crystal(rattle=0.05)
    simulator = nvt_nose_hoover(ARGON, dt=5.0, temperature=kelvin, thermostat_time=200.0)
    trajectory = run(
        simulator,
        PARAMS,
        structure,
        jax.random.key(0),
        100_000,
        initial_temperature=2 * kelvin,
        record_every=5,
        chunk=5000,
    )
    assert int(trajectory.error) == 0
    freedom = 3 * len(structure.position) - 3
    assert_mean(trajectory.temperature, kelvin, 0.01)
    fluctuation = freedom * (trajectory.temperature / kelvin - 1) ** 2
    assert_mean(fluctuation, 2.0, 0.05)
