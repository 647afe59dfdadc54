import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, neighbor_list
from jaxvae_md.pair_list import pair_list
from jaxvae_md.potentials import (
    energy_and_forces,
    evaluate,
    lennard_jones,
    pair_energy,
    stress,
)
from jaxvae_md.potentials.lennard_jones import tail_correction
from jaxvae_md.structure import pad
from tests import oracles, systems
from tests.asserts import assert_close, assert_gradient

SIGMA, EPSILON, CUTOFF = 3.4, 0.8, 8.0
SCHEMES = ("cut", "shift", "force_shift", "switch")

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
def test_all_schemes_but_cut_are_continuous_at_the_cutoff(scheme):
    of_distance = jax.value_and_grad(lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, scheme))
    of = jax.jit(jax.vmap(of_distance))
    (below, at, beyond, far), slope = map(
        np.asarray, of(jnp.array([CUTOFF - 1e-9, CUTOFF, CUTOFF + 1e-9, FAR]))
    )
    assert at == beyond == far == 0
    assert (slope[1:] == 0).all()
    assert (abs(below) < 1e-10) == (scheme != "cut")
    assert (abs(slope[0]) < 1e-10) == (scheme in ("force_shift", "switch"))


@pytest.mark.parametrize("onset", [None, 4.5])
def test_switched_energy_has_two_continuous_derivatives(onset):
    phi = lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, "switch", onset)
    plain = lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, "cut")
    orders = lambda f: lambda r: (f(r), jax.grad(f)(r), jax.grad(jax.grad(f))(r))
    start = onset or 0.8 * CUTOFF
    r = jnp.array([0.9 * start, start - 1e-7, start + 1e-7, CUTOFF - 1e-7, CUTOFF + 1e-7])
    switched, cut = (np.stack(jax.jit(jax.vmap(orders(f)))(r)) for f in (phi, plain))
    scale = np.abs(cut[:, 1])
    assert_close(switched[:, :2] / scale[:, None], cut[:, :2] / scale[:, None], 1e-13)
    # the third derivative jumps
    assert_close(switched[:, 2] / scale, cut[:, 2] / scale, 1e-5)
    assert (np.abs(switched[:, 3]) < 1e-5 * scale).all()
    assert (switched[:, 4] == 0).all()
    # not plain to the cutoff: the middle of x, which is half way in r squared
    middle = np.sqrt(0.5 * (start**2 + CUTOFF**2))
    assert_close(phi(middle), 0.5 * plain(middle), 1e-13)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weight_of_a_pair_is_minus_the_slope_over_the_distance(scheme):
    lj = lennard_jones(("Ar",), CUTOFF, SIGMA, EPSILON, scheme)
    coefficients = {name: t[0, 0] for name, t in lj.radial.tables(lj.init(None)).items()}
    r = jnp.array([2.9, 3.8, 6.3, 6.5, 7.99])
    energy, weight = jax.jit(lj.radial.pair)(r**2, coefficients)
    phi = lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, scheme)
    assert_close(energy, phi(r), 1e-13)
    scale = EPSILON * SIGMA**6 / r**8
    assert_close(weight, -jax.vmap(jax.grad(phi))(r) / r, 1e-11, scale)
    assert (weight != 0).all()


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


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_distance_that_is_not_a_number_shows(scheme):
    phi = lambda r: pair_energy(r, SIGMA, EPSILON, CUTOFF, scheme)
    assert np.isnan(phi(jnp.nan))
    assert np.isnan(jax.grad(phi)(jnp.nan))


def test_one_number_a_species_is_mixed_by_lorentz_and_berthelot():
    params = lennard_jones(("Ar", "Ne"), 5.0, [3.4, 2.8], [0.9, 0.4]).init(None)
    assert_close(params["sigma"], np.array([[3.4, 3.1], [3.1, 2.8]]), 1e-15)
    assert_close(params["epsilon"], np.array([[0.9, 0.6], [0.6, 0.4]]), 1e-15)


