import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, neighbor_list
from jaxvae_md.potentials import energy_and_forces, lennard_jones, pair_energy
from tests import oracles, systems
from tests.asserts import assert_close

SIGMA, EPSILON, CUTOFF = 3.4, 0.8, 8.0
SCHEMES = ("cut", "shift", "force_shift")

computed = jax.jit(energy_and_forces, static_argnums=0)


def dimer_energy(
    r: float, scheme: str = "cut", epsilon: float = EPSILON
) -> tuple[float, np.ndarray]:
    lj = lennard_jones(("Ar",), CUTOFF, SIGMA, epsilon, scheme)
    structure = systems.dimer(r)
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    return computed(lj.energy, lj.init(None), structure, neighbors)


def test_minimum_is_at_the_sixth_root_of_two_sigma_and_epsilon_deep():
    energy, forces = dimer_energy(2 ** (1 / 6) * SIGMA)
    assert_close(energy, -EPSILON, 1e-13)
    assert_close(forces, np.zeros((2, 3)), 1e-13)
    for r in (1.1 * SIGMA, 1.14 * SIGMA):
        assert dimer_energy(r)[0] > -EPSILON


def test_energy_vanishes_at_sigma():
    assert_close(dimer_energy(SIGMA)[0], 0.0, 1e-13)


def test_atoms_repel_inside_the_minimum_and_attract_outside():
    axis = np.array([2, -1, 2]) / 3
    assert dimer_energy(SIGMA)[1][1] @ axis > 0
    assert dimer_energy(1.5 * SIGMA)[1][1] @ axis < 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_energy_and_forces_scale_with_epsilon(scheme):
    energy, forces = dimer_energy(3.9, scheme)
    twice, twice_forces = dimer_energy(3.9, scheme, 2 * EPSILON)
    assert_close(twice, 2 * energy, 1e-14)
    assert_close(twice_forces, 2 * forces, 1e-14)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_the_shifted_schemes_are_continuous_at_the_cutoff(scheme):
    of_distance = jax.value_and_grad(lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, scheme))
    of = jax.jit(jax.vmap(of_distance))
    (below, at, beyond, far), slope = map(
        np.asarray, of(jnp.array([CUTOFF - 1e-9, CUTOFF, CUTOFF + 1e-9, FAR]))
    )
    assert at == beyond == far == 0
    assert (slope[1:] == 0).all()
    assert (abs(below) < 1e-10) == (scheme != "cut")
    assert (abs(slope[0]) < 1e-10) == (scheme == "force_shift")


def test_species_pairs_take_their_own_parameters():
    sigma, epsilon = np.array([[3.4, 3.1], [3.1, 2.8]]), np.array([[1.0, 1.3], [1.3, 0.6]])
    structure = systems.fcc(2)
    lj = lennard_jones(("Ar", "Ne"), 5.0, sigma, epsilon, "cut")
    neighbors = neighbor_list(5.0).allocate(structure)
    expected = 0.0
    for i, j, _, vector in oracles.pairs(structure, 5.0):
        a, b = structure.species[i], structure.species[j]
        s = (sigma[a, b] / np.linalg.norm(vector)) ** 6
        expected += 0.5 * 4 * epsilon[a, b] * (s**2 - s)
    assert_close(computed(lj.energy, lj.init(None), structure, neighbors)[0], expected, 1e-13)


def test_tables_are_read_symmetrically():
    structure = systems.fcc(2)
    neighbors = neighbor_list(5.0).allocate(structure)
    lj = lennard_jones(("Ar", "Ne"), 5.0)
    upper = jnp.array([[3.4, 3.2], [3.0, 2.8]])
    params = lj.init(None)
    energies = [
        computed(lj.energy, params | {"sigma": table}, structure, neighbors)[0]
        for table in (upper, upper.T, 0.5 * (upper + upper.T))
    ]
    assert_close(energies[1], energies[0], 1e-14)
    assert_close(energies[2], energies[0], 1e-14)


def test_init_returns_the_given_values_as_tables():
    params = lennard_jones(("Ar", "Ne"), 5.0, SIGMA, [[1.0, 2.0], [2.0, 3.0]]).init(None)
    np.testing.assert_array_equal(params["sigma"], np.full((2, 2), SIGMA))
    np.testing.assert_array_equal(params["epsilon"], [[1, 2], [2, 3]])


def test_project_keeps_good_parameters_and_mends_the_others():
    lj = lennard_jones(("Ar", "Ne"), 5.0, SIGMA, EPSILON)
    good = lj.init(None)
    for name, table in lj.project(good).items():
        np.testing.assert_array_equal(table, good[name])
    bad = {
        "sigma": jnp.array([[-1.0, 0.0], [9.0, 3.0]]),
        "epsilon": jnp.array([[-1.0, 0.0], [2.0, 3.0]]),
    }
    mended = lj.project(bad)
    assert (mended["sigma"] > 0).all()
    assert (mended["sigma"] <= 5.0).all()
    assert (mended["epsilon"] > 0).all()
    assert mended["sigma"][1, 1] == 3.0
    np.testing.assert_array_equal(mended["epsilon"][1], [2, 3])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cutoff": 0.0}, "cutoff is 0.0"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"scheme": "smooth"}, "scheme is 'smooth'"),
        ({"sigma": np.ones((3, 3))}, r"sigma has shape \(3, 3\)"),
        ({"epsilon": np.ones(3)}, r"epsilon has shape \(3,\)"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(changed, words):
    with pytest.raises(OptionError, match=f"{words}\n  remedy: "):
        lennard_jones(**{"species": ("Ar", "Ne"), "cutoff": 5.0} | changed)
