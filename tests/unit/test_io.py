import os

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import errors, io
from jaxvae_md.coverage import CoverageModel, LocalRatio
from jaxvae_md.descriptors import Standardizer
from jaxvae_md.generate import Targets
from jaxvae_md.learn.state import Dataset, State, Trial, from_tree, to_tree
from jaxvae_md.simulate import Trajectory
from jaxvae_md.structure import stack
from tests import systems


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


def full_state() -> State:
    """A state in which some parts are there and others are not."""
    dataset = Dataset(
        stack([systems.si8(), systems.bcc()]),
        np.array([1.0, 2.0]),
        np.ones((2, 8, 3)),
        np.array([0, 1]),
    )
    ratio = LocalRatio(np.ones((2, 3, 4)), np.ones((2, 3), bool), np.ones((2, 3)), np.array(0.1))
    return State(
        round=np.array(1),
        data=dataset,
        train=np.array([0]),
        test=np.array([1]),
        standardizer=Standardizer(np.arange(3.0), np.ones(3)),
        vae_params={"encoder": {"hidden": {"layer_0": {"kernel": jnp.ones((2, 3))}}}},
        coverage=CoverageModel((ratio, ratio), np.array(1.5), np.array(0.02), np.array([0, 1])),
        history={"fit": np.array([3.0, 2.0])},
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)


def test_a_checkpoint_gives_back_the_state(tmp_path):
    state = full_state()
    io.save_checkpoint(tmp_path / "checkpoint", to_tree(state))
    back = from_tree(io.load_checkpoint(tmp_path / "checkpoint"))
    assert_same(back, state)
    assert back.targets is None
    assert back.params is None
    assert back.coverage is not None
    assert isinstance(back.coverage.ratios[1], LocalRatio)


def test_a_checkpoint_keeps_parts_without_elements(tmp_path):
    # a simulation that blew up at once has no frames, and there may be no gap to fill
    targets = Targets(*(np.zeros((0, 3)),) * 2, *(np.zeros(0),) * 3)
    nothing = Trajectory(np.zeros((0, 8, 3)), np.zeros(0), np.zeros(0), np.array(2))
    curves = dict.fromkeys(("r", "rdf_unlearned", "rdf_learned", "rdf_reference"), np.ones(4))
    values = dict.fromkeys(("temperature", "energy_reference", "outside"), np.array(1.0))
    trial = Trial(unlearned=nothing, learned=nothing, reference=None, **curves, **values)
    state = full_state()._replace(targets=targets, trial=trial)
    io.save_checkpoint(tmp_path / "checkpoint", to_tree(state))
    assert_same(from_tree(io.load_checkpoint(tmp_path / "checkpoint")), state)


def test_saving_a_checkpoint_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        io.save_checkpoint(tmp_path / "checkpoint", {"a": np.full(3, value)})
    assert io.load_checkpoint(tmp_path / "checkpoint")["a"][0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def saved(tmp_path):
    folder = tmp_path / "checkpoint"
    io.save_checkpoint(folder, {"a": np.arange(1000.0), "b": {"c": np.ones(7)}})
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return folder, max(files, key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda folder, file: flip(file),
    "a missing file": lambda folder, file: file.unlink(),
    "a foreign file": lambda folder, file: (folder / "foreign").write_text("x"),
    "a manifest cut short": lambda folder, file: (folder / "manifest.json").write_text("{"),
    "no manifest": lambda folder, file: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    folder, file = saved(tmp_path)
    io.load_checkpoint(folder)
    damage(folder, file)
    with pytest.raises(errors.FileError) as caught:
        io.load_checkpoint(folder)
    assert caught.value.file == folder
    assert "earlier checkpoint" in caught.value.remedy


def test_a_checkpoint_that_is_not_there_is_a_file_error(tmp_path):
    with pytest.raises(errors.FileError):
        io.load_checkpoint(tmp_path / "nothing")


def test_an_interrupted_checkpoint_leaves_the_old_one(tmp_path, monkeypatch):
    folder, _ = saved(tmp_path)
    monkeypatch.setattr(io, "_digests", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        io.save_checkpoint(folder, {"a": np.zeros(1)})
    monkeypatch.undo()
    assert len(io.load_checkpoint(folder)["a"]) == 1000


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


def test_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    io.write_text(path, "é\n")
    with pytest.raises(UnicodeEncodeError):
        io.write_text(path, "beta \udce9")
    assert path.read_text(encoding="utf-8") == "é\n"
    assert os.listdir(tmp_path) == ["metrics.jsonl"]
