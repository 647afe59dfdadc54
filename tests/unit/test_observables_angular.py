import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import cutoffs
from jaxvae_md.errors import OptionError, SpeciesError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import angular_distribution
from jaxvae_md.structure import pad
from tests import oracles, systems
from tests.argon import crystal
from tests.asserts import assert_close

THETA = np.linspace(0, np.pi, 361)

compiled = jax.jit(angular_distribution, static_argnames=("cutoff", "width", "triple"))


def adf(structure, cutoff, width=0.05, triple=None, theta=THETA):
    neighbors = neighbor_list(cutoff).allocate(structure, multiple=8)
    return np.asarray(
        compiled(structure, neighbors, theta, cutoff=cutoff, width=width, triple=triple)
    )


def by_gaussians(structure, cutoff, width, triple=None):
    """Sum over all pairs of bonds in a loop, with images of each Gaussian beyond both ends."""
    bonds = [[] for _ in structure.position]
    for i, j, _, vector in oracles.pairs(structure, cutoff):
        bonds[i].append((vector, structure.species[j]))
    density, total = np.zeros_like(THETA), 0.0
    for center, around in enumerate(bonds):
        for k, (u, a) in enumerate(around):
            for v, b in around[:k]:
                if triple is not None and (
                    structure.species[center] != triple[0] or sorted((a, b)) != sorted(triple[1:])
                ):
                    continue
                r, s = np.linalg.norm(u), np.linalg.norm(v)
                weight = float(cutoffs.cosine(r, cutoff) * cutoffs.cosine(s, cutoff))
                angle = np.arccos(np.clip(u @ v / r / s, -1, 1))
                for at in (angle, -angle, 2 * np.pi - angle):
                    gaussian = np.exp(-0.5 * ((THETA - at) / width) ** 2)
                    density += weight * gaussian / (width * np.sqrt(2 * np.pi))
                total += weight
    return density / total


@pytest.mark.parametrize("name", ["triclinic", "bcc"])
def test_the_series_is_the_sum_of_gaussians(name):
    structure = systems.ALL[name]()
    assert_close(adf(structure, 3.4, 0.1), by_gaussians(structure, 3.4, 0.1), 1e-10)


@pytest.mark.parametrize("triple", [(1, 0, 0), (0, 1, 0)])
def test_triples_of_species_are_told_apart(triple):
    structure = systems.sio2()
    expected = by_gaussians(structure, 3.4, 0.1, triple)
    assert_close(adf(structure, 3.4, 0.1, triple), expected, 1e-10)
    if triple == (0, 1, 0):
        assert_close(adf(structure, 3.4, 0.1, (0, 0, 1)), expected, 1e-10)


def test_diamond_has_the_tetrahedral_angle_alone():
    p = adf(systems.si8(rattle=0.0), 3.0, 0.03)
    tetrahedral = np.arccos(-1 / 3)
    gaussian = np.exp(-0.5 * ((THETA - tetrahedral) / 0.03) ** 2) / (0.03 * np.sqrt(2 * np.pi))
    assert_close(p, gaussian, 1e-10)


def test_face_centred_cubic_has_its_angles_in_their_numbers():
    p = adf(crystal((1, 1, 1)), 4.2, 0.03)
    for degree, count in ((60, 24), (90, 12), (120, 24), (180, 6)):
        inside = np.abs(THETA - np.radians(degree)) < 0.2
        assert_close(np.trapezoid(p[inside], THETA[inside]), count / 66, 1e-3)
    assert_close(np.trapezoid(p, THETA), 1.0, 1e-12)


def test_a_supercell_has_the_distribution_of_its_cell():
    small = systems.bcc()
    # a bond is longer than the cell is wide
    assert small.cell[0, 0] < 3.4
    assert_close(adf(systems.repeated(small, (2, 1, 3)), 3.4), adf(small, 3.4), 1e-10)


def test_padding_counts_for_nothing():
    structure = systems.triclinic()
    assert_close(adf(pad(structure, 6), 3.4), adf(structure, 3.4), 1e-12)


def test_nothing_jumps_when_a_neighbor_enters():
    edge = 3.0

    def of_distance(r):
        corner = systems.make([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, -0.6 * r, 0.8 * r]], np.eye(3))
        corner = corner._replace(pbc=np.zeros(3, bool))
        return adf(corner, edge)

    before, inside, at = of_distance(edge + 0.01), of_distance(edge - 1e-4), of_distance(2.5)
    assert_close(inside, before, 1e-7)
    assert np.abs(at - before).max() > 0.01 * before.max()


def test_straight_bonds_have_finite_derivatives_of_every_order():
    line = systems.make(np.outer([0.0, 2.3, 4.6], [0, 0, 1]), np.eye(3), pbc=False)
    neighbors = neighbor_list(3.0).allocate(line, extra=2.0)

    def at_straight(position):
        moved = line._replace(position=position)
        return angular_distribution(moved, neighbors, np.array([np.pi]), 3.0, 0.1)[0]

    def bent(angle):
        turn = jnp.stack([jnp.zeros(()), jnp.sin(angle), jnp.cos(angle) - 1])
        return at_straight(jnp.asarray(line.position).at[2].add(2.3 * turn))

    slope = lambda angle: jax.jvp(bent, (angle,), (1.0,))[1]
    curvature = jax.jit(lambda angle: jax.jvp(slope, (angle,), (1.0,))[1])(0.0)
    # a Gaussian and its image fall together: 2 / (width sqrt(2 pi)) exp(-angle^2 / 2 width^2)
    assert_close(curvature, -2 / (0.1**3 * np.sqrt(2 * np.pi)), 1e-10)
    assert np.abs(jax.jit(jax.grad(at_straight))(line.position)).max() < 1e-10


def test_the_precision_is_that_of_the_structure():
    structure = systems.triclinic()
    single = adf(systems.single(structure), 3.4, theta=np.float32(THETA))
    assert single.dtype == np.float32
    assert_close(single, adf(structure, 3.4), 1e-3)


def test_an_atom_with_one_bond_has_no_angle():
    assert np.isnan(adf(systems.dimer(2.3), 3.0)).all()


def test_what_cannot_be_is_refused():
    structure = systems.sio2()
    neighbors = neighbor_list(2.0).allocate(structure)
    with pytest.raises(OptionError, match=r"pairs within 3.4 angstrom(.|\n)*larger cutoff"):
        angular_distribution(structure, neighbors, THETA, 3.4)
    with pytest.raises(OptionError, match="theta goes from"):
        angular_distribution(structure, neighbors, np.degrees(THETA), 2.0)
    degrees = jnp.degrees(THETA)
    with pytest.raises(OptionError, match="theta goes from"):
        jax.jit(lambda s: angular_distribution(s, neighbors, degrees, 2.0))(structure)
    with pytest.raises(OptionError, match="width"):
        angular_distribution(structure, neighbors, THETA, 2.0, width=1e-5)
    with pytest.raises(OptionError, match="cutoff"):
        angular_distribution(structure, neighbors, THETA, -1.0)
    with pytest.raises(SpeciesError, match="species 5"):
        angular_distribution(structure, neighbors, THETA, 2.0, triple=(0, 1, 5))
