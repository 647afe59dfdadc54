import gzip
import json
import os

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import errors, io


def silicon(energy=-4.0, forces=None) -> Atoms:
    atoms = Atoms("Si2", [[0, 0, 0], [1.4, 1.4, 1.4]], cell=5.0 * np.eye(3), pbc=True)
    forces = np.ones((2, 3)) if forces is None else forces
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def unlabelled(**results) -> Atoms:
    atoms = silicon()
    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    return atoms


def moved(*position) -> Atoms:
    atoms = silicon()
    atoms.positions[1] = position
    return atoms


def reshaped(cell, pbc=True) -> Atoms:
    atoms = silicon()
    atoms.set_cell(cell)
    atoms.pbc = pbc
    return atoms


NAN_FORCE = np.array([[1.0, 0, 0], [0, np.nan, 0]])
FLAT = [[5.0, 0, 0], [0, 5.0, 0], [5.0, 5.0, 0]]
BAD = {
    "no energy": (unlabelled(forces=np.ones((2, 3))), errors.LabelError, "no energy", None),
    "no forces": (unlabelled(energy=-4.0), errors.LabelError, "no forces", None),
    "no labels": (unlabelled(), errors.LabelError, "no energy", None),
    "nan energy": (silicon(energy=np.nan), errors.LabelError, "energy is not finite", None),
    "infinite energy": (silicon(energy=np.inf), errors.LabelError, "energy is not finite", None),
    "nan force": (silicon(forces=NAN_FORCE), errors.LabelError, "force is not finite", 1),
    "nan position": (moved(np.nan, 0, 0), errors.GeometryError, "not finite", 1),
    "same place": (moved(0, 0, 0), errors.GeometryError, "same place", 0),
    "same place across the boundary": (
        moved(0.01, 4.99, 5.0),
        errors.GeometryError,
        "same place",
        0,
    ),
    "flat cell": (reshaped(FLAT), errors.GeometryError, "singular", None),
    "no cell": (reshaped(np.zeros((3, 3))), errors.GeometryError, "singular", None),
    "one vector missing": (
        reshaped(np.diag([5.0, 5.0, 0.0])),
        errors.GeometryError,
        "singular",
        None,
    ),
}


@pytest.mark.parametrize(("atoms", "kind", "words", "atom"), BAD.values(), ids=BAD.keys())
def test_a_bad_frame_is_refused_by_file_frame_atom_and_remedy(tmp_path, atoms, kind, words, atom):
    path = tmp_path / "bad.extxyz"
    ase.io.write(path, [silicon(), atoms], format="extxyz")
    with pytest.raises(kind, match=words) as caught:
        io.read_frames(path)
    error = caught.value
    assert (error.file, error.frame, error.atom) == (path, 1, atom)
    assert str(path) in str(error)
    assert "frame 1" in str(error)
    assert error.remedy
    assert str(error).count("remedy:") == 1


def test_good_frames_are_read_as_written(tmp_path):
    path = tmp_path / "good.extxyz"
    frames = [silicon(), silicon(energy=-3.0)]
    io.write_frames(path, frames)
    read = io.read_frames(path)
    assert [atoms.get_potential_energy() for atoms in read] == [-4.0, -3.0]
    assert np.array_equal(read[0].get_forces(), frames[0].get_forces())
    assert np.array_equal(read[0].positions, frames[0].positions)


def test_labels_are_only_asked_for_where_they_are_needed(tmp_path):
    path = tmp_path / "plain.extxyz"
    ase.io.write(path, unlabelled(), format="extxyz")
    assert len(io.read_frames(path, labelled=False)) == 1
    with pytest.raises(errors.LabelError):
        io.read_frames(path)


def test_a_cluster_needs_no_cell():
    io.check_frame(reshaped(np.zeros((3, 3)), pbc=False))


def test_atoms_at_the_same_place_but_of_different_images_only_matter_with_pbc():
    io.check_frame(Atoms("Si2", [[0, 0, 0], [5.0, 0, 0]], cell=5 * np.eye(3)), labelled=False)
    with pytest.raises(errors.GeometryError):
        io.check_frame(
            Atoms("Si2", [[0, 0, 0], [5.0, 0, 0]], cell=5 * np.eye(3), pbc=True), labelled=False
        )


@pytest.mark.parametrize("symbol", ["Xx", "X"])
def test_an_unknown_species_is_named(tmp_path, symbol):
    path = tmp_path / "unknown.extxyz"
    ase.io.write(path, [silicon(), silicon()], format="extxyz")
    head, _, last = path.read_text().rpartition("Si ")
    path.write_text(head + symbol.ljust(3) + last)
    with pytest.raises(errors.SpeciesError, match=f"'{symbol}'") as caught:
        io.read_frames(path)
    assert (caught.value.file, caught.value.frame) == (path, 1)
    assert caught.value.remedy


UNREADABLE = {
    "binary": bytes(range(256)) * 20,
    "text": b"this is not a structure\nat all\n",
    "empty": b"",
    "blank": b"\n\n",
    "cut": b"2\nenergy=1.0 Properties=species:S:1:pos:R:3\nSi 0 0 0\n",
}


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".dat", ""])
@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_file_is_a_file_error(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(errors.FileError) as caught:
        io.read_frames(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_a_missing_file_and_a_folder_are_file_errors(tmp_path):
    for path in (tmp_path / "missing.extxyz", tmp_path):
        with pytest.raises(errors.FileError, match="no such file") as caught:
            io.read_frames(path)
        assert caught.value.file == path
        assert caught.value.remedy


def test_an_error_that_is_told_where_it_is_keeps_what_it_knew():
    error = errors.LabelError("no energy", frame=3, atom=5, remedy="add it")
    told = error.at(file="a.extxyz", frame=9)
    assert type(told) is errors.LabelError
    assert (told.file, told.frame, told.atom, told.remedy) == ("a.extxyz", 3, 5, "add it")
    assert str(told) == "file a.extxyz, frame 3, atom 5: no energy\n  remedy: add it"


def test_an_error_that_knows_its_file_is_not_about_a_frame_of_another():
    told = errors.LockedError("is at work", file="run").at(file="a.extxyz", frame=9)
    assert str(told) == "file run: is at work"


def test_an_interrupted_write_leaves_the_old_file_and_no_part_of_the_new(tmp_path):
    path = tmp_path / "frames.extxyz"
    io.write_frames(path, [silicon()])
    before = path.read_bytes()
    broken = silicon()
    broken.arrays["ragged"] = [1, 2]
    with pytest.raises(AttributeError):
        io.write_frames(path, [silicon(energy=-1.0), broken])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["frames.extxyz"]


def test_a_map_for_chemiscope_has_a_point_for_every_atom(tmp_path):
    frames = [silicon(), moved(2.0, 1, 1)]
    frames[1].info["note"] = {"what": "chemiscope would not take it"}
    path = tmp_path / "map.json.gz"
    columns = {"a": np.arange(4.0), "b": np.array([0, 1, np.inf, 2]), "kind": list("wxyz")}
    io.write_chemiscope(path, frames, columns, "two frames")
    data = json.loads(gzip.decompress(path.read_bytes()))
    assert len(data["structures"]) == 2
    assert len(data["environments"]) == 4
    assert data["properties"]["b"]["values"] == [0, 1, 2, 2]
    assert data["properties"]["kind"]["values"] == list("wxyz")
    assert data["settings"]["map"]["y"]["property"] == "b"
    with pytest.raises(errors.InputError, match="3 values for 4 atoms"):
        io.write_chemiscope(path, frames, {"a": np.arange(3)})
