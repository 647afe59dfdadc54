"""Options of the loop that were resolved before."""

from dataclasses import replace

import pytest

from jaxvae_md import errors
from jaxvae_md.learn import start
from jaxvae_md.learn.config import Config, split
from tests.integration.runs import small_silicon


def test_resolved_options_are_kept_and_never_try_on_held_out_frames():
    frames = small_silicon()
    _, config = start(frames, Config())
    assert start(frames, config)[1] == config
    refused = 0
    for seed in range(1, 9):
        _, test = split(frames, config.held_out, seed)
        if {config.trial_start, *config.trial_reference} & set(test.tolist()):
            refused += 1
            with pytest.raises(errors.OptionError, match="another seed"):
                start(frames, replace(config, seed=seed))
        else:
            assert start(frames, replace(config, seed=seed))[1].trial_start == config.trial_start
    assert refused


def test_the_reference_of_the_frames_is_noted_and_no_other_is_taken():
    frames = small_silicon()
    for atoms in frames:
        atoms.info["reference"] = "a code"
    _, config = start(frames, Config())
    assert config.reference == "a code"
    assert start(frames, config)[1] == config
    with pytest.raises(errors.OptionError, match="the frames are of 'a code'"):
        start(frames, Config(reference="another code"))
