"""The closed loop from data to report, as small as it can be."""

import json
import shutil
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from jaxvae_md import datasets, errors, io
from jaxvae_md.checkpoint import from_tree, load_checkpoint
from jaxvae_md.label import get_labeller, label, potential_labeller
from jaxvae_md.learn import State
from jaxvae_md.learn.state import restored
from jaxvae_md.options import as_plain
from jaxvae_md.potentials import lennard_jones
from jaxvae_md.run import new_run, resume
from tests.integration.runs import TINY, config_of_run, metrics, small_silicon, without_time

STAGES = [
    "describe",
    "vae",
    "fit",
    "judge",
    "generate",
    "label",
    "refit",
    "simulate",
    "refine",
    "physics",
    "final",
]
FINAL = {
    "stage",
    "force_mae_mev_per_angstrom",
    "energy_mae_mev_per_atom",
    "vae_r2",
    "pca_r2",
    "active_dims",
    "num_generated",
    "seconds",
}


@pytest.fixture(scope="module")
def finished(runs):
    """A whole run: its folder and what it returned."""
    return runs.path / "run", json.loads(runs.said["run"])


def test_a_run_leaves_everything_it_promises(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        ".lock",
        "config.yaml",
        "metrics.jsonl",
        "checkpoints",
        "labels.jsonl",
        "generated.extxyz",
        "model.npz",
        "report.html",
        "figures",
    }
    assert len(list((folder / "figures").glob("*.png"))) >= 7
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 7
    assert 'src="http' not in report
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_metrics_have_a_line_for_every_stage_and_the_figures_in_the_last(finished):
    folder, final = finished
    records = metrics(folder)
    assert [record["stage"] for record in records] == STAGES
    assert set(records[-1]) >= FINAL
    assert records[-1] == final
    numbers = [final[name] for name in FINAL - {"stage"}]
    assert np.isfinite(numbers).all()
    assert final["seconds"] >= sum(record["seconds"] for record in records[:-1]) - 0.1


def test_generated_structures_are_readable_and_labelled(finished):
    folder, final = finished
    assert final["num_generated"] > 0, "nothing to look at"
    frames = io.read_frames(folder / "generated.extxyz")
    assert len(frames) == final["num_generated"]
    labeller = get_labeller("sw")
    for atoms in frames:
        assert atoms.info["label"] == "generated"
        assert atoms.info["novelty"] > 1
        assert 0 <= atoms.info["center"] < len(atoms)
        assert np.shape(atoms.info["latent"]) == (TINY.latent_dim,)
        energy, forces = labeller(atoms)
        assert abs(energy - atoms.get_potential_energy()) < 1e-5
        assert np.abs(forces - atoms.get_forces()).max() < 1e-5


def test_the_resolved_options_are_those_of_the_run(finished):
    folder, _ = finished
    config = config_of_run(folder)
    assert config.species == ("Si",)
    assert config.labels == ("crystal", "strained")
    assert config.cutoff == round(2.55 * config.nearest_distance, 1)
    changed = {"species", "labels", "cutoff", "nearest_distance", "trial_start", "trial_reference"}
    for name, value in as_plain(TINY).items():
        if name not in changed:
            assert as_plain(config)[name] == value


def test_a_folder_with_a_run_is_refused(finished):
    folder, _ = finished
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(errors.OutputError, match="another run"):
        new_run(small_silicon(), TINY, folder, get_labeller("sw"))
    assert (folder / "metrics.jsonl").read_bytes() == before


