"""The table at the end of a run."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxvae_md import run
from jaxvae_md.cli.learning import _physics
from jaxvae_md.errors import LabelError
from jaxvae_md.label import get_labeller, remembered
from jaxvae_md.learn.evaluate import evaluate
from jaxvae_md.learn.physics import crystal_structure, found_properties, physics

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def finished(runs):
    state, config = run.finished_state(runs.path / "run")
    return state, replace(config, physics=True, stability_steps=0)


@pytest.mark.slow
def test_the_model_stands_beside_its_reference(finished, tmp_path):
    state, config = finished
    labeller = remembered(get_labeller("sw"), tmp_path / "labels.jsonl")
    options = replace(config, stability_steps=20)
    state, info = physics(state, options, labeller, KEY, False)
    assert info["crystal"] == "diamond"
    columns = found_properties(state)
    assert columns["reference"].lattice_constant == pytest.approx(5.431, abs=1e-3)
    assert np.isnan(columns["reference"].shortest_pair)
    if "model" in columns:
        # a model of four hundred updates
        assert 4.5 < columns["model"].lattice_constant < 6.5
        assert 0.0 <= columns["model"].shortest_pair < 2.5
    else:
        assert "no minimum" in info["without_model"] or "relax" in info["without_model"]
    _, final = evaluate(state, config, KEY, False)
    text = "\n".join(_physics(final))
    assert "lattice constant (angstrom)" in text and "5.431" in text


def test_a_reference_that_fails_leaves_its_reason(finished):
    state, config = finished

    def labeller(atoms):
        raise LabelError("it does not converge")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxvae_md.learn.physics.potential_labeller", lambda *_: labeller)
        state, info = physics(state, config, labeller, KEY, False)
    assert info["without_reference"] == info["without_model"] == "it does not converge"
    assert found_properties(state) == {}
    assert _physics({"energy": 1.0}) == []


def test_columns_come_in_one_order(finished):
    state, _ = finished
    columns = {"model": np.arange(8.0), "reference": np.arange(8.0)}
    for names in (("model", "reference"), ("reference", "model")):
        stored = state._replace(properties={name: columns[name] for name in names})
        assert list(found_properties(stored)) == ["reference", "model"]


def test_what_is_no_cubic_crystal_has_no_table(finished):
    state, config = finished
    assert crystal_structure(("Si",)) == "diamond"
    assert crystal_structure(("W",)) == "bcc" and crystal_structure(("Cu",)) == "fcc"
    assert crystal_structure(("Ti",)) is crystal_structure(("O", "Si")) is None
    for options in (replace(config, species=("Ti",)), replace(config, physics=False)):
        after, info = physics(state, options, None, KEY, False)
        assert after is state and "reason" in info
