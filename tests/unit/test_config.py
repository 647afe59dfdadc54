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
