"""Where the options of a command come from, and which win."""

import pytest

from jaxvae_md import errors
from jaxvae_md.cli.config_file import gathered


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("seed: 3\nlabeller: my_dft:label\ndata: si.extxyz\n")
    return path


def test_what_is_given_wins_over_the_file_and_the_file_over_quick(config):
    options = gathered(config, quick=True, seed=4, labeller="none", num_rounds=None)
    assert options["seed"] == 4
    assert options["labeller"] == "none"
    assert options["vae_steps"] > 0
    assert "num_rounds" not in options


def test_data_are_beside_the_file(config):
    options = gathered(config, labeller="my_dft:label")
    assert options["data"] == str(config.parent / "si.extxyz")


def test_the_name_of_the_embedded_data_is_no_file(config):
    config.write_text("data: embedded-silicon")
    assert gathered(config)["data"] == "embedded-silicon"


def test_a_name_that_is_there_twice_is_refused(config):
    config.write_text("seed: 3\nsteps: 10\nseed: 4\n")
    with pytest.raises(errors.FileError, match="'seed' is there twice"):
        gathered(config)


def test_code_is_only_named_on_the_command_line(config):
    with pytest.raises(errors.OptionError, match="my_dft:label") as caught:
        gathered(config, seed=1)
    assert "--labeller my_dft:label" in caught.value.remedy
