"""Checkpoints: nothing is lost, nothing is altered unseen."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import checkpoint, errors
from jaxvae_md.checkpoint import from_tree, load_checkpoint, save_checkpoint, to_tree
from jaxvae_md.coverage import CoverageModel, Kinds, LatentRatio, LocalRatio
from jaxvae_md.coverage.ratio import Density, RegionEncoder
from jaxvae_md.coverage.references import References
from jaxvae_md.descriptors import Standardizer
from jaxvae_md.learn.state import Dataset, State, Trial
from jaxvae_md.simulate import Trajectory
from jaxvae_md.structure import stack
from tests import systems
from tests.disk import file_size_limit


def full_state() -> State:
    """A state in which some parts are there and others are not."""
    dataset = Dataset(
        stack([systems.si8(), systems.bcc()]),
        np.array([1.0, 2.0]),
        np.ones((2, 8, 3)),
        np.full((2, 3, 3), np.nan),
        np.array([0, 1]),
    )
    references = References(np.ones((2, 3, 4)), np.ones((2, 3), bool))
    density = Density(references, np.ones((2, 3, 1)), np.ones((2, 3, 1), int), np.array(0.1))
    kinds = Kinds(references, np.ones((2, 3), int), np.array([0, 1]), np.eye(2), np.array(2.0))
    coverage = CoverageModel(
        LocalRatio(density, density), np.array(1.5), np.array(1.6), np.array(0.05), kinds
    )
    return State(
        round=np.array(1),
        data=dataset,
        train=np.array([0]),
        test=np.array([1]),
        standardizer=Standardizer(np.arange(3.0), np.ones(3)),
        vae_params={"encoder": {"hidden": {"layer_0": {"kernel": jnp.ones((2, 3))}}}},
        coverage=coverage,
        history={"fit": np.array([3.0, 2.0])},
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def test_a_checkpoint_gives_back_the_state(tmp_path):
    state = full_state()
    save_checkpoint(tmp_path / "checkpoint", to_tree(state))
    back = from_tree(State, load_checkpoint(tmp_path / "checkpoint").tree)
    assert_same(back, state)
    assert back.generated is None
    assert back.params is None
    assert back.coverage is not None
    assert isinstance(back.coverage.method, LocalRatio)
    assert isinstance(back.coverage.method.near, Density)


def test_of_a_union_the_type_with_these_fields_comes_back(tmp_path):
    full = full_state().coverage
    assert full is not None
    encoder = RegionEncoder(Standardizer(np.zeros(4), np.ones(4)), {"w": np.ones(2)}, np.ones(2))
    other = full._replace(method=LatentRatio(full.method.region, full.method.near, encoder))
    for model in (full, other):
        save_checkpoint(tmp_path / "c", to_tree(model))
        assert_same(from_tree(CoverageModel, load_checkpoint(tmp_path / "c").tree), model)


def test_a_checkpoint_keeps_parts_without_elements(tmp_path):
    # a simulation that blew up at once has no frames
    frames, values = np.zeros((0, 5, 3)), np.zeros(0)
    nothing = Trajectory(frames, frames, np.zeros((0, 3, 3)), values, values, np.array(2))
    curves = dict.fromkeys(("r", "rdf_unlearned", "rdf_learned", "rdf_reference"), np.ones(4))
    values = dict.fromkeys(("temperature", "energy_reference", "outside"), np.array(1.0))
    trial = Trial(unlearned=nothing, learned=nothing, reference=None, **curves, **values)
    state = full_state()._replace(trial=trial)
    save_checkpoint(tmp_path / "checkpoint", to_tree(state))
    assert_same(from_tree(State, load_checkpoint(tmp_path / "checkpoint").tree), state)


@pytest.mark.parametrize("kind", [np.int32, np.bool_, np.float32])
def test_arrays_without_elements_keep_their_type(kind):
    back = from_tree(None, to_tree({"a": np.zeros((0, 3), kind)}))["a"]
    assert back.shape == (0, 3) and back.dtype == kind


def test_saving_a_checkpoint_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path / "checkpoint", {"a": np.full(3, value)})
    assert load_checkpoint(tmp_path / "checkpoint").tree["a"][0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def saved(tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, {"a": np.arange(1000.0), "b": {"c": np.ones(7)}})
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
    load_checkpoint(folder)
    damage(folder, file)
    with pytest.raises(errors.FileError) as caught:
        load_checkpoint(folder)
    assert caught.value.file == folder
    assert "earlier checkpoint" in caught.value.remedy


def test_a_checkpoint_that_is_not_there_is_a_file_error(tmp_path):
    with pytest.raises(errors.FileError):
        load_checkpoint(tmp_path / "nothing")


def test_an_interrupted_checkpoint_leaves_the_old_one(tmp_path, monkeypatch):
    folder, _ = saved(tmp_path)
    monkeypatch.setattr(checkpoint, "digests", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(folder, {"a": np.zeros(1)})
    monkeypatch.undo()
    assert len(load_checkpoint(folder).tree["a"]) == 1000


def test_an_interrupt_waits_until_the_arrays_are_written(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    save = ocp.PyTreeCheckpointer.save

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        save(*args, **kwargs)

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", interrupted)
    # a shell ignores interrupts of what it runs in the background
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "c", {"x": np.zeros(3)})
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)
    # the arrays are there, and the next checkpoint of that name clears them
    assert list(tmp_path.glob(".part-c/*"))
    monkeypatch.undo()
    save_checkpoint(tmp_path / "c", {"x": np.ones(3)})
    assert np.array_equal(load_checkpoint(tmp_path / "c").tree["x"], np.ones(3))


def test_json_beside_the_arrays_comes_back(tmp_path):
    info = {"step": 3, "marks": {"a": [1, 2]}, "share": 0.1, "none": None}
    save_checkpoint(tmp_path / "checkpoint", {"a": np.zeros(1)}, info)
    assert load_checkpoint(tmp_path / "checkpoint").info == info


def test_every_flipped_bit_is_noticed(tmp_path):
    """A hundred random bits of all files, the manifest and Orbax's own files among them."""
    folder, _ = saved(tmp_path)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    sizes = np.array([path.stat().st_size for path in files])
    rng = np.random.default_rng(0)
    # every file is hit, small ones too
    chosen = [*range(len(files)), *rng.choice(len(files), 100, p=sizes / sizes.sum())]
    for number in chosen:
        whole = files[number].read_bytes()
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        files[number].write_bytes(content)
        with pytest.raises(errors.FileError):
            load_checkpoint(folder)
        files[number].write_bytes(whole)
    load_checkpoint(folder)


def test_a_checkpoint_of_a_newer_version_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT", 99)
    folder, _ = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(errors.FileError, match="newer") as caught:
        load_checkpoint(folder)
    assert "upgrade" in caught.value.remedy


def test_a_full_disk_is_a_write_error_and_leaves_the_old_checkpoint(tmp_path):
    folder, _ = saved(tmp_path)
    with file_size_limit(20_000), pytest.raises(errors.WriteError, match="too large") as caught:
        save_checkpoint(folder, {"a": np.random.default_rng(0).random(100_000)})
    assert str(folder) in str(caught.value.file)
    assert os.listdir(tmp_path) == [folder.name]
    assert len(load_checkpoint(folder).tree["a"]) == 1000


def test_what_a_killed_process_left_is_cleared(tmp_path):
    for name in (".part-saved", ".part-saved.orbax-checkpoint-tmp", ".part-saved-by-another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    save_checkpoint(tmp_path / "saved", {"a": np.zeros(3)})
    assert sorted(os.listdir(tmp_path)) == [".part-saved-by-another", "saved"]
