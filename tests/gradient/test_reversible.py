"""Gradients of simulations: backwards, checkpointed and forward, in float64."""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.errors import OptionError, RunError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.pair_list import PairList
from jaxvae_md.potentials import lennard_jones, stillinger_weber
from jaxvae_md.simulate import (
    HorizonWarning,
    begin,
    horizon,
    npt_langevin,
    nve,
    nvt_langevin,
    rollout,
    value_and_grad,
    warn_past_horizon,
)
from jaxvae_md.structure import stack
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient
from tests.tiers import some_slow

KEY = jax.random.key(3)
MIXTURE = lennard_jones(("Ar", "Kr"), 6.0, [3.4, 3.6], [0.0103, 0.014], "switch", onset=4.5)
SILICON = stillinger_weber()


def mixed(structure):
    """Every third atom is of the second species."""
    return structure._replace(species=(np.arange(len(structure.mask)) % 3 == 0).astype(np.int32))


def silicon():
    """Of two cells, so that atoms meet some of their images."""
    structure = systems.repeated(systems.si8(rattle=0.0), (2, 1, 1))
    return systems.make(structure.position, structure.cell, rattle=0.1)


CASES = {
    "all pairs": (ARGON, crystal(rattle=0.05), AllPairs, 150.0),
    "list": (ARGON, crystal((5, 4, 4), rattle=0.05), PairList, 150.0),
    "two species": (MIXTURE, mixed(crystal((5, 4, 4), rattle=0.05)), PairList, 150.0),
    "two species, all pairs": (MIXTURE, mixed(crystal(rattle=0.05)), AllPairs, 150.0),
    "silicon": (SILICON, silicon(), NeighborList, 600.0),
}


@cache
def begun(name: str):
    potential, structure, kind, kelvin = CASES[name]
    simulator = nve(potential, dt=2.0 if kind is NeighborList else 5.0, skin=0.3)
    params = potential.init(KEY)
    state = begin(simulator, params, structure, KEY, kelvin, extra=2.0)
    assert isinstance(state.neighbors, kind)
    return simulator, params, state


def loss_fn(params, last, trajectory):
    """Sensitive to all that a simulation returns."""
    del params
    shape = last.structure.position.shape
    of_x, of_p, of_f, of_m = np.random.default_rng(5).normal(size=(4, *shape))
    t = len(trajectory.temperature)
    return (
        jnp.sum(of_x * last.structure.position**2) / 100
        + jnp.sum(of_f * last.dynamics.force)
        + jnp.sum(of_m * last.dynamics.mass) / 100
        + jnp.sum(of_p * jnp.mean(trajectory.momentum, axis=0))
        + jnp.sum(of_p * trajectory.position[0])
        + jnp.sum(jnp.arange(1, 1 + t) * trajectory.potential_energy)
        + 0.01 * jnp.sum(trajectory.temperature)
    )


def losses(name: str, num_steps: int, every: int, adjoint: str):
    """(params, position, momentum, mass at the start) -> loss"""
    simulator, _, state = begun(name)

    def loss(params, position, momentum, mass):
        dynamics = state.dynamics.set(position=position, momentum=momentum, mass=mass)
        start = state._replace(
            dynamics=dynamics, structure=state.structure._replace(position=position)
        )
        return loss_fn(params, *rollout(simulator, params, start, num_steps, every, adjoint))

    return loss


def start_of(name: str):
    _, params, state = begun(name)
    dynamics = state.dynamics
    return params, dynamics.position, dynamics.momentum, dynamics.mass


