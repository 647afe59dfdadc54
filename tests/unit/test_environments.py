"""Fits that match environments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import fit
from jaxvae_md.descriptors import chebyshev
from jaxvae_md.errors import RunError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.simulate import HorizonWarning, begin, nve, rollout
from jaxvae_md.structure import stack
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close

KEY = jax.random.key(0)
DESCRIPTOR = chebyshev(("Ar",), 5.0, 3, 5.0, 2)
SIMULATOR = nve(ARGON, dt=5.0)
WRONG = {"sigma": 1.01 * PARAMS["sigma"], "epsilon": 0.97 * PARAMS["epsilon"]}


def starts():
    """Two crystals of different density."""
    small = crystal(rattle=0.3)
    large = small._replace(position=1.03 * small.position, cell=1.03 * small.cell)
    return stack([small, large])


def described(position, cell):
    """Descriptors of a frame, with a list of its own."""
    frame = crystal()._replace(position=np.asarray(position), cell=np.asarray(cell))
    return np.asarray(DESCRIPTOR(frame, neighbor_list(5.0).allocate(frame)))


@pytest.mark.slow
def test_parameters_are_found_by_the_environments_of_several_systems():
    state = begin(SIMULATOR, PARAMS, starts(), KEY, 120.0, extra=1.5)
    _, there = jax.jit(lambda: rollout(SIMULATOR, PARAMS, state, 60, 30))()
    each = [[described(there.position[t, b], there.cell[t, b]) for t in (0, 1)] for b in (0, 1)]
    target = np.array(each)
    seen = []

    def discrepancy_fn(codes):
        seen.append(codes.shape)
        return jnp.mean((codes - target) ** 2)

    result = fit.environment_matching(
        DESCRIPTOR,
        discrepancy_fn,
        SIMULATOR,
        WRONG,
        state,
        cutoff=5.0,
        num_steps=60,
        record_every=30,
    )
    assert seen[0] == target.shape == (2, 2, 32, DESCRIPTOR.num_features)
    assert result.history.min() < 1e-3 * result.history[0]
    for name in PARAMS:
        assert_close(result.params[name], PARAMS[name], 4e-3)


def test_a_fit_past_the_horizon_warns_and_one_that_fails_is_an_error():
    state = begin(SIMULATOR, PARAMS, crystal(rattle=0.1), KEY, 400.0, extra=1.5)
    nothing = lambda codes: jnp.nan * jnp.sum(codes)
    arguments = DESCRIPTOR, nothing, SIMULATOR, PARAMS, state
    options = {"cutoff": 5.0, "record_every": 1500, "adjoint": "reversible", "num_updates": 0}
    with pytest.warns(HorizonWarning), pytest.raises(RunError, match="first simulation"):
        fit.environment_matching(*arguments, num_steps=1500, **options)
