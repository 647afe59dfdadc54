import ase.build
import jax
import numpy as np
import pytest

from jaxvae_md.errors import GeometryError, InputError, OptionError, SpeciesError
from jaxvae_md.observables import density_profile, film
from jaxvae_md.structure import from_atoms, pad, stack
from tests import systems
from tests.asserts import assert_close

D = 3.16 / 2**0.5
"""Distance of tungsten's (110) layers."""


def slab(num_layers, vacuum=30.0, size=6, rattle=0.0):
    """Tungsten's (110) layers with the lowest at 0, periodic across."""
    atoms = ase.build.bcc110("W", (size, size, num_layers), a=3.16, orthogonal=True)
    atoms.positions[:, 2] -= atoms.positions[:, 2].min()
    atoms.cell[2] = [0, 0, num_layers * D + vacuum]
    atoms.pbc = (True, True, False)
    atoms.rattle(rattle, seed=0)
    return atoms


def gas(atoms, heights, symbol="O"):
    more = [[3.0 * k % 10, 7.0 * k % 10, z] for k, z in enumerate(heights)]
    return atoms + ase.Atoms(f"{symbol}{len(more)}", more)


def structure_of(atoms):
    return from_atoms(atoms, ("O", "W"))


# density


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_density_is_a_histogram_over_area_and_width(axis):
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0.0, 0.0], [3.0, 8.0, 0.0], [2.0, -1.0, 11.0]])
    order = np.roll(np.arange(3), axis - 2)
    area, position = 72.0, rng.uniform(0, 10, (300, 3))
    structure = systems.make(
        position[:, np.argsort(np.argsort(order))],
        cell[order][:, order],
        pbc=np.arange(3) != axis,
        species=rng.integers(0, 2, 300),
    )
    edges = np.array([-1.0, 0.5, 2.0, 3.0, 9.0])
    z = structure.position[:, axis]
    expected = np.histogram(z, edges)[0] / (area * np.diff(edges))
    assert_close(density_profile(structure, edges, axis), expected, 1e-12)
    parts = [density_profile(structure, edges, axis, species=s) for s in (0, 1)]
    assert_close(sum(parts), expected, 1e-12)
    expected = np.histogram(z[structure.species == 1], edges)[0] / (area * np.diff(edges))
    assert_close(parts[1], expected, 1e-12)


def test_a_periodic_axis_has_all_its_images():
    structure = systems.sio2()
    height, volume = structure.cell[2, 2], abs(np.linalg.det(structure.cell))
    whole = density_profile(structure, [0, height])
    assert_close(whole, [9 / volume], 1e-12)
    assert_close(density_profile(structure, [-3.0, 2 * height - 3.0]), whole, 1e-12)
    fine = np.linspace(0, height, 12)
    once = density_profile(structure, fine)
    assert_close(density_profile(structure, fine + 7 * height), once, 1e-9)
    shifted = structure._replace(position=structure.position - 4 * structure.cell[2])
    assert_close(density_profile(shifted, fine), once, 1e-9)
    # an atom at an edge, from both sides of it
    for z in (0.0, -1e-17, height, 1e-17):
        one = systems.make([[0, 0, z]], height * np.eye(3))
        assert density_profile(one, [0, height / 2, height]).sum() * height**3 / 2 == 1


def test_frames_are_averaged_each_with_its_area():
    structure = structure_of(slab(4, rattle=0.1))
    scale = np.array([1.0, 1.1])[:, None, None] * [1, 1, 0] + [0, 0, 1]
    both = structure._replace(position=scale * structure.position, cell=scale * structure.cell)
    edges = np.linspace(-1, 12, 14)
    one = density_profile(structure, edges, species=1)
    assert_close(density_profile(both, edges, species=1), one * (1 + 1.1**-2) / 2, 1e-12)
    padded = stack([structure, pad(structure, 150)])
    assert_close(density_profile(padded, edges), one, 1e-12)


def test_density_refuses_what_has_no_slices():
    with pytest.raises(GeometryError, match=r"not across z(.|\n)*turn"):
        density_profile(systems.triclinic(), [0, 1])
    with pytest.raises(GeometryError, match=r"area is across y(.|\n)*periodic"):
        density_profile(systems.slab(), [0, 1], axis=1)
    with pytest.raises(OptionError, match="axis is 3"):
        density_profile(systems.slab(), [0, 1], axis=3)
    with pytest.raises(OptionError, match="edges do not ascend"):
        density_profile(systems.slab(), [1, 0])
    with pytest.raises(SpeciesError, match="species 2"):
        density_profile(systems.slab(), [0, 1], species=2)
    with pytest.raises(InputError, match="outside"):
        jax.jit(lambda s: density_profile(s, [0, 1]))(systems.slab())


