import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.errors import InputError, OptionError, SpeciesError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import radial_distribution
from jaxvae_md.structure import pad
from tests import systems
from tests.argon import crystal
from tests.asserts import assert_close, assert_gradient

R = np.linspace(2.5, 8.5, 1201)
WIDTH = 0.05


compiled = jax.jit(radial_distribution, static_argnames="pair")


def rdf(structure, r=R, width=WIDTH, pair=None):
    neighbors = neighbor_list(r[-1] + 5 * width).allocate(structure)
    return np.asarray(compiled(structure, neighbors, r, width, pair=pair))


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


def test_partial_functions_add_up_to_the_whole():
    structure = systems.sio2()
    fraction = np.bincount(structure.species) / len(structure.species)
    parts = {(a, b): rdf(structure, pair=(a, b)) for a in (0, 1) for b in (0, 1)}
    assert_close(
        sum(fraction[a] * fraction[b] * g for (a, b), g in parts.items()), rdf(structure), 1e-12
    )
    assert_close(parts[0, 1], parts[1, 0], 1e-12)


def test_rock_salt_has_six_neighbors_of_the_other_kind():
    structure = systems.make(2.8 * np.array(list(np.ndindex(2, 2, 2))), 5.6 * np.eye(3))
    structure = structure._replace(species=np.array([0, 1, 1, 0, 1, 0, 0, 1]))
    r = np.linspace(2.4, 3.2, 201)
    density = 4 / 5.6**3
    around = 4 * np.pi * r**2 * density
    assert_close(np.trapezoid(around * rdf(structure, r, 0.05, (0, 1)), r), 6.0, 1e-3)
    assert rdf(structure, r, 0.05, (0, 0)).max() < 1e-10


def test_the_precision_is_that_of_the_structure():
    structure = systems.si8()
    single = rdf(systems.single(structure))
    assert single.dtype == np.float32
    assert_close(single, rdf(structure), 1e-4)


def test_many_structures_by_vmap():
    fns = neighbor_list(6.0)
    few = [systems.si8(rattle) for rattle in (0.0, 0.1)]
    lists = [fns.allocate(s, capacity=64) for s in few]
    r = np.linspace(2.0, 5.0, 13)
    structures, neighbors = (jax.tree.map(lambda *a: np.stack(a), *many) for many in (few, lists))
    together = jax.jit(jax.vmap(lambda s, n: radial_distribution(s, n, r)))(structures, neighbors)
    for one, *given in zip(together, few, lists, strict=True):
        assert_close(one, compiled(*given, r), 1e-12)


@pytest.mark.parametrize("traced", ["position", "nothing"])
def test_arrays_of_jax_that_a_jitted_function_closes_over_are_checked(traced):
    structure = jax.tree.map(jnp.asarray, systems.sio2())
    neighbors = jax.tree.map(jnp.asarray, neighbor_list(4.0).allocate(systems.sio2()))
    r, zero, far = (jnp.linspace(*ends, 5) for ends in ((1.0, 3.0), (0.0, 2.0), (1.0, 7.0)))

    def of(position, r):
        moved = structure if traced == "nothing" else structure._replace(position=position)
        return radial_distribution(moved, neighbors, r, pair=(0, 1))

    expected = compiled(structure, neighbors, r, pair=(0, 1))
    assert_close(jax.jit(lambda x: of(x, r))(structure.position), expected, 1e-12)
    with pytest.raises(OptionError, match="r goes from 0"):
        jax.jit(lambda x: of(x, zero))(structure.position)
    if traced == "nothing":
        with pytest.raises(OptionError, match="pairs within 7"):
            jax.jit(lambda x: of(x, far))(structure.position)


def test_what_cannot_be_is_refused():
    structure = systems.sio2()
    neighbors = neighbor_list(4.0).allocate(structure)
    r = np.linspace(1.0, 3.0, 5)
    with pytest.raises(OptionError, match=r"pairs within 6 angstrom(.|\n)*larger cutoff"):
        radial_distribution(structure, neighbors, np.linspace(1.0, 6.0, 5))
    with pytest.raises(OptionError, match="r goes from 0"):
        radial_distribution(structure, neighbors, r - 1.0)
    with pytest.raises(OptionError, match="width"):
        radial_distribution(structure, neighbors, r, width=0.0)
    with pytest.raises(SpeciesError, match="species 2"):
        radial_distribution(structure, neighbors, r, pair=(0, 2))
    with pytest.raises(OptionError, match="not 2 species"):
        radial_distribution(structure, neighbors, r, pair=(0, 1, 1))
    with pytest.raises(InputError, match=r"vmap"):
        jax.jit(radial_distribution)(structure._replace(position=np.zeros((2, 9, 3))), neighbors, r)
