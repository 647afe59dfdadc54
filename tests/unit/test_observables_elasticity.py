import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.eos import birchmurnaghan

from jaxvae_md import units
from jaxvae_md.errors import GeometryError, OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import elastic_constants, equation_of_state
from jaxvae_md.observables.equation_of_state import birch_murnaghan
from jaxvae_md.potentials import stillinger_weber, stress
from jaxvae_md.structure import pad
from tests import systems
from tests.argon import ARGON, CUTOFF, PARAMS, crystal
from tests.asserts import assert_close

SW = stillinger_weber()
SILICON = SW.init(None)
LATTICE = 5.43095
"""angstrom; Stillinger-Weber silicon without stress"""
FACES = 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])


def diamond(a=LATTICE):
    return systems.make([[0, 0, 0], [a / 4] * 3], a * FACES)


def constants(potential, params, structure, **options):
    neighbors = neighbor_list(potential.cutoff).allocate(structure, multiple=4)
    return np.asarray(elastic_constants(potential, params, structure, neighbors, **options))


def cubic(c):
    """C11, C12, C44, and that there is nothing else."""
    expected = np.zeros((6, 6))
    expected[:3, :3] = c[0, 1]
    expected[range(6), range(6)] = [c[0, 0]] * 3 + [c[3, 3]] * 3
    assert_close(c, expected, 1e-8)
    return np.array([c[0, 0], c[0, 1], c[3, 3]])


# Cowley, Phys. Rev. Lett. 60, 2379 (1988), for a cohesive energy of 4.336 eV; and the same for
# 4.63 eV, with the constant of clamped ions, as in matscipy's tests. All are linear in epsilon
@pytest.mark.parametrize(
    ("epsilon", "published", "unrelaxed"),
    [(2.1683, [151.4, 76.4, 56.4], None), (4.63 / 2, [161.6, 81.6, 60.3], 117.2)],
)
def test_silicon_has_the_published_constants(epsilon, published, unrelaxed):
    params = SILICON | {"epsilon": jnp.asarray(epsilon)}
    c = cubic(constants(SW, params, diamond())) / units.GIGAPASCAL
    np.testing.assert_allclose(c, published, atol=0.1)
    if unrelaxed is not None:
        clamped = cubic(constants(SW, params, diamond(), clamped=True)) / units.GIGAPASCAL
        np.testing.assert_allclose(clamped[2], unrelaxed, atol=0.1)
        # strains along the axes move no atom within the cell
        assert_close(clamped[:2], c[:2], 1e-10)


def test_a_supercell_and_padding_change_nothing():
    large = pad(systems.repeated(diamond(), (2, 1, 1)), 5)
    assert_close(constants(SW, SILICON, large), constants(SW, SILICON, diamond()), 1e-9)


def test_central_forces_obey_cauchy_and_agree_with_the_equation_of_state():
    whole = crystal((1, 1, 1))
    eos = equation_of_state(ARGON, PARAMS, whole, np.linspace(0.9, 1.1, 9))
    a = eos.volume_0 ** (1 / 3)
    eos = equation_of_state(ARGON, PARAMS, whole, np.linspace(0.985, 1.015, 7) * (a / 5.3) ** 3)
    a = eos.volume_0 ** (1 / 3)
    primitive = systems.make(np.zeros((1, 3)), a * FACES)
    c11, c12, c44 = cubic(constants(ARGON, PARAMS, primitive))
    assert_close(c12, c44, 1e-4)
    assert_close((c11 + 2 * c12) / 3, eos.bulk_modulus, 1e-3)


def test_under_pressure_central_forces_differ_from_cauchy_by_twice_the_pressure():
    squeezed = systems.make(np.zeros((1, 3)), 5.0 * FACES)
    neighbors = neighbor_list(CUTOFF).allocate(squeezed)
    c11, c12, c44 = cubic(constants(ARGON, PARAMS, squeezed))
    of = jax.jit(
        lambda ratio: -stress(ARGON.energy, PARAMS, scaled(squeezed, ratio), neighbors)[0, 0]
    )
    assert of(1.0) > 0.1 * c44
    assert_close(c12 - c44, 2 * of(1.0), 1e-8)
    step = 1e-4
    slope = (of(1 - step) - of(1 + step)) / (2 * step)
    assert_close((c11 + 2 * c12) / 3, slope, 1e-5)


def scaled(structure, ratio):
    s = ratio ** (1 / 3)
    return structure._replace(position=s * structure.position, cell=s * structure.cell)


