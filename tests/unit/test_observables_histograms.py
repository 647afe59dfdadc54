import jax
import numpy as np
import pytest

from jaxvae_md.errors import GeometryError, InputError, OptionError, SpeciesError
from jaxvae_md.observables import adf_histogram, rdf_histogram
from jaxvae_md.structure import pad, stack
from tests import oracles, systems
from tests.argon import crystal
from tests.asserts import assert_close

EDGES = np.linspace(0, 7.5, 76)
ANGLES = np.radians(np.r_[0.0, np.arange(2.5, 180.0, 5.0), 180.0])
"""Bins around the multiples of five degrees, and half ones at both ends."""


def test_a_crystal_has_its_shells_and_nothing_between():
    edges = EDGES + 0.05
    r, g, count = rdf_histogram(crystal(), edges)
    shells = {1: 12, 2: 6, 3: 24, 4: 12}
    expected = np.zeros(75, int)
    for square, number in shells.items():
        expected[int(5.3 * (square / 2) ** 0.5 / 0.1 - 0.5)] = 32 * number
    np.testing.assert_array_equal(count, expected)
    density = 32 / np.linalg.det(crystal().cell)
    shell = 4 / 3 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    assert_close(g * density * shell * 32, count, 1e-12)
    assert_close(r, edges[:-1] + 0.05, 1e-12)


def test_an_ideal_gas_has_one_everywhere():
    rng = np.random.default_rng(0)
    gas = systems.make(np.zeros((200, 3)), 20.0 * np.eye(3))
    gas = gas._replace(position=rng.uniform(-30, 30, (40, 200, 3)))
    g, count = rdf_histogram(gas, np.linspace(0, 12, 13))[1:]
    # each pair is counted from both ends; an atom is no neighbor of itself, but of its images
    error = np.sqrt(2 / count)
    assert np.abs((g - 1 + 1 / 200) / error).max() < 4
    assert error.min() < 0.01


@pytest.mark.parametrize("name", ["si8", "triclinic", "bcc"])
def test_counts_are_those_of_a_loop_over_images(name):
    structure = systems.ALL[name]()
    distance = [np.linalg.norm(v) for *_, v in oracles.pairs(structure, 7.5)]
    expected = np.histogram(distance, EDGES)[0]
    np.testing.assert_array_equal(rdf_histogram(structure, EDGES).count, expected)


def test_a_supercell_has_the_functions_of_its_cell():
    small = systems.triclinic()
    large = systems.repeated(small, (2, 1, 3))
    g, few = rdf_histogram(small, EDGES)[1:]
    same, many = rdf_histogram(large, EDGES)[1:]
    np.testing.assert_array_equal(many, 6 * few)
    assert_close(same, g, 1e-12)
    p, few = adf_histogram(small, ANGLES, 3.4)[1:]
    same, many = adf_histogram(large, ANGLES, 3.4)[1:]
    np.testing.assert_array_equal(many, 6 * few)
    assert_close(same, p, 1e-12)


def test_partial_functions_add_up_to_the_whole():
    structure = systems.sio2()
    fraction = np.bincount(structure.species) / 9
    parts = {(a, b): rdf_histogram(structure, EDGES, (a, b)) for a in (0, 1) for b in (0, 1)}
    whole = rdf_histogram(structure, EDGES)
    np.testing.assert_array_equal(sum(part.count for part in parts.values()), whole.count)
    total = sum(fraction[a] * fraction[b] * part.value for (a, b), part in parts.items())
    assert_close(total, whole.value, 1e-12)
    np.testing.assert_array_equal(parts[0, 1].count, parts[1, 0].count)
    assert parts[0, 1].count.sum() > 0


