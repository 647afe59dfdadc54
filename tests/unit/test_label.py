import os
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import datasets, errors
from jaxvae_md.errors import LabelError, WriteError
from jaxvae_md.label import (
    check_reference,
    check_same_reference,
    get_labeller,
    label,
    potential_labeller,
    reference_of,
    remembered,
)
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces
from jaxvae_md.structure import from_atoms
from tests.argon import ARGON, PARAMS
from tests.asserts import assert_close
from tests.disk import file_size_limit


@pytest.fixture(scope="module")
def silicon() -> list[Atoms]:
    return datasets.silicon()[::10]


@pytest.fixture(scope="module")
def sw():
    return get_labeller("sw")


def argon(rattle: float = 0.2) -> Atoms:
    atoms = bulk("Ar", "fcc", 5.3, cubic=True)
    atoms.rattle(rattle, seed=1)
    return atoms


def relabelled(atoms: Atoms, energy: float = 1.0, forces: float = 1.0, shift: float = 0.0) -> Atoms:
    """The frame with scaled labels."""
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(
        copy,
        energy=energy * atoms.get_potential_energy() + shift,
        forces=forces * atoms.get_forces(),
    )
    return copy


def test_a_potential_labels_with_its_energy_and_forces():
    atoms = argon()
    energy, forces = potential_labeller(ARGON, PARAMS)(atoms)
    structure = from_atoms(atoms, ("Ar",))
    neighbors = neighbor_list(ARGON.cutoff).allocate(structure)
    expected = energy_and_forces(ARGON.energy, PARAMS, structure, neighbors)
    assert_close(energy, expected[0], 1e-12)
    assert_close(forces, expected[1], 1e-12)


def test_a_potential_refuses_a_foreign_element():
    with pytest.raises(errors.SpeciesError, match="Cu"):
        potential_labeller(ARGON, PARAMS)(bulk("Cu"))


def test_the_reference_of_the_embedded_set_gives_its_labels(silicon, sw):
    for atoms in silicon[::4]:
        energy, forces = sw(atoms)
        assert_close(energy, atoms.get_potential_energy(), 1e-7)
        assert_close(forces, atoms.get_forces(), 1e-6)


def test_labels_are_attached_to_copies(sw):
    atoms = bulk("Si", cubic=True)
    (labelled,) = label([atoms], sw)
    assert atoms.calc is None
    energy, forces = sw(atoms)
    assert labelled.get_potential_energy() == energy
    assert np.array_equal(labelled.get_forces(), forces)
    assert np.array_equal(labelled.positions, atoms.positions)


def test_a_labeller_cannot_move_the_atoms():
    def moving(atoms):
        atoms.positions += 1
        return 0.0, np.zeros((len(atoms), 3))

    atoms = argon()
    before = atoms.positions.copy()
    (labelled,) = label([atoms], moving)
    assert np.array_equal(atoms.positions, before)
    assert np.array_equal(labelled.positions, before)