def test_a_table_of_pairs_is_not_mixed_where_the_other_is():
    params = lennard_jones(("Ar", "Ne"), 5.0, [3.4, 2.8], [[0.9, 0.1], [0.1, 0.4]]).init(None)
    assert_close(params["sigma"][0, 1], 3.1, 1e-15)
    assert_close(params["epsilon"][0, 1], 0.1, 0)
    alone = lennard_jones(("Ar",), 5.0, [3.4], [[0.9]]).init(None)
    assert (alone["sigma"], alone["epsilon"]) == (3.4, 0.9)


def test_onset_is_four_fifths_of_the_cutoff_where_none_is_given():
    r = np.linspace(3.2, 7.9, 48)
    given, default, other = (
        pair_energy(r, SIGMA, EPSILON, CUTOFF, "switch", onset) for onset in (6.4, None, 6.0)
    )
    assert_close(default, given, 1e-14)
    assert (given != other).any()
    structure = systems.dimer(6.9)
    neighbors = neighbor_list(CUTOFF).allocate(structure)
    for onset, expected in ((None, 6.4), (6.0, 6.0)):
        lj = lennard_jones(("Ar",), CUTOFF, SIGMA, EPSILON, "switch", onset)
        phi = pair_energy(6.9, SIGMA, EPSILON, CUTOFF, "switch", expected)
        assert_close(lj.energy(lj.init(None), structure, neighbors), phi, 1e-13)


# derivatives of what is summed over pairs: over all of few atoms, for a list has none


@pytest.mark.parametrize(
    "options", [{"scheme": "switch"}, {"scheme": "cut", "tail": True}], ids=["switch", "tail"]
)
def test_forces_and_virial_are_slopes_of_the_energy_summed_over_pairs(options):
    structure = binary()
    lj = lennard_jones(("Ar", "Ne"), 5.0, **options)
    pairs = pair_list(5.0, 0.5).allocate(structure)
    assert isinstance(pairs, AllPairs)

    @jax.jit
    def of(at):
        scale = 1 + at["strain"]
        position = scale * (structure.position + at["step"])
        scaled = structure._replace(position=position, cell=scale * structure.cell)
        return evaluate.energy(lj, at["params"], scaled, pairs)

    at = {"step": jnp.zeros((16, 3)), "params": MIXED, "strain": jnp.zeros(())}
    # by the volume the tail is defined to be the pressure's: not the slope of its energy
    fixed = {"strain": at.pop("strain")} if "tail" in options else {}
    assert_gradient(lambda free: of(free | fixed), at, max_directions=4)
    slope = jax.jit(jax.grad(of))(at | fixed)
    state = lj, MIXED, structure, pairs
    force, virial = jax.jit(evaluate.forces_and_virial, static_argnums=0)(*state)
    assert_close(force, -slope["step"], 1e-11)
    assert_close(virial, -slope["strain"], 1e-11)
    by_list = jax.jit(jax.grad(lj.energy))(MIXED, structure, neighbor_list(5.0).allocate(structure))
    for name in MIXED:
        assert_close(slope["params"][name], by_list[name], 1e-11)


# tail corrections

MIXED = {
    "sigma": jnp.array([[3.4, 3.1], [3.1, 2.8]]),
    "epsilon": jnp.array([[1.0, 1.3], [1.3, 0.6]]),
}
TAIL = lennard_jones(("Ar", "Ne"), 5.0, scheme="cut", tail=True)
CUT = lennard_jones(("Ar", "Ne"), 5.0, scheme="cut")


def binary():
    """Sixteen atoms of two species, five of the second, in a cell that is not cubic."""
    structure = systems.repeated(systems.fcc(), (2, 1, 2))
    sheared = np.eye(3) + np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.05, 0.0, -0.1]])
    return structure._replace(
        position=structure.position @ sheared,
        cell=structure.cell @ sheared,
        species=(np.arange(16) % 3 == 1).astype(np.int32),
    )