# film


@pytest.mark.parametrize("num_layers", [3, 6, 12])
@pytest.mark.parametrize("rattle", [0.0, 0.15])
def test_a_slab_is_as_thick_as_its_layers(num_layers, rattle):
    # four layers are the substrate
    structure = structure_of(slab(4 + num_layers, rattle=rattle))
    found = film(structure, base=3.5 * D)
    assert abs(found.thickness - num_layers * D) < 0.1
    assert found.num_atoms.tolist() == [0, 36 * num_layers]
    assert found.num_gas.tolist() == [0, 0]


def test_gas_is_counted_apart_and_changes_nothing():
    atoms = slab(10, rattle=0.1)
    bare = film(structure_of(atoms), base=3.5 * D)
    top = 9 * D
    # the first one is adsorbed; the last two leave through the periodic top
    atoms = gas(atoms, [top + 1.9, top + 8, top + 14, top + 15, top + 31, top + 33])
    for pbc in (True, False):
        atoms.pbc[2] = pbc
        found = film(structure_of(atoms), base=3.5 * D)
        assert found.num_atoms.tolist() == [1, 6 * 36]
        assert found.num_gas.tolist() == [5, 0]
        assert abs(found.thickness - bare.thickness) < 0.05
    again = film(pad(structure_of(atoms), 400), base=3.5 * D)
    assert again.thickness == found.thickness
    assert again.num_gas.tolist() == [5, 0]


def test_half_a_layer_more_is_half_a_layer_thicker():
    atoms = slab(11)
    full = film(structure_of(atoms), base=3.5 * D).thickness
    # stripes of the uppermost layer
    upper = np.flatnonzero(atoms.positions[:, 2] > 9.5 * D)
    del atoms[upper[::2]]
    half = film(structure_of(atoms), base=3.5 * D)
    assert abs(full - half.thickness - D / 2) < 0.2
    assert half.num_atoms[1] == 6 * 36 + 18


def test_the_first_atoms_of_a_film():
    atoms = slab(4)
    top = 3 * D
    nothing = film(structure_of(atoms), base=3.5 * D)
    assert nothing.thickness == 0.0
    assert nothing.num_atoms.tolist() == nothing.num_gas.tolist() == [0, 0]
    arriving = film(structure_of(gas(atoms, [top + 12], "W")), base=3.5 * D)
    assert (arriving.thickness, *arriving.num_gas) == (0.0, 0, 1)
    layer = film(structure_of(slab(5)), base=3.5 * D)
    assert abs(layer.thickness - (0.5 * D + 1.4)) < 0.1
    # without anything below, the base alone holds the film
    alone = structure_of(gas(slab(6), [5 * D + 9.0]))
    found = film(alone, base=-0.5 * D)
    assert abs(found.thickness - 6 * D) < 0.1
    assert found.num_gas.tolist() == [1, 0]


def test_axis_and_units_of_a_film():
    structure = structure_of(slab(8))
    turned = structure._replace(
        position=structure.position[:, [2, 0, 1]],
        cell=structure.cell[[2, 0, 1]][:, [2, 0, 1]],
        pbc=structure.pbc[[2, 0, 1]],
    )
    expected = film(structure, base=3.5 * D)
    found = film(turned, base=3.5 * D, axis=0)
    assert_close(found.thickness, expected.thickness, 1e-9)
    scaled = structure._replace(position=2 * structure.position, cell=2 * structure.cell)
    found = film(scaled, base=7 * D, cutoff=7.0, width=2.0)
    assert_close(found.thickness, 2 * expected.thickness, 1e-9)


def test_a_film_refuses_what_cannot_be():
    structure = structure_of(slab(2))
    for option in ({"base": np.nan}, {"base": 0, "cutoff": 0.0}, {"base": 0, "width": -1.0}):
        with pytest.raises(OptionError, match=list(option)[-1]):
            film(structure, **option)
    with pytest.raises(GeometryError, match="area"):
        film(systems.cluster(), base=0.0)
    with pytest.raises(InputError, match="one structure"):
        film(stack([structure, structure]), base=0.0)