@pytest.fixture(scope="module")
def stressed():
    """Four silicon atoms at rest in a skewed cell under a general stress, and how they came so."""
    start = systems.triclinic()
    neighbors = neighbor_list(SW.cutoff, skin=1.0).allocate(start)

    @jax.jit
    def derivatives(structure):
        energy = lambda x: SW.energy(SILICON, structure._replace(position=x), neighbors)
        return jax.grad(energy)(structure.position), jax.hessian(energy)(structure.position)

    def at_rest(structure):
        for _ in range(12):
            gradient, hessian = map(np.asarray, derivatives(structure))
            inverse = np.linalg.pinv(hessian.reshape(12, 12), rcond=1e-9)
            move = (inverse @ gradient.ravel()).reshape(4, 3)
            structure = structure._replace(position=structure.position - move)
        assert np.abs(gradient).max() < 1e-12
        return structure

    return at_rest(start), at_rest, neighbors


def test_constants_are_the_slope_of_stress_by_strain_under_any_stress(stressed):
    structure, at_rest, neighbors = stressed
    of = jax.jit(lambda s: stress(SW.energy, SILICON, s, neighbors))
    before = np.asarray(of(structure))
    # every component of the stress is there
    assert np.abs(before).min() > 1e-3
    found = np.asarray(elastic_constants(SW, SILICON, structure, neighbors))
    voigt = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    step = 1e-4
    for column, (k, m) in enumerate(voigt):
        values = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[k, m] += 0.5 * sign * step
            deformation[m, k] += 0.5 * sign * step
            strained = structure._replace(
                position=structure.position @ deformation, cell=structure.cell @ deformation
            )
            values.append(of(at_rest(strained)))
        slope = np.array([(values[0] - values[1])[i, j] for i, j in voigt]) / (2 * step)
        assert_close(found[:, column], slope, 1e-5, scale=np.abs(found).max())
    # what only symmetric formulas would have
    assert np.abs(found - found.T).max() > 1e-3 * np.abs(found).max()


def test_the_precision_is_that_of_the_structure():
    primitive = systems.make(np.zeros((1, 3)), 5.2 * FACES)
    params = jax.tree.map(np.float32, PARAMS)
    single = constants(ARGON, params, systems.single(primitive))
    assert single.dtype == np.float32
    assert_close(single, constants(ARGON, PARAMS, primitive), 1e-4)


def test_atoms_at_no_minimum_have_no_constants():
    params = SILICON | {"epsilon": -SILICON["epsilon"]}
    assert np.isnan(constants(SW, params, diamond())).any()


def test_the_fit_finds_the_parameters_it_was_made_from():
    volume = np.linspace(36.0, 44.0, 9)
    energy = birchmurnaghan(volume, -8.7, 0.61, 4.7, 40.3)
    *found, residual = birch_murnaghan(volume, energy)
    np.testing.assert_allclose(found, [-8.7, 40.3, 0.61, 4.7], rtol=1e-8)
    assert residual < 1e-12


def test_pressures_of_the_equation_of_state_are_slopes_of_its_energies():
    eos = equation_of_state(SW, SILICON, diamond())
    # the cohesive energy of the potential is 2 epsilon an atom
    assert_close(eos.energy_0, -4 * 2.1683, 1e-4)
    assert_close(eos.volume_0, LATTICE**3 / 4, 1e-4)
    assert_close(eos.bulk_modulus / units.GIGAPASCAL, 101.4, 2e-3)
    slope = np.polynomial.Polynomial.fit(eos.volume, eos.energy, 6).deriv()(eos.volume)
    assert_close(eos.pressure, -slope, 1e-3)
    assert eos.residual < 1e-5


def test_atoms_relax_at_each_volume():
    ratios = np.linspace(0.9, 1.1, 5)
    rattled = crystal((1, 1, 1), rattle=0.1)
    relaxed = equation_of_state(ARGON, PARAMS, rattled, ratios, relaxed=True)
    at_sites = equation_of_state(ARGON, PARAMS, crystal((1, 1, 1)), ratios)
    assert_close(relaxed.energy, at_sites.energy, 1e-8)
    assert_close(relaxed.pressure, at_sites.pressure, 1e-5)
    rigid = equation_of_state(ARGON, PARAMS, rattled, ratios)
    assert (relaxed.energy < rigid.energy - 1e-3).all()


def test_what_cannot_be_is_refused():
    structure = diamond()
    neighbors = neighbor_list(3.0).allocate(structure)
    with pytest.raises(OptionError, match=r"pairs within 3\.77"):
        elastic_constants(SW, SILICON, diamond(4.5), neighbors)
    with pytest.raises(GeometryError, match="periodic"):
        equation_of_state(SW, SILICON, systems.slab())
    with pytest.raises(GeometryError, match="periodic"):
        elastic_constants(SW, SILICON, structure._replace(pbc=np.zeros(3, bool)), neighbors)
    with pytest.raises(OptionError, match="four or more"):
        equation_of_state(SW, SILICON, structure, np.array([0.9, 1.0, 1.1]))
    with pytest.raises(OptionError, match=r"no minimum(.|\n)*both sides"):
        equation_of_state(SW, SILICON, structure, np.linspace(1.02, 1.1, 9))
