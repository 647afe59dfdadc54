"""Options as plain types, and what they refuse."""

from dataclasses import fields, replace

import numpy as np
import pytest
import yaml
from ase.build import bulk

from jaxvae_md.errors import OptionError
from jaxvae_md.learn import Config
from jaxvae_md.learn.config import _RULE_OF, resolve
from jaxvae_md.options import as_plain, from_plain

FULL = Config(
    seed=3,
    temperature=300.0,
    cutoff=5.1 + 1e-15,
    species=("O", "Si"),
    labels=("a",),
    nearest_distance=1 / 3,
    trial_start=2,
    trial_reference=(2, 3),
)


@pytest.mark.parametrize("config", [Config(), FULL])
def test_options_come_back_from_yaml_to_the_last_bit(config):
    text = yaml.safe_dump(as_plain(config))
    assert from_plain(Config, yaml.safe_load(text)) == config


def test_every_option_has_a_rule_and_no_rule_is_left_over():
    assert set(_RULE_OF) == {field.name for field in fields(Config)}


@pytest.mark.parametrize(
    ("name", "remedy"), [("sede", "did you mean seed?"), ("xyzzy", "known are seed, ")]
)
def test_an_unknown_option_is_refused_with_what_was_meant(name, remedy):
    with pytest.raises(OptionError, match=name) as caught:
        from_plain(Config, {name: 1})
    assert remedy in caught.value.remedy


WRONG = [
    ("seed", -1),
    ("seed", 1.5),
    ("seed", True),
    ("seed", "many"),
    ("num_rounds", 0),
    ("vae_steps", "lots"),
    ("held_out", 1.0),
    ("held_out", 0),
    ("temperature", -3.0),
    ("cutoff", float("nan")),
    ("novelty_band", [3.0, 1.0]),
    ("novelty_band", [1.0]),
    ("novelty_band", 2.0),
    ("acquisition", "random"),
    ("hidden", [8, 0.5]),
    ("hidden", [0]),
    ("hidden", 8),
    ("hidden", None),
    ("labeller", 3),
    ("species", ["Si", 14]),
    ("potential", "eam"),
    ("potential", ["lj"]),
    ("latent_dim", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(OptionError, match=name) as caught:
        from_plain(Config, {name: value})
    assert caught.value.remedy.startswith("give ")


@pytest.mark.parametrize("name", ["temperature", "cutoff", "trial_start", "nearest_distance"])
def test_what_the_data_decide_may_be_left_open(name):
    assert getattr(from_plain(Config, {name: None}), name) is None


def test_options_resolved_with_other_data_are_refused():
    frames = [bulk("Si"), bulk("Si")]
    for wrong in ({"species": ("Ge",)}, {"trial_start": 2}, {"trial_reference": (0, 7)}):
        with pytest.raises(OptionError, match="resolved with other data"):
            resolve(replace(Config(), **wrong), frames, np.arange(2))
