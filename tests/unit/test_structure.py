import ase
import ase.build
import numpy as np
import pytest

from jaxvae_md.errors import GeometryError, SpeciesError
from jaxvae_md.structure import from_atoms, pad, species_table, stack, to_atoms
from tests import systems


@pytest.fixture
def water_slab() -> ase.Atoms:
    atoms = ase.build.molecule("H2O", cell=[[6, 0, 0], [1, 7, 0], [0, 0, 0]], pbc=(1, 1, 0))
    atoms.positions += [20.0, -9.0, 1.0]
    return atoms


def test_species_table_is_ordered_by_atomic_number():
    frames = [ase.build.bulk("Si"), ase.build.molecule("O2"), ase.build.bulk("W")]
    assert species_table(frames) == ("O", "Si", "W")


def test_atoms_survive_the_round_trip(water_slab):
    table = species_table([water_slab])
    back = to_atoms(from_atoms(water_slab, table), table)
    assert back.get_chemical_symbols() == water_slab.get_chemical_symbols()
    np.testing.assert_array_equal(back.positions, water_slab.positions)
    np.testing.assert_array_equal(back.pbc, water_slab.pbc)
    np.testing.assert_array_equal(back.cell[:2], water_slab.cell[:2])


def test_missing_cell_vector_is_completed(water_slab):
    cell = from_atoms(water_slab, ("H", "O")).cell
    assert np.linalg.norm(cell[2]) == pytest.approx(1)
    np.testing.assert_allclose(cell[:2] @ cell[2], 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_of_a_structure(water_slab, dtype):
    structure = from_atoms(water_slab, ("H", "O"), dtype)
    assert structure.position.dtype == structure.cell.dtype == dtype
    assert structure.pbc.dtype == structure.mask.dtype == bool
    assert structure.species.dtype == np.int32


def test_structure_does_not_follow_later_changes_of_its_atoms(water_slab):
    structure = from_atoms(water_slab, ("H", "O"))
    before = water_slab.positions.copy()
    water_slab.positions += 1
    np.testing.assert_array_equal(structure.position, before)


def test_unknown_element_is_named_with_its_atom_and_a_remedy(water_slab):
    with pytest.raises(
        SpeciesError, match=r"atom 1: H is not among .* Si, O\n  remedy: "
    ) as caught:
        from_atoms(water_slab, ("Si", "O"))
    assert caught.value.atom == 1


def test_padding_is_masked_and_dropped_again():
    structure = systems.sio2()
    padded = pad(structure, 12)
    assert padded.position.shape == (12, 3)
    assert padded.mask.tolist() == [True] * 9 + [False] * 3
    back = to_atoms(padded, systems.SIO2)
    np.testing.assert_array_equal(back.positions, structure.position)
    assert back.get_chemical_symbols() == ["Si"] * 3 + ["O"] * 6


def test_padding_to_fewer_atoms_is_refused():
    with pytest.raises(ValueError, match="9 atoms do not fit into 8"):
        pad(systems.sio2(), 8)


def test_stack_pads_to_the_largest():
    members = [systems.bcc(), systems.si8(), systems.cluster()]
    batch = stack(members)
    assert batch.position.shape == (3, 8, 3)
    assert batch.mask.sum(axis=1).tolist() == [2, 8, 5]
    for row, member in enumerate(members):
        np.testing.assert_array_equal(batch.position[row][batch.mask[row]], member.position)
        np.testing.assert_array_equal(batch.cell[row], member.cell)
        np.testing.assert_array_equal(batch.pbc[row], member.pbc)


def test_a_periodic_direction_without_a_cell_vector_is_refused():
    with pytest.raises(GeometryError, match="without a cell vector"):
        from_atoms(ase.Atoms("Si2", [[0, 0, 0], [0, 0, 2.3]], pbc=True), ("Si",))
