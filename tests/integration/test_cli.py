"""The command line on its own: help, and input that is refused before anything is written."""

import os
from importlib.metadata import version
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import datasets
from tests.integration.command import assert_refused, jaxvae_md


def silicon(scale: float = 1.0, label: bool = True, seed: int = 0) -> Atoms:
    """Two atoms with the labels of no reference."""
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=seed)
    if label:
        forces = scale * np.random.default_rng(seed).normal(size=(2, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-8.0 * scale, forces=forces)
    return atoms


def several() -> list[Atoms]:
    return [silicon(seed=seed) for seed in range(6)]


def overlapping() -> Atoms:
    atoms = silicon()
    atoms.positions[1] = atoms.positions[0] + atoms.cell[0]
    return atoms


def unknown_species(path: Path) -> None:
    ase.io.write(path, several(), format="extxyz")
    head, _, last = path.read_text().rpartition("Si ")
    path.write_text(f"{head}Xx {last}")


def with_labels(energy=-8.0, force=1.0) -> Atoms:
    atoms = silicon()
    forces = np.full((2, 3), force)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def flat() -> Atoms:
    atoms = silicon()
    cell = atoms.cell.array
    cell[2] = cell[0] + cell[1]
    atoms.set_cell(cell)
    return atoms


def frames(*bad: Atoms):
    return lambda path: ase.io.write(path, [*several(), *bad], format="extxyz")


BAD_GEOMETRY = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_text(""), "no frames"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), "cannot be read"),
    "unknown species": (unknown_species, "frame 5: unknown element or key 'Xx'"),
    "same place": (frames(overlapping()), "frame 6, atom 0: two atoms at the same place"),
    "singular cell": (frames(flat()), "frame 6: the cell is singular"),
}
BAD_LABELS = {
    "no labels": (frames(silicon(label=False)), "frame 6: no energy"),
    "nan energy": (frames(with_labels(energy=np.nan)), "frame 6: the energy is not finite"),
    "nan force": (frames(with_labels(force=np.nan)), "frame 6, atom 0: the force is not finite"),
    "one frame": (lambda path: ase.io.write(path, silicon()), "too few"),
}


def assert_untouched(folder: Path, before: set[str]) -> None:
    assert {path.name for path in folder.iterdir()} == before


