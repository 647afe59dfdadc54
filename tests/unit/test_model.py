"""A saved model: what it predicts, what it refuses, and who can use it."""

import json
import zipfile
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import coverage, errors, model
from jaxvae_md.model import Model, load_model, save_model
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces
from jaxvae_md.structure import from_atoms
from tests.asserts import assert_close
from tests.disk import file_size_limit
from tests.models import frames, made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    one = made()
    save_model(path, one)
    return path, one


def assert_same(a: Model, b: Model) -> None:
    assert a.architecture == b.architecture
    assert a.info == b.info
    for one, other in (
        (a.standardizer, b.standardizer),
        (a.params, b.params),
        (a.coverage, b.coverage),
        (a.vae_params, b.vae_params),
    ):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert np.asarray(x).dtype == np.asarray(y).dtype
            assert np.array_equal(x, y)


@pytest.mark.parametrize("potential", ["lj", "nn", "lj+nn"])
def test_a_model_comes_back_to_the_last_bit(tmp_path, potential):
    one = made(potential, vae=potential == "nn")
    save_model(tmp_path / "model.npz", one)
    assert_same(load_model(tmp_path / "model.npz"), one)
    assert_same(load_model(tmp_path), one)


def test_the_same_model_is_the_same_file(saved, tmp_path):
    path, one = saved
    save_model(tmp_path / "again.npz", one)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_the_file_is_arrays_and_json_without_pickle(saved):
    with np.load(saved[0], allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        assert header["format"] == 1
        assert header["architecture"]["species"] == ["Si"]
        assert "params/lennard_jones/sigma" in file.files


def test_energy_and_forces_are_those_of_the_potential(saved):
    path, one = saved
    atoms = frames()[3]
    structure = from_atoms(atoms, ("Si",))
    neighbors = neighbor_list(one.potential.cutoff).allocate(structure)
    energy, forces = energy_and_forces(one.potential.energy, one.params, structure, neighbors)
    atoms.calc = load_model(path).calculator()
    assert abs(atoms.get_potential_energy() - float(energy)) < 1e-9
    assert np.abs(atoms.get_forces() - forces).max() < 1e-9
    assert atoms.get_stress().shape == (6,)


def test_novelty_is_the_coverage_score_of_every_atom(saved):
    path, one = saved
    atoms = frames()[2]
    atoms.positions[0] += 0.8
    y = coverage.surroundings([atoms], one.architecture.descriptor, one.standardizer, 2.35)[0]
    expected = coverage.score(one.coverage, y)
    atoms.calc = load_model(path).calculator()
    found = atoms.calc.get_property("novelty", atoms)
    assert np.abs(found - expected).max() < 1e-8
    assert (found > float(one.coverage.threshold)).any()


def test_a_committee_knows_how_much_its_members_differ(saved, tmp_path):
    one = made()
    with pytest.raises(errors.OptionError, match="num_members: 4"):
        one.spread(None, None)
    architecture = replace(one.architecture, num_members=3)
    params = architecture.full(one.standardizer).init(jax.random.key(2))
    save_model(tmp_path / "model.npz", replace(one, architecture=architecture, params=params))
    model = load_model(tmp_path / "model.npz")
    structure = from_atoms(frames()[3], ("Si",))
    neighbors = neighbor_list(model.potential.cutoff).allocate(structure)
    forces = []
    for number in range(3):
        network = jax.tree.map(lambda leaf, i=number: leaf[i], params["network"])
        found = energy_and_forces(
            one.potential.energy, {**params, "network": network}, structure, neighbors
        )
        forces.append(np.asarray(found[1]))
    spread = model.spread(structure, neighbors)
    assert_close(spread.forces, np.sqrt(np.var(forces, axis=0, ddof=1).sum(axis=1)), 1e-4)
    mean = energy_and_forces(model.potential.energy, params, structure, neighbors)[1]
    assert_close(mean, np.mean(forces, axis=0), 1e-5)


def test_jax_md_gets_its_pair(saved):
    path, one = saved
    atoms = frames()[1]
    neighbor_fn, energy_fn = load_model(path).jax_md(atoms)
    position = jnp.asarray(atoms.positions)
    atoms.calc = one.calculator()
    energy = energy_fn(position, neighbor=neighbor_fn.allocate(position))
    assert abs(float(energy) - atoms.get_potential_energy()) < 1e-9


def loads_as(path, one: Model) -> bool:
    """Whether the file is refused (False), or is the model to the last bit (True)."""
    try:
        found = load_model(path)
    except errors.FileError:
        return False
    assert_same(found, one)
    return True


def test_no_flipped_bit_changes_a_model_unseen(saved, tmp_path):
    whole = saved[0].read_bytes()
    rng = np.random.default_rng(0)
    harmless = 0
    for _ in range(100):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (tmp_path / "model.npz").write_bytes(content)
        # what no reader looks at, a date in the archive say, may flip
        harmless += loads_as(tmp_path / "model.npz", saved[1])
    assert harmless < 30


def test_a_changed_number_is_noticed_though_the_archive_is_sound(saved, tmp_path):
    with np.load(saved[0]) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/lennard_jones/sigma"] = arrays["params/lennard_jones/sigma"] + 1e-12
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(errors.FileError, match="altered"):
        load_model(tmp_path / "model.npz")


def test_a_newer_format_is_refused_with_the_remedy(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "_FORMAT", 7)
    save_model(tmp_path / "model.npz", saved[1])
    monkeypatch.undo()
    with pytest.raises(errors.FileError, match="format 7") as caught:
        load_model(tmp_path / "model.npz")
    assert "upgrade" in caught.value.remedy


def foreign_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


FOREIGN = {
    "text": lambda path: path.write_text("model"),
    "empty": lambda path: path.write_bytes(b""),
    "archive": foreign_archive,
    "arrays": lambda path: np.savez(path, a=np.zeros(3)),
    "pickle": lambda path: np.savez(path, header=np.array([{}], dtype=object)),
    "no header": lambda path: np.savez(path, header=np.array("[1]")),
}


@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_no_model_is_refused(tmp_path, write):
    write(tmp_path / "model.npz")
    with pytest.raises(errors.FileError) as caught:
        load_model(tmp_path / "model.npz")
    assert caught.value.file == tmp_path / "model.npz"
    assert caught.value.remedy


def test_a_truncated_model_is_refused(saved, tmp_path):
    whole = saved[0].read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "model.npz").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(errors.FileError):
            load_model(tmp_path / "model.npz")


def test_a_missing_model_and_a_folder_without_one_are_refused(tmp_path):
    for path, words in ((tmp_path / "no.npz", "no such file"), (tmp_path, "no model.npz")):
        with pytest.raises(errors.FileError, match=words):
            load_model(path)


def test_a_full_disk_leaves_the_old_model(saved, tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, saved[1])
    before = path.read_bytes()
    with file_size_limit(1000), pytest.raises(errors.WriteError):
        save_model(path, made("lj"))
    assert path.read_bytes() == before
