"""Kill -9 at any moment: a resumed run ends as if it had never been killed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import pytest
import yaml

from jaxvae_md.checkpoint import load_checkpoint
from jaxvae_md.options import as_plain
from tests.integration.kills import finish, same_after_kills
from tests.integration.test_loop import TINY, small_silicon

# small enough that most of a run is not JAX's start
SHORT = replace(TINY, md_steps=20, refine_updates=0, num_generated=1, lj_steps=20, fit_steps=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Frames, options, and a fitted model to simulate with."""
    path = tmp_path_factory.mktemp("kill")
    ase.io.write(path / "si.extxyz", small_silicon(), format="extxyz")
    derived = {"species", "labels"}
    options = {k: v for k, v in as_plain(SHORT).items() if v is not None and k not in derived}
    (path / "options.yaml").write_text(yaml.safe_dump({"data": "si.extxyz", **options}))
    finish(["fit", "--config", "options.yaml", "--quiet", "--out", "fitted"], path)
    return path


def assert_same_files(folder: Path, reference: Path, ignored: tuple[str, ...] = ()) -> None:
    files = lambda top: {
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.is_file() and "checkpoints" not in path.parts and path.name != ".lock"
    }
    assert files(folder) == files(reference)
    for name in files(reference) - set(ignored):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name


def without_seconds(path: Path) -> list[dict]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def assert_same_run(folder: Path, reference: Path) -> None:
    """Every file bit by bit; the seconds of metrics.jsonl are those of a clock."""
    assert_same_files(folder, reference, ignored=("metrics.jsonl",))
    metrics = [without_seconds(path / "metrics.jsonl") for path in (folder, reference)]
    assert metrics[0] == metrics[1]
    ours, theirs = (
        load_checkpoint(max((p / "checkpoints").iterdir())) for p in (folder, reference)
    )
    assert_same_tree(ours.tree, theirs.tree)


def assert_same_tree(one, other) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_tree(one[name], other[name])
    else:
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def learn_is_killed(folder: Path, num_kills: int) -> None:
    command = ["learn", "--config", "options.yaml", "--quiet", "--out"]
    same_after_kills(command, ["learn", "--quiet", "--resume"], folder, num_kills, assert_same_run)


def md_is_killed(folder: Path, num_kills: int, ensemble: str) -> None:
    command = ["md", "fitted", "si.extxyz", "--ensemble", ensemble, "--steps", "2000", "--quiet"]
    same_after_kills(
        [*command, "--out"], ["md", "--quiet", "--resume"], folder, num_kills, assert_same_files
    )


@pytest.fixture
def fresh(folder, tmp_path) -> Path:
    """A copy, so that tests do not meet each other's runs."""
    shutil.copytree(folder, tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.slow
def test_learn_killed_twenty_times_ends_the_same(fresh):
    learn_is_killed(fresh, 20)


@pytest.mark.slow
@pytest.mark.parametrize(("ensemble", "num_kills"), [("nve", 3), ("nvt", 4), ("npt", 3)])
def test_md_killed_ten_times_ends_the_same(fresh, ensemble, num_kills):
    md_is_killed(fresh, num_kills, ensemble)


def test_md_killed_twice_ends_the_same(fresh):
    md_is_killed(fresh, 2, "nvt")


def test_learn_killed_twice_ends_the_same(fresh):
    learn_is_killed(fresh, 2)