COMMANDS = ("learn", "fit", "generate", "md", "coverage")


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_names_every_command(tmp_path, arguments):
    done = jaxvae_md(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


def test_the_version_is_that_of_the_package(tmp_path):
    assert jaxvae_md("--version", cwd=tmp_path).stdout == f"jaxvae-md {version('jaxvae_md')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_and_json(tmp_path, command):
    done = jaxvae_md(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in ("--out", "--debug", "--json", "Example", f"jaxvae-md {command}"):
        assert words in done.stdout
    assert_untouched(tmp_path, set())


@pytest.mark.parametrize(
    ("write", "words"),
    [*BAD_GEOMETRY.values(), *BAD_LABELS.values()],
    ids=[*BAD_GEOMETRY, *BAD_LABELS],
)
def test_learn_refuses_bad_data_before_anything_is_written(tmp_path, write, words):
    write(tmp_path / "data.extxyz")
    before = set(os.listdir(tmp_path))
    said = assert_refused(
        "learn", "data.extxyz", "--out", "run", "--quiet", cwd=tmp_path, words=words
    )
    assert "data.extxyz" in said
    assert_untouched(tmp_path, before)


@pytest.mark.parametrize("name", ["missing", "same place"])
@pytest.mark.parametrize("place", ["train", "new"])
def test_coverage_refuses_bad_data_before_anything_is_written(tmp_path, name, place):
    write, words = BAD_GEOMETRY[name]
    for file in ("train", "new"):
        (write if file == place else frames())(tmp_path / f"{file}.extxyz")
    before = set(os.listdir(tmp_path))
    said = assert_refused(
        "coverage", "train.extxyz", "new.extxyz", "--out", "run", cwd=tmp_path, words=words
    )
    assert f"{place}.extxyz" in said
    assert_untouched(tmp_path, before)


def test_coverage_of_a_single_training_frame_is_refused(tmp_path):
    ase.io.write(tmp_path / "train.extxyz", silicon())
    frames()(tmp_path / "new.extxyz")
    assert_refused(
        "coverage",
        "train.extxyz",
        "new.extxyz",
        "--quiet",
        cwd=tmp_path,
        words="train.extxyz: 1 training frame",
    )
    assert_untouched(tmp_path, {"train.extxyz", "new.extxyz"})


@pytest.mark.parametrize("command", [["learn"], ["coverage", "a.extxyz", "b.extxyz"]])
def test_a_folder_of_another_run_is_left_alone(tmp_path, command):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    assert_refused(*command, "--out", "run", cwd=tmp_path, words="another run")
    assert (run / "config.yaml").read_text() == "seed: 0\n"
    assert_untouched(run, {"config.yaml"})


def test_a_folder_with_anything_else_and_a_file_are_left_alone(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for out, words in (("full", "not empty"), ("file", "is a file")):
        assert_refused("learn", "--out", out, cwd=tmp_path, words=words)
    assert (tmp_path / "full" / "mine.txt").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


def test_debug_shows_where_an_error_comes_from(tmp_path):
    done = jaxvae_md("learn", "missing.extxyz", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error: file missing.extxyz: no such file" in done.stderr


def test_the_embedded_reference_is_refused_beside_data_of_another(tmp_path):
    frames()(tmp_path / "data.extxyz")
    assert_refused(
        "learn",
        "data.extxyz",
        "--labeller",
        "sw",
        "--out",
        "run",
        "--quiet",
        cwd=tmp_path,
        words="data.extxyz, frame 0: the labeller sw did not make these labels",
    )
    assert_untouched(tmp_path, {"data.extxyz"})


@pytest.mark.parametrize("name", ["no_such_module:label", "dft"])
def test_an_unknown_labeller_is_refused(tmp_path, name):
    assert_refused("learn", "--labeller", name, "--out", "run", cwd=tmp_path, words=name)
    assert_untouched(tmp_path, set())


def test_resuming_what_is_no_run_is_refused(tmp_path):
    for command in ("learn", "fit", "md"):
        assert_refused(command, "--resume", "nothing", cwd=tmp_path, words="no such folder")
    assert_untouched(tmp_path, set())


@pytest.mark.slow
def test_coverage_says_which_atoms_are_outside(tmp_path):
    silicon = datasets.silicon()
    crystal, melt = silicon[:30:3], silicon[-1:]
    ase.io.write(tmp_path / "train.extxyz", crystal, format="extxyz")
    bare = [atoms.copy() for atoms in (*silicon[1:3], *melt)]
    ase.io.write(tmp_path / "new.extxyz", bare, format="extxyz")
    done = jaxvae_md("coverage", "train.extxyz", "new.extxyz", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outside the training data" in done.stdout
    out = tmp_path / "coverage-of-new"
    assert {path.name for path in out.iterdir()} >= {
        "coverage.extxyz",
        "coverage.png",
        "map.png",
        "coverage_by_frame.png",
        "calibration.png",
        "largest_group.png",
        "map.json.gz",
        "verdict.txt",
    }
    assert (out / "verdict.txt").read_text().strip() in done.stdout
    scored = ase.io.read(out / "coverage.extxyz", ":")
    shares = [atoms.arrays["outside"].mean() for atoms in scored]
    assert shares[-1] > 0.9
    assert max(shares[:-1]) < 0.5
    for atoms, given in zip(scored, bare, strict=True):
        assert np.allclose(atoms.positions, given.positions)
        threshold = atoms.info["coverage_threshold"]
        assert ((atoms.arrays["coverage_score"] > threshold) == atoms.arrays["outside"]).all()
        assert set(atoms.arrays["nearest_kind"]) == {"crystal"}