GOOD = np.zeros((4, 3))
NAN = np.where(np.arange(12).reshape(4, 3) == 5, np.nan, 0)
WRONG = {
    "flat forces": (1.0, GOOD.ravel()),
    "forces of another frame": (1.0, np.zeros((5, 3))),
    "one force": (1.0, np.zeros(3)),
    "nan force": (1.0, NAN),
    "nan energy": (np.nan, GOOD),
    "infinite energy": (np.inf, GOOD),
    "no forces": 1.0,
    "nothing": None,
    "energies": (np.ones(4), GOOD),
    "text": ("low", GOOD),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_an_error_that_names_the_frame(answer):
    right = iter([(1.0, GOOD), answer])
    with pytest.raises(errors.LabelError) as caught:
        label([argon(), argon()], lambda atoms: next(right))
    assert caught.value.frame == 1
    assert caught.value.remedy


def test_a_labeller_that_raises_is_an_error_that_names_the_frame_and_the_reason():
    def failing(atoms):
        raise OSError("no licence")

    with pytest.raises(errors.LabelError, match="OSError: no licence") as caught:
        label([argon()], failing)
    assert caught.value.frame == 0
    assert isinstance(caught.value.__cause__, OSError)


def test_a_labeller_that_ends_the_process_is_an_error():
    with pytest.raises(errors.LabelError, match="SystemExit: 0"):
        label([argon()], lambda atoms: sys.exit(0))


def test_an_answer_of_another_kind_is_named():
    with pytest.raises(errors.LabelError, match="returned a NoneType") as caught:
        label([argon()], lambda atoms: None)
    assert "(energy, forces)" in caught.value.remedy


def test_a_labeller_that_changes_the_current_folder_does_not_move_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def wandering(atoms):
        os.chdir("/")
        return 1.0, GOOD

    label([argon()], remembered(wandering, "labels.jsonl"))
    assert os.listdir(tmp_path) == ["labels.jsonl"]


def test_the_labeller_that_made_the_data_is_let_through(silicon, sw):
    check_same_reference(silicon, sw, "sw")


CHANGED = {
    "forces and energy 1 percent off": {"energy": 1.01, "forces": 1.01},
    "forces 1 percent off": {"forces": 1.01},
    "energy shifted": {"shift": 1.0},
    "forces not a number": {"forces": np.nan},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_data_of_another_reference_are_refused(silicon, sw, change):
    with pytest.raises(errors.LabelError, match="sw did not make these labels") as caught:
        check_same_reference([relabelled(atoms, **change) for atoms in silicon], sw, "sw")
    assert "none" in caught.value.remedy
    assert caught.value.frame is not None


@pytest.mark.parametrize("number", [0, 3, 13])
def test_a_single_frame_of_another_reference_is_refused(silicon, sw, number):
    mixed = list(silicon)
    mixed[number] = relabelled(mixed[number], energy=1.01, forces=1.01)
    with pytest.raises(errors.LabelError) as caught:
        check_same_reference(mixed, sw, "sw")
    assert caught.value.frame == number


def test_data_of_another_element_are_refused(sw):
    atoms = argon()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=GOOD)
    with pytest.raises(errors.LabelError, match="Ar is not among") as caught:
        check_same_reference([atoms], sw, "sw")
    assert caught.value.frame == 0


BROKEN = {
    "nan energy": lambda atoms: (np.nan, atoms.get_forces()),
    "nan forces": lambda atoms: (atoms.get_potential_energy(), np.full((len(atoms), 3), np.nan)),
    "flat forces": lambda atoms: (atoms.get_potential_energy(), np.zeros(3 * len(atoms))),
    "one force": lambda atoms: (atoms.get_potential_energy(), np.zeros(3)),
    "raises": lambda atoms: 1 / 0,
    "nothing": lambda atoms: None,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_labeller_is_refused_beside_data(answer):
    atoms = argon()
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=GOOD)

    def labeller(copy):
        return answer(atoms)

    with pytest.raises(errors.LabelError) as caught:
        check_same_reference([atoms], labeller, "mine:label")
    assert caught.value.remedy


def test_no_labeller():
    assert get_labeller("none") is None


def test_a_function_of_the_current_folder_is_found(tmp_path, monkeypatch):
    name = "labeller_for_this_test"
    code = "def zero(atoms):\n    return 0.0, 0 * atoms.positions\nnumber = 3\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    energy, forces = get_labeller(f"{name}:zero")(argon())
    assert energy == 0
    assert forces.shape == (4, 3)
    for wrong, words in (("number", "not a function"), ("absent", "cannot be imported")):
        with pytest.raises(errors.OptionError, match=words) as caught:
            get_labeller(f"{name}:{wrong}")
        assert "module:function" in caught.value.remedy
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["dft", "", ":", "a:", ":b", "no_such_module:f", "numpy:no_such"])
def test_an_unknown_labeller_is_an_option_error(name):
    with pytest.raises(errors.OptionError) as caught:
        get_labeller(name)
    assert "module:function" in caught.value.remedy