def test_frames_of_variable_cell_are_put_together():
    structure = crystal()
    scale = np.array([1.0, 1.05])[:, None, None]
    both = structure._replace(position=scale * structure.position, cell=scale * structure.cell)
    parts = [
        rdf_histogram(structure._replace(position=x, cell=c), EDGES)
        for x, c in zip(both.position, both.cell, strict=True)
    ]
    whole = rdf_histogram(both, EDGES)
    np.testing.assert_array_equal(whole.count, parts[0].count + parts[1].count)
    weight = np.array([1, 1.05**-3])
    expected = (weight[0] * parts[0].value + weight[1] * parts[1].value) / weight.sum()
    assert_close(whole.value, expected, 1e-12)


def test_padding_counts_for_nothing():
    small, large = systems.triclinic(), systems.si8()
    padded = stack([small, large])
    np.testing.assert_array_equal(
        rdf_histogram(padded, EDGES).count,
        rdf_histogram(small, EDGES).count + rdf_histogram(large, EDGES).count,
    )
    expected = adf_histogram(small, ANGLES, 3.4)
    np.testing.assert_array_equal(adf_histogram(pad(small, 7), ANGLES, 3.4).count, expected.count)


@pytest.mark.parametrize(
    ("structure", "cutoff", "angles"),
    [
        (systems.si8(rattle=0.0), 3.0, {109.47: 6}),
        (crystal(), 4.2, {60: 24, 90: 12, 120: 24, 180: 6}),
    ],
    ids=["diamond", "fcc"],
)
def test_crystals_have_their_angles(structure, cutoff, angles):
    theta, p, count = adf_histogram(structure, ANGLES, cutoff)
    expected = np.zeros(len(ANGLES) - 1, int)
    for degree, number in angles.items():
        inside = np.searchsorted(ANGLES, np.radians(degree) - 1e-9) - 1
        expected[inside] = number * len(structure.mask)
    np.testing.assert_array_equal(count, expected)
    assert_close(np.sum(p * np.diff(ANGLES)), 1.0, 1e-12)
    assert_close(theta, 0.5 * (ANGLES[1:] + ANGLES[:-1]), 1e-12)


def test_angles_are_those_of_a_loop_over_bonds():
    structure = systems.sio2()
    bonds = [[] for _ in range(9)]
    for i, j, _, vector in oracles.pairs(structure, 3.4):
        bonds[i].append((vector / np.linalg.norm(vector), structure.species[j]))
    found = {}
    for i, around in enumerate(bonds):
        for k, (u, a) in enumerate(around):
            for v, b in around[:k]:
                name = (int(structure.species[i]), *sorted((int(a), int(b))))
                found.setdefault(name, []).append(np.arccos(np.clip(u @ v, -1, 1)))
    assert len(found) > 4
    for triple, angle in found.items():
        expected = np.histogram(angle, ANGLES)[0]
        np.testing.assert_array_equal(adf_histogram(structure, ANGLES, 3.4, triple).count, expected)


def test_a_cluster_has_angles_but_no_density():
    cluster = systems.cluster()
    assert adf_histogram(cluster, ANGLES, 3.0).count.sum() == 6
    with pytest.raises(GeometryError, match=r"periodic(.|\n)*remedy"):
        rdf_histogram(cluster, EDGES)
    with pytest.raises(GeometryError, match=r"two such bonds(.|\n)*larger cutoff"):
        adf_histogram(cluster, ANGLES, 1.0)


def test_what_cannot_be_is_refused():
    structure = systems.sio2()
    for edges in ([1.0], [2.0, 1.0], [1.0, np.nan], [-1.0, 1.0], [[1.0, 2.0]]):
        with pytest.raises(OptionError, match="edges"):
            rdf_histogram(structure, edges)
    with pytest.raises(OptionError, match="edges goes from 0 to 180"):
        adf_histogram(structure, [0, 90, 180], 3.0)
    with pytest.raises(SpeciesError, match="species 4"):
        rdf_histogram(structure, EDGES, (0, 4))
    with pytest.raises(InputError, match="the same atoms"):
        rdf_histogram(structure._replace(species=np.zeros(8, int)), EDGES)
    with pytest.raises(InputError, match="radial_distribution"):
        jax.jit(lambda s: rdf_histogram(s, EDGES).value)(structure)
