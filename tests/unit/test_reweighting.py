"""Averages by reweighting, and fits of them."""

import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import fit, units
from jaxvae_md.errors import OptionError, RunError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables import pressure
from jaxvae_md.potentials import lennard_jones
from jaxvae_md.simulate import begin, nvt_langevin
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient

KEY = jax.random.key(0)
KELVIN = 90.0
SIMULATOR = nvt_langevin(ARGON, dt=5.0, temperature=KELVIN)
OTHER = {"sigma": 1.002 * PARAMS["sigma"], "epsilon": 1.05 * PARAMS["epsilon"]}


@cache
def ensemble():
    state = begin(SIMULATOR, PARAMS, crystal(), KEY, KELVIN)
    options = {"temperature": KELVIN, "record_every": 20, "equilibration": 100}
    return fit.sample(SIMULATOR, PARAMS, state, 400, **options)[0]


def energies(params):
    """Frame by frame, each with a list of its own."""
    frames = jax.tree.map(np.asarray, ensemble().structure)
    allocate = neighbor_list(ARGON.cutoff).allocate
    each = [frames._replace(position=x) for x in frames.position]
    return np.array([float(ARGON.energy(params, one, allocate(one))) for one in each])


@pytest.mark.slow
def test_weights_are_those_of_boltzmann():
    assert_close(ensemble().energy, energies(PARAMS), 1e-12)
    w, worth = fit.weights(ARGON, PARAMS, ensemble())
    assert_close(w, np.full(20, 1 / 20), 1e-12)
    assert_close(worth, 20.0, 1e-12)
    w, worth = fit.weights(ARGON, OTHER, ensemble())
    expected = np.exp(-(energies(OTHER) - energies(PARAMS)) / (units.BOLTZMANN * KELVIN))
    expected /= expected.sum()
    assert_close(w, expected, 1e-9)
    assert_close(worth, np.exp(-np.sum(expected * np.log(expected))), 1e-9)
    assert 1 < float(worth) < 19


def test_a_weighted_average_has_the_slope_by_parameters():
    observed, frames = np.random.default_rng(0).normal(size=20), ensemble()
    average = lambda params: jnp.sum(fit.weights(ARGON, params, frames)[0] * observed)
    assert_gradient(average, OTHER, step=1e-6)


def test_frames_denser_than_the_list_has_room_for_are_no_average():
    few = ensemble().neighbors
    few = few._replace(**{name: getattr(few, name)[:, :20] for name in ("index", "shift", "mask")})
    w, _ = fit.weights(ARGON, OTHER, ensemble()._replace(neighbors=few))
    assert np.isnan(w).all()


def observe(params, structure, neighbors):
    return pressure(ARGON, params, structure, neighbors) / units.GIGAPASCAL


def of_target(target):
    return lambda mean: (mean - target) ** 2


@pytest.mark.slow
def test_a_fit_samples_again_when_few_frames_are_left(monkeypatch):
    module, sampled = sys.modules["jaxvae_md.fit.reweighting"], []
    sample = module.sample
    counted = lambda *a, **o: sampled.append(a) or sample(*a, **o)
    monkeypatch.setattr(module, "sample", counted)
    options = {"key": KEY, "temperature": KELVIN, "num_steps": 400, "record_every": 20}
    options |= {"equilibration": 100, "num_updates": 6}
    target = float(np.mean([observe_frame(PARAMS, x) for x in ensemble().structure.position])) + 0.1
    result = fit.reweighting(of_target(target), observe, SIMULATOR, PARAMS, crystal(), **options)
    assert result.history.shape == (6,)
    assert result.history[-1] < 0.5 * result.history[0]
    assert 1 < len(sampled) < 7
    assert float(result.params["sigma"][0, 0]) != float(PARAMS["sigma"][0, 0])


@pytest.mark.slow
def test_phases_are_fitted_at_once_and_a_penalty_holds_the_parameters_back():
    kelvins, start = (60.0, 120.0), float(PARAMS["sigma"][0, 0])
    simulators = [nvt_langevin(ARGON, dt=5.0, temperature=kelvin) for kelvin in kelvins]
    options = {"key": KEY, "temperature": kelvins, "num_steps": 200, "record_every": 20}
    options |= {"equilibration": 100, "num_updates": 4}
    seen = []

    def loss(means):
        seen.append(means)
        return sum((mean - target) ** 2 for mean, target in zip(means, (0.2, 0.4), strict=True))

    def fitted(penalty):
        return fit.reweighting(
            loss, observe, simulators, PARAMS, [crystal()] * 2, penalty_fn=penalty, **options
        )

    free = fitted(None)
    assert isinstance(seen[0], list) and len(seen[0]) == 2
    assert free.history[-1] < free.history[0]
    held = fitted(lambda params: 1e6 * jnp.sum((params["sigma"] - start) ** 2))
    moved = [abs(float(result.params["sigma"][0, 0]) - start) for result in (free, held)]
    assert moved[1] < 0.2 * moved[0]


def test_phases_that_do_not_belong_together_are_refused():
    other = nvt_langevin(lennard_jones(("Ar",), 8.5), dt=5.0, temperature=KELVIN)
    arguments = of_target(0.0), observe
    for simulators, structures, kelvins, words in (
        ([SIMULATOR], [crystal()] * 2, [KELVIN] * 2, "1 simulators, 2 structures and 2 temp"),
        ([], [], [], "0 simulators"),
        ([SIMULATOR], crystal(), [KELVIN], "no list of structures"),
        ([SIMULATOR], [crystal()], KELVIN, "no list of structures"),
        ([SIMULATOR, other], [crystal()] * 2, [KELVIN] * 2, "of several potentials"),
    ):
        with pytest.raises(OptionError, match=words):
            fit.reweighting(
                *arguments, simulators, PARAMS, structures, key=KEY, temperature=kelvins
            )


def observe_frame(params, position):
    one = crystal()._replace(position=np.asarray(position))
    return observe(params, one, neighbor_list(ARGON.cutoff).allocate(one))


def test_bad_options_and_absurd_parameters_are_told():
    options = {"key": KEY, "temperature": KELVIN, "equilibration": 0}
    arguments = of_target(0.0), observe, SIMULATOR
    with pytest.raises(OptionError, match="min_effective"):
        fit.reweighting(*arguments, PARAMS, crystal(), min_effective=1.5, **options)
    with pytest.raises(OptionError, match="record_every"):
        fit.reweighting(*arguments, PARAMS, crystal(), num_steps=5, record_every=50, **options)
    absurd = {"sigma": 4 * PARAMS["sigma"], "epsilon": 100 * PARAMS["epsilon"]}
    with pytest.raises(RunError, match="sampling"):
        fit.reweighting(*arguments, absurd, crystal(), num_steps=100, **options)
    worthless = lambda mean: jnp.nan * mean
    with pytest.raises(RunError, match="not finite at update 0"):
        fit.reweighting(worthless, observe, SIMULATOR, PARAMS, crystal(), num_steps=100, **options)