@pytest.mark.parametrize("every", [20, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some_slow([*CASES], "list"))
def test_backwards_is_reverse_mode(name, every):
    start = start_of(name)
    there, back = (
        jax.jit(jax.value_and_grad(losses(name, 100, every, adjoint), argnums=(0, 1, 2, 3)))(*start)
        for adjoint in ("stored", "reversible")
    )
    for one, other in zip(*map(jax.tree.leaves, (back, there)), strict=True):
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize("name", some_slow([*CASES], "all pairs"))
def test_backwards_is_the_slope(name):
    params, *start = start_of(name)
    loss = losses(name, 50, 25, "reversible")
    assert_gradient(lambda p: loss(p, *start), params, step=1e-6, rtol=1e-4)


def test_the_list_is_built_again_on_both_ways():
    simulator, params, state = begun("list")
    options = {"num_steps": 100, "record_every": 100, "adjoint": "reversible"}
    last, _ = jax.jit(partial(rollout, simulator, **options))(params, state)
    built = last.neighbors.reference_position
    assert not np.array_equal(built, state.structure.position)
    assert np.abs(built - state.structure.position).max() > 0.3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    simulator, params, state = begun("list")

    def temporary(num_steps):
        function = jax.jit(value_and_grad(loss_fn, simulator, num_steps))
        return function.lower(params, state).compile().memory_analysis().temp_size_in_bytes

    # but for the start of every thousandth step: a position and a momentum
    growth = temporary(10_000) - temporary(1_000)
    assert growth <= 4 * 9 * state.structure.position.nbytes


@pytest.mark.parametrize("adjoint", some_slow(["stored", "checkpointed", "forward"], "forward"))
def test_every_way_has_the_same_value_and_gradient(adjoint):
    simulator, params, state = begun("all pairs")
    expected = jax.jit(value_and_grad(loss_fn, simulator, 60, 1))(params, state)
    found = jax.jit(value_and_grad(loss_fn, simulator, 60, 1, adjoint))(params, state)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert_close(one, other, 1e-10)
    assert int(found.error) == 0


@pytest.mark.slow
def test_systems_side_by_side_have_the_gradients_of_each():
    simulator, params, _ = begun("all pairs")
    each = [crystal(rattle=0.02 + 0.03 * number) for number in range(3)]
    together = begin(simulator, params, stack(each), KEY, 100.0)

    def loss(params, state):
        _, trajectory = rollout(simulator, params, state, 40, 20, "reversible")
        return jnp.sum(trajectory.potential_energy**2)

    gradient = jax.jit(jax.grad(loss))
    alone = [
        gradient(params, jax.tree.map(lambda leaf, k=number: leaf[k], together))
        for number in range(3)
    ]
    total = jax.tree.map(lambda *leaves: sum(leaves), *alone)
    for one, other in zip(*map(jax.tree.leaves, (gradient(params, together), total)), strict=True):
        assert_close(one, other, 1e-9)


# what must not pass for a gradient


def test_a_way_back_that_is_another_one_is_no_gradient():
    # a liquid in single precision, longer than rounding errors stay small
    structure = systems.single(crystal(rattle=0.3))
    simulator = nve(ARGON, dt=5.0)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    state = begin(simulator, params, structure, KEY, 600.0)
    # a prime number of them has no starts between
    measured = partial(value_and_grad, loss_fn, simulator, 1999)
    sensitivity = jax.jit(measured())(params, state)
    assert int(sensitivity.error) == errors.NOT_FINITE
    assert not np.isfinite(sensitivity.gradient["sigma"]).any()
    # with frames to start from anew it is one, if a large one
    often = jax.jit(value_and_grad(loss_fn, simulator, 2000))(params, state)
    assert int(often.error) == 0


@pytest.mark.slow
def test_a_list_that_overflows_is_no_gradient():
    simulator, params, state = begun("list")
    few = state.neighbors._replace(places=state.neighbors.places[:20])
    sensitivity = jax.jit(value_and_grad(loss_fn, simulator, 100))(
        params, state._replace(neighbors=few)
    )
    assert int(sensitivity.error) == errors.NEIGHBOR_OVERFLOW | errors.NOT_FINITE


def test_what_has_no_way_back_is_refused():
    simulator, params, state = begun("all pairs")
    with pytest.raises(OptionError, match="no derivative by the cell"):
        jax.grad(
            lambda cell: rollout(
                simulator,
                params,
                state._replace(structure=state.structure._replace(cell=cell)),
                4,
                adjoint="reversible",
            )[1].potential_energy[-1]
        )(state.structure.cell)
    langevin = nvt_langevin(ARGON)
    other = begin(langevin, PARAMS, crystal(), KEY)
    with pytest.raises(OptionError, match="only nve"):
        rollout(langevin, PARAMS, other, 4, adjoint="reversible")
    with pytest.raises(OptionError, match="adjoint is 'back'"):
        rollout(simulator, params, state, 4, adjoint="back")  # pyright: ignore
    with pytest.raises(OptionError, match="adjoint is 'back'"):
        value_and_grad(loss_fn, simulator, 4, adjoint="back")  # pyright: ignore


# the horizon


def test_a_liquid_has_a_horizon_and_a_cold_crystal_none():
    simulator = nve(ARGON, dt=5.0)
    liquid = begin(simulator, PARAMS, crystal((3, 3, 3), rattle=0.4), KEY, 300.0)
    steps = horizon(simulator, PARAMS, liquid)
    assert 200 < steps < 2000
    with pytest.warns(HorizonWarning, match="5000 steps"):
        assert warn_past_horizon(simulator, PARAMS, liquid, 5000) == steps
    cold = begin(simulator, PARAMS, crystal((3, 3, 3)), KEY, 2.0)
    assert horizon(simulator, PARAMS, cold) > 1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_past_horizon(simulator, PARAMS, cold, 5000)


def test_the_horizon_of_every_ensemble_and_none_of_a_list_without_room():
    simulator = npt_langevin(ARGON, 5.0, 300.0, friction=1e-5, compressibility=1e-4)
    state = begin(simulator, PARAMS, crystal((3, 3, 3), rattle=0.4), KEY, 300.0, extra=1.5)
    assert 50 < horizon(simulator, PARAMS, state, 200) < 5000
    full = state._replace(neighbors=state.neighbors._replace(overflow=jnp.array(True)))
    with pytest.raises(RunError, match="horizon's simulation"):
        horizon(simulator, PARAMS, full, 200)