def copied(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    return folder


def last_checkpoint(folder):
    return max((folder / "checkpoints").iterdir())


def test_a_finished_run_resumes_to_the_same_result(finished, tmp_path):
    assert resume(copied(finished, tmp_path), get_labeller("sw")) == finished[1]


def test_a_run_resumes_from_an_earlier_checkpoint_to_the_same_result(finished, tmp_path):
    folder = copied(finished, tmp_path)
    shutil.rmtree(last_checkpoint(folder))
    assert without_time(resume(folder, get_labeller("sw"))) == without_time(finished[1])
    assert [record["stage"] for record in metrics(folder)] == STAGES


def test_a_state_of_a_version_without_stress_is_read(finished):
    tree = load_checkpoint(last_checkpoint(finished[0])).tree
    del tree["data"]["stress"], tree["labels"]["stress"]
    state = restored(tree)
    for dataset in (state.data, state.labels):
        assert dataset.stress.shape == (len(dataset.energy), 3, 3)
        assert np.isnan(dataset.stress).all()


def test_a_damaged_checkpoint_is_passed_over(finished, tmp_path):
    folder = copied(finished, tmp_path)
    file = next((last_checkpoint(folder) / "d").iterdir())
    file.write_bytes(file.read_bytes()[::-1])
    assert without_time(resume(folder, get_labeller("sw"))) == without_time(finished[1])


def test_a_run_keeps_to_having_a_labeller(finished, tmp_path):
    folder = copied(finished, tmp_path)
    with pytest.raises(errors.OptionError, match="labeller is sw, and none was given"):
        resume(folder, None)
    with pytest.raises(errors.OptionError, match="labeller is none, and one was given"):
        new_run(
            small_silicon(), replace(TINY, labeller="none"), tmp_path / "new", get_labeller("sw")
        )
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_whole_checkpoint_cannot_resume(finished, tmp_path):
    folder = copied(finished, tmp_path)
    for checkpoint in (folder / "checkpoints").iterdir():
        (checkpoint / "manifest.json").unlink()
    with pytest.raises(errors.FileError, match="no whole checkpoint"):
        resume(folder, get_labeller("sw"))


def test_bad_data_leave_no_folder(tmp_path):
    with pytest.raises(errors.InputError):
        new_run(small_silicon()[:2], TINY, tmp_path / "run", get_labeller("sw"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result_and_another_does_not(runs, finished, tmp_path):
    frames = io.read_frames(runs.path / "si.extxyz")
    again = new_run(frames, TINY, tmp_path / "again", get_labeller("sw"))
    assert without_time(again) == without_time(finished[1])
    other = new_run(frames, replace(TINY, seed=1), tmp_path / "other", get_labeller("sw"))
    assert without_time(other) != without_time(finished[1])


@pytest.mark.slow
def test_a_run_that_stopped_half_way_resumes_to_the_same_result(
    runs, finished, tmp_path, monkeypatch
):
    from jaxvae_md.learn import loop

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "refit_potential", broken)
    with pytest.raises(KeyboardInterrupt):
        new_run(io.read_frames(runs.path / "si.extxyz"), TINY, tmp_path / "run", get_labeller("sw"))
    monkeypatch.undo()
    assert metrics(tmp_path / "run")[-1]["stage"] == "label"
    result = resume(tmp_path / "run", get_labeller("sw"))
    assert without_time(result) == without_time(finished[1])


def salt() -> list[Atoms]:
    """Rock salt of two kinds of atoms, labelled by a Lennard-Jones mixture."""
    sigma = np.array([[2.0, 2.25], [2.25, 2.6]])
    epsilon = np.array([[0.1, 0.5], [0.5, 0.1]])
    mixture = lennard_jones(("Na", "Cl"), 6.0, sigma, epsilon)
    frames = []
    for number in range(12):
        atoms = bulk("NaCl", "rocksalt", 5.1 + 0.03 * number, cubic=True)
        atoms.rattle(0.12, seed=number)
        frames.append(atoms)
    return label(frames, potential_labeller(mixture, mixture.init(None)))


@pytest.mark.slow
def test_two_elements_without_a_labeller_wait_to_be_labelled(tmp_path):
    config = replace(TINY, labeller="none")
    final = new_run(salt(), config, tmp_path / "run", None)
    assert set(final) >= FINAL
    assert config_of_run(tmp_path / "run").species == ("Na", "Cl")
    assert final["num_generated"] > 0, "nothing to look at"
    waiting = ase.io.read(tmp_path / "run" / "to_label.extxyz", ":")
    assert len(waiting) == final["num_generated"]
    assert all(atoms.calc is None for atoms in waiting)
    assert all(sorted(set(atoms.symbols)) == ["Cl", "Na"] for atoms in waiting)
    for record in metrics(tmp_path / "run"):
        if record["stage"] == "label":
            assert record["num_labelled"] == 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_frames_that_are_all_alike_still_make_a_run(tmp_path):
    # one label, one density: nothing varies but thermal motion, and a gap need not be found
    frames = [atoms for atoms in small_silicon() if atoms.info["label"] == "crystal"]
    final = new_run(frames, replace(TINY, labeller="none"), tmp_path / "run", None)
    assert set(final) >= FINAL
    assert len(metrics(tmp_path / "run")) == len(STAGES)


@pytest.mark.slow
def test_unlearned_parameters_that_blow_up_at_once_are_no_obstacle(tmp_path):
    # atoms so close for their unlearned sigma that the first steps are not finite
    frames = small_silicon()
    config = replace(TINY, labeller="none", nearest_distance=6.0, cutoff=6.0)
    final = new_run(frames, config, tmp_path / "run", None)
    assert set(final) >= FINAL
    assert len(metrics(tmp_path / "run")) == len(STAGES)
    trial = from_tree(State, load_checkpoint(last_checkpoint(tmp_path / "run")).tree).trial
    assert int(trial.unlearned.error) != 0, "it did not blow up"
    assert len(trial.unlearned.position) == 0


@pytest.mark.slow
def test_isolated_molecules_make_a_run(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for number in range(12):
        corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 2.35 / 3**0.5
        atoms = Atoms("Si5", [[0, 0, 0], *corners])
        atoms.rattle(0.15, seed=number)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-10.0 + rng.normal(), forces=rng.normal(size=(5, 3))
        )
        frames.append(atoms)
    final = new_run(frames, replace(TINY, labeller="none"), tmp_path / "run", None)
    assert set(final) >= FINAL
    assert len(metrics(tmp_path / "run")) == len(STAGES)


@pytest.mark.slow
def test_the_embedded_set_runs(tmp_path):
    frames = datasets.silicon()[::8]
    assert len({len(atoms) for atoms in frames}) > 1, "sizes must differ"
    final = new_run(frames, TINY, tmp_path / "run", get_labeller("sw"))
    assert set(final) >= FINAL
    assert set(config_of_run(tmp_path / "run").labels) == {atoms.info["label"] for atoms in frames}
