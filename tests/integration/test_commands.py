"""One small run, and every command on it."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.optimize import BFGS

from jaxvae_md import errors, load_model, run, run_folder
from jaxvae_md.label import get_labeller, label
from jaxvae_md.learn import STAGES
from tests.integration.command import (
    COMMAND,
    assert_refused,
    assert_says_refused,
    environment,
    jaxvae_md,
)
from tests.integration.kills import learn_is_killed, md_is_killed, started
from tests.integration.runs import listing, metrics, small_silicon, without_time

TWO_ROUNDS = [(number, stage) for number in (0, 1) for stage in STAGES]


@pytest.fixture(scope="module")
def here(runs) -> Path:
    """Where frames, options, and a folder of each command are."""
    return runs.path


def test_json_is_one_object_on_stdout_and_equals_the_last_line(runs, here):
    for out in ("run", "fitted"):
        result = json.loads(runs.said[out])
        assert result == metrics(here / out)[-1]


def test_without_a_terminal_progress_is_a_line_a_stage(here, tmp_path):
    done = jaxvae_md("fit", "--config", here / "options.yaml", "--out", tmp_path / "f", cwd=here)
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "describe",
        "fit",
        "judge",
        "physics",
        "final",
    ]
    assert "held-out errors" in done.stdout


def test_a_fit_leaves_a_model_and_its_figures(here):
    names = {path.name for path in (here / "fitted").iterdir()}
    assert names == {
        ".lock", "config.yaml", "metrics.jsonl", "checkpoints", "model.npz", "figures"
    }  # fmt: skip
    figures = {path.name for path in (here / "fitted" / "figures").iterdir()}
    assert figures == {"parity.png", "pair_potential.png", "fit_training.png"}


@pytest.mark.slow
@pytest.mark.parametrize("potential", ["lj", "nn"])
def test_every_potential_can_be_fitted_and_learned(here, tmp_path, potential):
    done = jaxvae_md(
        "fit", "--config", here / "options.yaml", "--potential", potential, "--out", tmp_path / "f",
        cwd=here,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    terms = {"lj": {"reference", "lennard_jones"}, "nn": {"reference", "network"}}[potential]
    assert set(load_model(tmp_path / "f").params) == terms
    options = yaml.safe_load((here / "options.yaml").read_text())
    options |= {"potential": potential, "data": str(here / "si.extxyz")}
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(options))
    done = jaxvae_md("learn", "--config", "options.yaml", "--labeller", "sw", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(load_model(tmp_path / "jaxvae-md-run").params) == terms
    assert (tmp_path / "jaxvae-md-run" / "report.html").is_file()


@pytest.mark.slow
def test_a_killed_learn_ends_as_the_run_whose_resolved_options_it_took(runs, tmp_path):
    learn_is_killed(runs, tmp_path, 1)


@pytest.mark.slow
def test_md_killed_twice_ends_the_same(runs, tmp_path):
    md_is_killed(runs, tmp_path, 2, "nvt")


@pytest.mark.slow
def test_generate_makes_structures_that_the_run_did_not(here, tmp_path):
    before = listing(here / "run")
    done = jaxvae_md("generate", here / "run", "--num", 12, "--out", "new.extxyz", "--json",
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    frames = ase.io.read(tmp_path / "new.extxyz", ":")
    assert 0 < len(frames) == result["num_generated"] <= 12
    known = ase.io.read(here / "run" / "generated.extxyz", ":")
    for atoms in frames:
        assert atoms.info["novelty"] > 1
        for other in (*known, *(a for a in frames if a is not atoms)):
            apart = atoms.positions - other.positions if len(atoms) == len(other) else np.inf
            assert np.abs(apart).max() > 1e-2
    assert listing(here / "run") == before
    again = ["generate", here / "run", "--num", 12, "--out", "new.extxyz"]
    assert_refused(*again, cwd=tmp_path, words="is there already")


@pytest.mark.slow
def test_md_with_a_run_and_with_a_model_file(here, tmp_path):
    ase.io.write(tmp_path / "start.extxyz", small_silicon()[:2], format="extxyz")
    for model, out in ((here / "run", "md-of-start"), (here / "run" / "model.npz", "other")):
        done = jaxvae_md("md", model, "start.extxyz", "--steps", 40, "--record-every", 20,
                         "--out", out, "--json", cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["steps"] == 40
    for name in ("trajectory.extxyz", "thermo.csv", "summary.json", "md.png", "model.npz"):
        ours, theirs = ((tmp_path / out / name).read_bytes() for out in ("md-of-start", "other"))
        assert ours == theirs, name
    first, *_ = ase.io.read(tmp_path / "other" / "trajectory.extxyz", ":")
    # the last frame of the file is the start
    assert np.abs(first.positions - small_silicon()[1].positions).max() < 1e-6
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(tmp_path / "other", moved)
    done = jaxvae_md("md", "--resume", moved, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outside the training data" in done.stdout


@pytest.mark.slow
def test_the_options_of_an_md_repeat_it_with_others(here, tmp_path):
    command = ["md", here / "fitted", here / "si.extxyz", "--config", here / "md" / "config.yaml"]
    done = jaxvae_md(*command, "--steps", 40, "--out", "again", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["steps"] == 40, done.stderr
    ours, theirs = (path / "thermo.csv" for path in (tmp_path / "again", here / "md"))
    assert ours.read_text().splitlines()[:4] == theirs.read_text().splitlines()[:4]
    (tmp_path / "wrong.yaml").write_text("stepz: 40")
    command[-1] = tmp_path / "wrong.yaml"
    assert_refused(*command, cwd=tmp_path, words="unknown option 'stepz'")


def test_a_model_of_a_run_works_in_ase(here):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.02, seed=3)
    atoms.calc = load_model(here / "run").calculator()
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=30)
    assert atoms.get_potential_energy() < before
    assert atoms.calc.get_property("novelty", atoms).shape == (8,)


def labelled(path: Path, out: Path) -> None:
    frames = ase.io.read(path, ":")
    done = label(frames, get_labeller("sw"))
    ase.io.write(out, done, format="extxyz")


@pytest.mark.slow
def test_labelled_structures_join_the_data_and_another_round_begins(here, tmp_path):
    done = jaxvae_md("learn", "--config", here / "options.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "jaxvae-md learn --resume run" in done.stdout
    before = listing(tmp_path / "run")
    labelled(tmp_path / "run" / "to_label.extxyz", tmp_path / "labelled.extxyz")
    done = jaxvae_md("learn", "--resume", "run", "--labelled", "labelled.extxyz", "--json",
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = metrics(tmp_path / "run")
    assert [(record["round"], record["stage"]) for record in records] == TWO_ROUNDS
    new = len(ase.io.read(tmp_path / "labelled.extxyz", ":"))
    by_stage = {(record["round"], record["stage"]): record for record in records}
    frames = [by_stage[number, "describe"]["num_frames"] for number in (0, 1)]
    assert frames == [16, 16 + new]
    kept = listing(tmp_path / "run" / "round_0")
    assert kept == {name: before[name] for name in kept}
    assert {"generated.extxyz", "to_label.extxyz", "model.npz", "report.html"} <= set(kept)
    again = ["learn", "--resume", "run", "--labelled", "labelled.extxyz"]
    assert_refused(*again, cwd=tmp_path, words="among the run's data already")
    # a kill after the labels were taken: the same line goes on
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    done = jaxvae_md(*again, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "have joined the training data already" in done.stderr
    assert without_time(json.loads(done.stdout)) == without_time(records[-1])


@pytest.mark.slow
def test_labelled_structures_join_those_that_the_labeller_labelled(here, tmp_path):
    shutil.copytree(here / "run", tmp_path / "run")
    new = bulk("Si", cubic=True)
    new.rattle(0.07, seed=99)
    new.info["label"] = "crystal"
    mine = label([new], get_labeller("sw"))
    ase.io.write(tmp_path / "mine.extxyz", mine, format="extxyz")
    done = jaxvae_md("learn", "--resume", "run", "--labelled", "mine.extxyz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = metrics(tmp_path / "run")
    (generated,) = [r["num_labelled"] for r in records if (r["stage"], r["round"]) == ("label", 0)]
    (frames,) = [r["num_frames"] for r in records if (r["stage"], r["round"]) == ("describe", 1)]
    assert generated > 0
    assert frames == 16 + generated + 1


def test_labelled_structures_that_do_not_fit_are_refused(here, tmp_path):
    ase.io.write(tmp_path / "bare.extxyz", bulk("Si"), format="extxyz")
    ge = label([bulk("Si")], get_labeller("sw"))[0]
    ge.symbols[:] = "Ge"
    strange = label([bulk("Si")], get_labeller("sw"))[0]
    strange.info["label"] = "liquid"
    for name, atoms in (("ge", ge), ("strange", strange)):
        ase.io.write(tmp_path / f"{name}.extxyz", atoms, format="extxyz")
    before = listing(here / "run")
    for name, words in (
        ("missing", "no such file"),
        ("bare", "bare.extxyz, frame 0: no energy"),
        ("ge", "ge.extxyz, frame 0, atom 0: Ge"),
        ("strange", "strange.extxyz, frame 0: the label 'liquid'"),
    ):
        command = ["learn", "--resume", here / "run", "--labelled", f"{name}.extxyz"]
        assert_refused(*command, cwd=tmp_path, words=words)
    assert_refused("learn", "--labelled", "ge.extxyz", cwd=tmp_path, words="needs --resume")
    assert listing(here / "run") == before


@pytest.mark.slow
def test_rounds_with_a_labeller_follow_each_other(here, tmp_path):
    done = jaxvae_md("learn", "--config", here / "options.yaml", "--labeller", "sw", "--rounds", 2,
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = metrics(tmp_path / "jaxvae-md-run")
    assert [(record["round"], record["stage"]) for record in records] == TWO_ROUNDS
    assert (tmp_path / "jaxvae-md-run" / "round_0" / "model.npz").is_file()
    lines = (tmp_path / "jaxvae-md-run" / "labels.jsonl").read_text().splitlines()
    labelled = sum(r["num_labelled"] for r in records if r["stage"] == "label")
    # the frames whose labels were compared with the labeller's come first
    assert len(lines) == 16 + labelled


BAD_CONFIGS = {
    "unknown": ("sede: 1", "unknown option 'sede'"),
    "type": ("vae_steps: lots", "vae_steps is 'lots'"),
    "range": ("held_out: 2", "held_out is 2"),
    "list": ("- 1", "cannot be read as options"),
    "no yaml": ("a: [", "cannot be read as options"),
    "code": ("x: !!python/object/apply:os.system ['touch hacked']", "cannot be read as options"),
    "module": ("labeller: evil:label", "code is only imported when you name it yourself"),
    "data": ("data: missing.extxyz", "no such file"),
    "other data": ("species: [Ge]\ndata: si.extxyz", "resolved with other data"),
}


@pytest.mark.parametrize(("text", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
def test_a_bad_config_is_refused_before_anything_is_written(here, tmp_path, text, words):
    (tmp_path / "evil.py").write_text("open('hacked', 'w')")
    shutil.copy(here / "si.extxyz", tmp_path)
    (tmp_path / "options.yaml").write_text(text)
    before = set(os.listdir(tmp_path))
    assert_refused("learn", "--config", "options.yaml", cwd=tmp_path, words=words)
    assert set(os.listdir(tmp_path)) == before


def test_an_error_as_json_says_where(here, tmp_path):
    frames = small_silicon()[:3]
    frames[1].positions[4] = frames[1].positions[5]
    ase.io.write(tmp_path / "bad.extxyz", frames, format="extxyz")
    done = jaxvae_md("learn", "bad.extxyz", "--json", cwd=tmp_path)
    assert done.returncode == 2
    error = json.loads(done.stdout)
    assert (error["file"], error["frame"], error["atom"], error["exit"]) == ("bad.extxyz", 1, 4, 2)
    assert "same place" in error["error"]
    assert error["remedy"]


@pytest.mark.parametrize("option", ["--bogus", "--rounds=x"])
def test_a_wrong_word_on_the_command_line_is_an_error_as_every_other(tmp_path, option):
    done = jaxvae_md("learn", option, cwd=tmp_path)
    name = option.split("=")[0]
    assert_says_refused(done.returncode, done.stdout, done.stderr, name)
    assert "learn --help" in done.stderr
    done = jaxvae_md("learn", "--json", option, cwd=tmp_path)
    assert done.returncode == json.loads(done.stdout)["exit"] == 2
    assert name in json.loads(done.stdout)["error"]


def test_an_interrupted_md_says_how_to_go_on(here, tmp_path):
    start = started(
        ["md", str(here / "fitted"), str(here / "si.extxyz"), "--steps", "200000", "--out", "md"],
        tmp_path,
    )
    thermo = tmp_path / "md" / "thermo.csv"
    while not thermo.exists() or thermo.stat().st_size < 6000:
        time.sleep(0.05)
        assert start.poll() is None, start.communicate()
    start.send_signal(signal.SIGINT)
    stdout, stderr = start.communicate(timeout=60)
    assert (start.returncode, stdout) == (1, "")
    assert stderr.endswith(
        "error: interrupted; what was finished is kept\n"
        "  remedy: jaxvae-md md --resume md continues\n"
    )
    with run_folder.opened(tmp_path / "md", "md") as folder:
        assert folder.last().info["step"] > 0


def test_options_of_a_run_from_python_say_that_the_data_are_missing(here, tmp_path):
    options = yaml.safe_load((here / "fitted" / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**options, "data": None}))
    words = "came from Python"
    assert_refused("learn", "--config", "config.yaml", cwd=tmp_path, words=words)
    assert_refused("fit", "--config", "config.yaml", cwd=tmp_path, words="no data")


REFUSED = {
    "learn of an md": (["learn", "--resume", "md"], "a run of jaxvae-md md"),
    "learn of a fit": (["learn", "--resume", "fitted"], "a run of jaxvae-md fit"),
    "generate of a fit": (["generate", "fitted"], "a run of jaxvae-md fit"),
    "generate of nothing": (["generate", "nothing"], "no such folder"),
    "generate none": (["generate", "run", "--num", "0"], "num is 0"),
    "md of nothing": (["md", "nothing", "si.extxyz"], "no such file"),
    "md of frames": (["md", "si.extxyz", "si.extxyz"], "cannot be read as a model"),
    "md without a start": (["md", "run"], "RUN and START are needed"),
    "md of a missing start": (["md", "run", "nothing.extxyz"], "no such file"),
    "md ensemble": (["md", "run", "si.extxyz", "--ensemble", "nvx"], "ensemble is 'nvx'"),
    "md steps": (["md", "run", "si.extxyz", "--steps", "-5"], "steps is -5"),
    "md resumed with options": (["md", "--resume", "md", "--steps", "9"], "own data and options"),
    "fit without data": (["fit"], "no data"),
    "fit potential": (["fit", "si.extxyz", "--potential", "eam"], "potential is 'eam'"),
    "resumed elsewhere": (["learn", "--resume", "run", "--out", "x"], "own data and options"),
    "resumed with options": (["learn", "--resume", "run", "--seed", "1"], "own data and options"),
    "another labeller": (["learn", "--resume", "run", "--labeller", "none"], "labeller is sw"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused(here, arguments, words):
    before = listing(here)
    assert_refused(*arguments, cwd=here, words=words)
    assert listing(here) == before


def test_a_second_process_is_refused(here):
    with run_folder.opened(here / "run", "learn"):
        for command in (["learn", "--resume", "run"], ["generate", "run"]):
            done = jaxvae_md(*command, cwd=here)
            words = f"process {os.getpid()} on"
            assert_says_refused(done.returncode, done.stdout, done.stderr, words)


def test_an_edited_run_is_refused(here, tmp_path):
    shutil.copytree(here / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert_refused("learn", "--resume", "run", cwd=tmp_path, words="options were edited")


@pytest.mark.slow
def test_what_is_missing_of_a_finished_run_or_was_altered_is_written_again(here, tmp_path):
    shutil.copytree(here / "run", tmp_path / "run")
    for name in ("model.npz", "metrics.jsonl", "figures/parity.png"):
        (tmp_path / "run" / name).unlink()
    altered = {"report.html": b"", "generated.extxyz": b"mine", "figures/rdf.png": b"dots"}
    for name, content in altered.items():
        (tmp_path / "run" / name).write_bytes(content)
    done = jaxvae_md("learn", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("model.npz", *altered):
        assert f"{name} is missing or was altered" in done.stderr
    kept = {f"{name}.altered-1": content for name, content in altered.items()}
    assert listing(tmp_path / "run") == listing(here / "run") | kept
    done = jaxvae_md("learn", "--resume", "run", cwd=tmp_path)
    assert "altered" not in done.stderr
    assert listing(tmp_path / "run") == listing(here / "run") | kept


@pytest.mark.slow
def test_a_labeller_that_fails_ends_the_run_and_the_run_goes_on(here, tmp_path):
    (tmp_path / "flaky.py").write_text(
        "import os\n"
        "from jaxvae_md.label import get_labeller\n"
        "sw = get_labeller('sw')\n"
        "def label(atoms):\n"
        "    if 'start_frame' in atoms.info and 'broken' in os.listdir():\n"
        "        raise OSError('the cluster is down')\n"
        "    return sw(atoms)\n"
    )
    (tmp_path / "broken").touch()
    arguments = ["learn", "--config", here / "options.yaml", "--labeller", "flaky:label"]
    done = jaxvae_md(*arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "the cluster is down" in done.stderr
    assert "jaxvae-md learn --resume jaxvae-md-run" in done.stderr
    (tmp_path / "broken").unlink()
    resume = ["learn", "--resume", "jaxvae-md-run"]
    assert_refused(*resume, cwd=tmp_path, words="code is only imported when you name it")
    done = jaxvae_md(*resume, "--labeller", "flaky:label", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_full_disk_is_reported_before_anything_is_said_to_be_saved(here, tmp_path):
    learn = ["learn", "--config", str(here / "options.yaml"), "--labeller", "sw", "--out", "full"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", *COMMAND, *learn],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    error, remedy = done.stderr.splitlines()[-2:]
    assert error.startswith("error: file ") and "cannot be written (File too large)" in error
    assert "make room on the disk" in remedy
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if ".part-" in path.name]
    words = ["learn", "--resume", "full"] if (tmp_path / "full").exists() else learn
    done = jaxvae_md(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = metrics(tmp_path / "full"), metrics(here / "run")
    assert [without_time(r) for r in ours] == [without_time(r) for r in theirs]


def test_python_gets_the_same_errors(tmp_path):
    with pytest.raises(errors.FileError, match="no such folder"):
        run.resume(tmp_path / "nothing", None)