def quadrature(structure, cutoff: float) -> tuple[float, float]:
    """Energy and pressure of all pairs beyond the cutoff, the density being uniform there."""
    x, weight = np.polynomial.legendre.leggauss(20)
    # r = cutoff / x for x from 0 to 1, dr = cutoff / x^2 dx
    x, weight = 0.5 * (x + 1), 0.5 * weight
    r = cutoff / x
    measure = weight * cutoff / x**2 * 4 * np.pi * r**2
    volume = abs(np.linalg.det(structure.cell))
    species = structure.species[structure.mask]
    energy = pressure = 0.0
    for a in range(2):
        for b in range(2):
            pairs = np.sum(species == a) * np.sum(species == b) / volume
            sigma, epsilon = float(MIXED["sigma"][a, b]), float(MIXED["epsilon"][a, b])
            u = 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
            r_times_slope = 4 * epsilon * (-12 * (sigma / r) ** 12 + 6 * (sigma / r) ** 6)
            energy += 0.5 * pairs * np.sum(measure * u)
            pressure += -pairs / volume / 6 * np.sum(measure * r_times_slope)
    return energy, pressure


@pytest.mark.parametrize("cutoff", [3.0, 8.5])
def test_tail_correction_is_the_integral_beyond_the_cutoff(cutoff):
    structure = binary()
    for mine, exact in zip(
        tail_correction(MIXED, pad(structure, 20), cutoff),
        quadrature(structure, cutoff),
        strict=True,
    ):
        assert_close(mine, exact, 1e-12)


def test_tail_adds_its_energy_and_takes_its_pressure_from_the_stress():
    structure = binary()
    neighbors = neighbor_list(5.0).allocate(structure)

    @jax.jit
    def run(structure, neighbors):
        out = []
        for lj in (TAIL, CUT):
            state = MIXED, structure, neighbors
            energy, forces = energy_and_forces(lj.energy, *state)
            virial = evaluate.forces_and_virial(lj, *state)[1]
            out.append((energy, forces, stress(lj.energy, *state), virial))
        return out

    (energy, forces, tensor, virial), cut = run(structure, neighbors)
    extra, pressure = quadrature(structure, 5.0)
    assert abs(extra / cut[0]) > 1e-3
    assert_close(energy - cut[0], extra, 1e-11)
    assert_close(tensor - cut[2], -pressure * np.eye(3), 1e-11)
    assert_close(virial - cut[3], 3 * pressure * np.linalg.det(structure.cell), 1e-11)
    assert_close(forces, cut[1], 0)


def test_nothing_is_beyond_the_cutoff_where_a_direction_is_not_periodic():
    slab = binary()._replace(pbc=np.array([True, True, False]))
    assert tail_correction(MIXED, slab, 5.0) == (0, 0)


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
        ({"cutoff": 1e3}, "cutoff is 1000.0"),
        ({"onset": 4.0}, "onset is 4.0 with scheme 'force_shift'.*"),
        ({"scheme": "switch", "onset": 5.0}, "onset is 5.0 .* cutoff 5.0"),
        ({"scheme": "switch", "onset": 0.0}, "onset is 0.0.*"),
        ({"scheme": "switch", "onset": -1.0}, "onset is -1.0.*"),
        ({"scheme": "switch", "onset": float("nan")}, "onset is nan.*"),
        ({"scheme": "cut", "onset": 4.0}, "onset is 4.0 with scheme 'cut'.*"),
        ({"scheme": "switch", "tail": True}, "tail is given with scheme 'switch'"),
        ({"scheme": "shift", "tail": True}, "tail is given with scheme 'shift'"),
        ({"tail": True}, "tail is given with scheme 'force_shift'"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(changed, words):
    with pytest.raises(OptionError, match=f"{words}\n  remedy: "):
        lennard_jones(**{"species": ("Ar", "Ne"), "cutoff": 5.0} | changed)