@pytest.mark.parametrize(
    ("code", "words"),
    [("def label(atoms:", "SyntaxError"), ("import sys\nsys.exit(0)", "SystemExit: 0")],
)
def test_a_labeller_whose_module_is_broken_is_an_option_error(tmp_path, monkeypatch, code, words):
    (tmp_path / "broken_labeller.py").write_text(code + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(errors.OptionError, match=words):
        get_labeller("broken_labeller:label")


def test_labels_do_not_depend_on_the_order_of_frames(silicon, sw):
    forward, backward = label(silicon[:3], sw), label(silicon[:3][::-1], sw)
    for one, other in zip(forward, reversed(backward), strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
        assert np.array_equal(one.get_forces(), other.get_forces())


def counted(labeller):
    calls = []

    def label_one(atoms):
        calls.append(len(atoms))
        return labeller(atoms)

    return label_one, calls


def awkward(atoms):
    """A label with every bit of its numbers in use."""
    return 0.1 * atoms.positions.sum(), np.sqrt(atoms.positions + 10.0) / 3


def several() -> list[Atoms]:
    out = []
    for seed in range(4):
        atoms = bulk("Si")
        atoms.rattle(0.1, seed=seed)
        out.append(atoms)
    return out


def test_no_label_is_computed_twice_and_none_changes(tmp_path):
    path = tmp_path / "labels.jsonl"
    labeller, calls = counted(awkward)
    first = label(several(), remembered(labeller, path))
    again = label(several(), remembered(labeller, path))
    assert len(calls) == 4
    for one, other in zip(first, again, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
        assert np.array_equal(one.get_forces(), other.get_forces())


def test_a_structure_that_differs_in_the_last_bit_is_labelled_itself(tmp_path):
    labeller, calls = counted(awkward)
    remember = remembered(labeller, tmp_path / "labels.jsonl")
    atoms = bulk("Si")
    remember(atoms)
    atoms.positions[0, 0] = np.nextafter(atoms.positions[0, 0], 1)
    remember(atoms)
    atoms.pbc = False
    remember(atoms)
    assert len(calls) == 3


@pytest.mark.parametrize("cut", [1, 2, 30, 200])
def test_a_torn_line_is_computed_again_and_the_file_is_as_if_nothing_happened(tmp_path, cut):
    path = tmp_path / "labels.jsonl"
    label(several(), remembered(awkward, path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    labeller, calls = counted(awkward)
    label(several(), remembered(labeller, path))
    assert len(calls) == 1
    assert path.read_bytes() == whole


def test_an_altered_line_is_computed_again_with_a_warning(tmp_path, caplog):
    path = tmp_path / "labels.jsonl"
    label(several(), remembered(awkward, path))
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("0.", "1.", 1)
    path.write_text("".join(lines))
    labeller, calls = counted(awkward)
    label(several(), remembered(labeller, path))
    assert len(calls) == 1
    assert "line 2" in caplog.text
    caplog.clear()
    label(several(), remembered(labeller, path))
    assert len(calls) == 1
    assert not caplog.text
    assert len(path.read_text().splitlines()) == 4


def test_what_is_no_label_is_not_remembered(tmp_path):
    path = tmp_path / "labels.jsonl"
    for wrong in ((np.nan, np.zeros((2, 3))), (1.0, np.zeros((3, 3)))):
        with pytest.raises(LabelError):
            label(several()[:1], remembered(lambda atoms, wrong=wrong: wrong, path))
    assert not path.exists()


def test_labels_that_cannot_be_written_are_an_error(tmp_path):
    with file_size_limit(100), pytest.raises(WriteError):
        label(several(), remembered(awkward, tmp_path / "labels.jsonl"))


def test_frames_of_two_references_are_refused(silicon, caplog):
    frames = [atoms.copy() for atoms in silicon[:3]]
    assert reference_of(frames) == get_labeller("sw").reference
    for atoms in frames:
        del atoms.info["reference"]
    assert reference_of(frames) == ""
    frames[1].info["reference"] = "a code"
    assert reference_of(frames) == "a code"
    assert "2 of 3 frames do not tell" in caplog.text
    frames[2].info["reference"] = "another code"
    with pytest.raises(
        LabelError, match="is of another code, those of other frames are of a code"
    ) as caught:
        reference_of(frames)
    assert caught.value.frame == 2


def test_a_labeller_of_another_name_is_refused(sw):
    class Named:
        reference = "a code"

        def __call__(self, atoms):
            return sw(atoms)

    check_reference("a code", Named())
    check_reference("", Named())
    check_reference("another code", lambda atoms: sw(atoms))
    with pytest.raises(LabelError, match="are of another code, and the labeller is a code"):
        check_reference("another code", Named())
