"""Derivatives of the soft observables in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import (
    angular_distribution,
    diffusion_coefficient,
    elastic_constants,
    green_kubo_diffusion,
    pressure,
    radial_distribution,
    stress,
    temperature,
    velocity_autocorrelation,
)
from jaxvae_md.potentials import lennard_jones
from tests import systems
from tests.argon import ARGON, CUTOFF, PARAMS, crystal
from tests.asserts import assert_gradient


def weighted(f, seed=0):
    """A scalar of an array: its sum with arbitrary weights."""
    return lambda at: jnp.sum(f(at) * np.random.default_rng(seed).normal(size=f(at).shape))


def test_partial_radial_distribution_by_position_and_cell():
    structure = systems.sio2()
    neighbors = neighbor_list(5.0).allocate(structure, extra=1.2)
    r = np.linspace(1.4, 4.0, 9)

    def f(at):
        return radial_distribution(structure._replace(**at), neighbors, r, 0.15, (0, 1))

    assert_gradient(weighted(f), {"position": structure.position, "cell": structure.cell})


def test_angular_distribution_by_position_and_cell():
    structure = systems.sio2()
    neighbors = neighbor_list(3.4).allocate(structure, extra=1.2)
    theta = np.linspace(0, np.pi, 9)

    def f(at):
        moved = structure._replace(**at)
        return angular_distribution(moved, neighbors, theta, 3.4, 0.3, (1, 0, 1))

    assert_gradient(weighted(f), {"position": structure.position, "cell": structure.cell})


def test_stress_and_pressure_by_everything():
    structure = crystal((1, 1, 1), rattle=0.1)
    neighbors = neighbor_list(CUTOFF).allocate(structure, extra=1.2)
    rng = np.random.default_rng(0)

    def f(at):
        moved = structure._replace(position=at["position"], cell=at["cell"])
        state = ARGON, at["params"], moved, neighbors, at["momentum"], at["mass"]
        return jnp.append(stress(*state).ravel(), pressure(*state))

    at = {
        "position": structure.position,
        "cell": structure.cell,
        "params": PARAMS,
        "momentum": rng.normal(size=(4, 3)),
        "mass": rng.uniform(1, 2, 4),
    }
    assert_gradient(weighted(f), at, max_directions=3)


def test_transport_by_positions_and_momenta():
    position = np.random.default_rng(0).normal(size=(12, 3, 3))
    mass = np.array([1.0, 2.0, 3.0])
    options = {"remove_drift": True, "atoms": np.array([True, True, False])}

    def f(at):
        einstein = diffusion_coefficient(at["position"], 1.0, (2.0, 6.0), mass=mass, **options)
        kubo = green_kubo_diffusion(at["momentum"], mass, 1.0, 5.0, **options)
        vacf = velocity_autocorrelation(at["momentum"], mass)
        kelvin = temperature(at["momentum"], mass)
        return jnp.concatenate([jnp.array([*einstein, *kubo]), vacf, 1e-5 * kelvin])

    momentum = np.random.default_rng(1).normal(size=(12, 3, 3))
    assert_gradient(weighted(f), {"position": position, "momentum": momentum})


@pytest.mark.slow
def test_elastic_constants_by_parameters_position_and_cell():
    # of two kinds and off its sites, so that a strain moves the atoms within the cell
    structure = systems.make(
        [[0, 0, 0], [1.9, 1.8, 2.0]], 3.8 * np.eye(3), species=[0, 1], rattle=0.02
    )
    sigma, epsilon = np.array([[3.4, 3.2], [3.2, 3.1]]), np.array([[1.0, 1.3], [1.3, 0.6]])
    potential = lennard_jones(("Ar", "Ne"), 5.0, sigma, epsilon)
    neighbors = neighbor_list(5.0).allocate(structure)

    def f(at):
        moved = structure._replace(position=at["position"], cell=at["cell"])
        return elastic_constants(potential, at["params"], moved, neighbors)

    at = {
        "params": potential.init(None),
        "position": structure.position,
        "cell": structure.cell,
    }
    assert_gradient(weighted(f), at, max_directions=4)
