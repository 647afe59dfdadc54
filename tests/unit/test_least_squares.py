"""Fits to their minimum, and the covariance of what they find."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.errors import InputError, RunError
from jaxvae_md.fit import Reference, least_squares
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, stillinger_weber, stress
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close

WRONG = {"sigma": 0.95 * PARAMS["sigma"], "epsilon": 1.5 * PARAMS["epsilon"]}


@cache
def labelled():
    """Crystals of 4 and 8 atoms with all that there is to know."""
    out = []
    for seed, times in enumerate([(1, 1, 1), (2, 1, 1), (1, 1, 1), (2, 1, 1)]):
        perfect = crystal(times)
        scale = 0.97 + 0.02 * seed
        structure = systems.make(
            scale * perfect.position, scale * perfect.cell, rattle=0.15, seed=seed
        )
        frame = structure, neighbor_list(ARGON.cutoff).allocate(structure)
        energy, forces = energy_and_forces(ARGON.energy, PARAMS, *frame)
        out.append(
            Reference(
                structure,
                float(energy),
                np.asarray(forces),
                np.asarray(stress(ARGON.energy, PARAMS, *frame)),
            )
        )
    return out


def only(*names):
    """The same frames, of which no more is known."""
    unknown = dict.fromkeys({"energy", "forces", "stress"} - set(names))
    return [reference._replace(**unknown) for reference in labelled()]


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(("energy", "forces"), marks=pytest.mark.slow),
        ("stress",),
        pytest.param(("energy", "stress"), marks=pytest.mark.slow),
    ],
)
def test_sigma_and_epsilon_are_found_from(known):
    result = least_squares(ARGON, WRONG, only(*known))
    for name in PARAMS:
        assert_close(result.params[name], PARAMS[name], 1e-6)
    assert result.history[-1] < 1e-8 * result.history[0]


@pytest.mark.slow
def test_the_covariance_is_that_of_repeated_fits():
    rng, found, stated = np.random.default_rng(0), [], []
    for _ in range(40):
        noisy = [
            reference._replace(
                energy=reference.energy + rng.normal(0, 1e-3 * len(reference.forces)),
                forces=reference.forces + rng.normal(0, 0.01, reference.forces.shape),
            )
            for reference in only("energy", "forces")
        ]
        result = least_squares(ARGON, PARAMS, noisy, energy_error=1e-3, force_error=0.01)
        found.append([float(result.params[name][0, 0]) for name in ("epsilon", "sigma")])
        stated.append(result.covariance)
    spread, covariance = np.cov(np.transpose(found)), np.mean(stated, axis=0)
    # of 40 fits a variance is known to a fifth
    assert (np.abs(np.diag(spread) / np.diag(covariance) - 1) < 0.6).all()
    assert_close(covariance, np.transpose(covariance), 1e-12)


def test_a_weight_of_zero_is_a_frame_less():
    references = only("forces")
    absurd = references[0]._replace(forces=10 * references[0].forces, weight=0.0)
    result = least_squares(ARGON, WRONG, [absurd, *references[1:]])
    assert_close(result.params["sigma"], PARAMS["sigma"], 1e-6)


def test_a_direction_that_the_data_leave_free_has_no_covariance():
    result = least_squares(ARGON, PARAMS, only("energy")[:1])
    assert np.isnan(result.covariance).all()


def test_nothing_known_is_told():
    with pytest.raises(InputError, match="nothing is known"):
        least_squares(ARGON, WRONG, only())


@pytest.mark.slow
def test_no_convergence_is_told():
    with pytest.raises(RunError, match="least squares"):
        least_squares(ARGON, WRONG, only("forces"), max_steps=1)


@pytest.mark.slow
def test_another_potential_is_fitted_by_the_same_call():
    silicon = stillinger_weber()
    params = silicon.init(None)
    structure = systems.si8(rattle=0.1)
    frame = structure, neighbor_list(silicon.cutoff).allocate(structure)
    energy, forces = energy_and_forces(silicon.energy, params, *frame)
    wrong = jax.tree.map(lambda p: 1.02 * jnp.asarray(p), params)
    result = least_squares(
        silicon, wrong, [Reference(structure, float(energy), np.asarray(forces))]
    )
    assert result.history[-1] < 1e-6 * result.history[0]
