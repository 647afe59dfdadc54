import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import radial_distribution
from jaxvae_md.structure import pad
from tests import systems
from tests.argon import crystal
from tests.asserts import assert_close, assert_gradient

R = np.linspace(2.5, 8.5, 1201)
WIDTH = 0.05


def rdf(structure, r=R, width=WIDTH):
    neighbors = neighbor_list(r[-1] + 5 * width).allocate(structure)
    return np.asarray(jax.jit(radial_distribution)(structure, neighbors, r, width))


def test_a_crystal_has_its_shells_and_their_coordination():
    structure = crystal()
    g = rdf(structure)
    density = 32 / np.linalg.det(structure.cell)
    for distance, count in ((1, 12), (2**0.5, 6), (3**0.5, 24), (2, 12)):
        distance = 5.3 / 2**0.5 * distance
        inside = np.abs(R - distance) < 5 * WIDTH
        assert abs(R[inside][np.argmax(g[inside])] - distance) < 0.01
        around = 4 * np.pi * R**2 * density * g
        assert_close(np.trapezoid(around[inside], R[inside]), float(count), 1e-4)
    between = np.abs(R - 4.5) < 0.2
    assert g[between].max() < 1e-6 * g.max()


def test_an_ideal_gas_has_one_everywhere():
    rng = np.random.default_rng(0)
    gas = systems.make(rng.uniform(0, 20, (1000, 3)), 20.0 * np.eye(3))
    g = rdf(gas, np.linspace(2.0, 6.0, 41), 0.1)
    assert abs(g.mean() - 1) < 0.01
    assert np.abs(g - 1).max() < 0.15


def test_a_skewed_cell_has_the_same_function_as_a_straight_one():
    straight = crystal()
    skew = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ straight.cell
    assert_close(rdf(straight._replace(cell=skew)), rdf(straight), 1e-10)


def test_a_supercell_has_the_function_of_its_cell():
    small = systems.si8()
    assert_close(rdf(systems.repeated(small, (2, 1, 2))), rdf(small), 1e-10)


def test_padding_counts_for_nothing():
    structure = systems.si8()
    assert_close(rdf(pad(structure, 11)), rdf(structure), 1e-12)


@pytest.mark.parametrize("of", ["position", "cell"])
def test_function_by_positions_and_cell(of):
    structure = systems.si8()
    neighbors = neighbor_list(6.0).allocate(structure, extra=1.2)
    r = np.linspace(2.0, 5.0, 13)
    weights = np.random.default_rng(0).normal(size=13)

    def loss(value):
        changed = structure._replace(**{of: value})
        return jnp.sum(weights * radial_distribution(changed, neighbors, r, 0.15))

    assert_gradient(loss, getattr(structure, of))
