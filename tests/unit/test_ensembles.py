"""What every ensemble keeps, whatever the list of neighbors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.pair_list import PairList
from jaxvae_md.potentials import stillinger_weber
from jaxvae_md.simulate import (
    advance,
    begin,
    chunks,
    npt_langevin,
    nve,
    nvt_langevin,
    nvt_nose_hoover,
    rollout,
    run,
)
from jaxvae_md.structure import stack
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
HOT = 300.0
FEW = crystal((2, 2, 1), rattle=0.1)
"""so few atoms that they need no list"""
MANY = crystal((5, 4, 4), rattle=0.1)
ENSEMBLES = {
    "nve": nve,
    "nvt_langevin": partial(nvt_langevin, temperature=HOT),
    "nvt_nose_hoover": partial(nvt_nose_hoover, temperature=HOT),
    "npt_langevin": partial(npt_langevin, temperature=HOT, compressibility=0.02),
}
SIMULATORS = {name: make(ARGON, dt=4.0) for name, make in ENSEMBLES.items()}
EVERY_ENSEMBLE = pytest.mark.parametrize("name", SIMULATORS)


def listed(simulator, structure):
    """A state with a list of the kind that serves every potential."""
    neighbors = simulator.neighbor_fns.allocate(structure, extra=1.6)
    return jax.jit(simulator.init)(KEY, PARAMS, structure, neighbors, 2 * HOT)


def numbers(state):
    """All that the next step depends on, save the list."""
    leaf = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return [np.asarray(leaf(x), float) for x in jax.tree.leaves((state.dynamics, state.structure))]


@pytest.mark.parametrize(
    ("name", "fast"),
    [(name, True) for name in SIMULATORS]
    + [("nve", False)]
    + [pytest.param(name, False, marks=pytest.mark.slow) for name in SIMULATORS if name != "nve"],
)
def test_an_advance_of_few_atoms_is_as_many_steps(name, fast):
    simulator = SIMULATORS[name]
    begun = partial(begin, simulator, PARAMS, FEW, KEY, 2 * HOT)
    before = begun() if fast else listed(simulator, FEW)
    assert isinstance(before.neighbors, AllPairs if fast else NeighborList)
    one = lambda state, _: (simulator.step(PARAMS, state), None)
    by_steps = jax.jit(lambda state: lax.scan(one, state, length=40)[0])(before)
    at_once = jax.jit(lambda state: advance(simulator, PARAMS, state, 40))(before)
    assert not at_once.neighbors.overflow
    if not fast:
        built = at_once.neighbors.reference_position
        assert not np.array_equal(built, before.structure.position), "never built again"
    for a, b, start in zip(*map(numbers, (at_once, by_steps, before)), strict=True):
        assert_close(a, b, 1e-9)
        assert a.shape == start.shape
    assert np.abs(at_once.structure.position - before.structure.position).max() > 0.3


def test_few_atoms_move_alike_with_and_without_a_list():
    simulator = SIMULATORS["nve"]
    steps = jax.jit(lambda state: advance(simulator, PARAMS, state, 40))
    with_list = listed(simulator, FEW)
    without = begin(simulator, PARAMS, FEW, KEY, momentum=with_list.dynamics.momentum)
    assert isinstance(without.neighbors, AllPairs)
    for a, b in zip(*(numbers(steps(state)) for state in (without, with_list)), strict=True):
        assert_close(a, b, 1e-9)


def test_many_atoms_continue_from_any_chunk_bit_by_bit():
    simulator = SIMULATORS["nve"]
    parts = lambda state, num: list(chunks(simulator, PARAMS, state, num, record_every=5, chunk=20))
    start = begin(simulator, PARAMS, MANY, KEY, 2 * HOT)
    assert len(MANY.position) > 300
    assert isinstance(start.neighbors, PairList)
    whole = parts(start, 60)
    for done in (1, 2):
        stopped = jax.tree.map(np.array, whole[done - 1].state)
        built = stopped.neighbors.reference_position
        assert not np.array_equal(built, MANY.position), "the list must be part of the state"
        assert not np.array_equal(built, stopped.structure.position)
        rest = parts(stopped, 60 - 20 * done)
        for a, b in zip(*map(jax.tree.leaves, (rest, whole[done:])), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


@pytest.mark.parametrize("times", [(2, 2, 1), (5, 4, 4)], ids=["all pairs", "list"])
def test_a_run_of_three_systems_is_that_of_each(times):
    simulator = SIMULATORS["nve"]
    each = [crystal(times, rattle=0.05 + 0.05 * number) for number in range(3)]
    options = {"record_every": 10, "chunk": 20}
    together = run(simulator, PARAMS, stack(each), KEY, 40, initial_temperature=HOT, **options)
    assert int(together.error) == 0
    momenta = begin(simulator, PARAMS, stack(each), KEY, HOT).dynamics.momentum
    assert together.temperature.shape == (4, 3)
    for number, system in enumerate(each):
        alone = begin(simulator, PARAMS, system, KEY, momentum=momenta[number])
        parts = [part.trajectory for part in chunks(simulator, PARAMS, alone, 40, **options)]
        for field in together._fields[:-1]:
            mine = np.concatenate([getattr(part, field) for part in parts])
            assert_close(getattr(together, field)[:, number], mine, 1e-8)


def test_a_rollout_without_a_list_has_the_gradient_by_sigma():
    simulator = SIMULATORS["nve"]
    state = begin(simulator, PARAMS, FEW, KEY, 40.0)
    assert isinstance(state.neighbors, AllPairs)
    weight = np.random.default_rng(0).normal(size=FEW.position.shape)

    def measured(sigma):
        params = PARAMS | {"sigma": sigma}
        final, trajectory = rollout(simulator, params, state, 20, record_every=20)
        return jnp.sum(weight * final.structure.position) + trajectory.potential_energy[-1]

    assert_gradient(measured, PARAMS["sigma"])
    final = jax.jit(lambda s: rollout(simulator, PARAMS, s, 20))(state)[0]
    moved = jax.jit(lambda s: advance(simulator, PARAMS, s, 20))(state)
    assert_close(final.structure.position, moved.structure.position, 1e-9)


@pytest.mark.parametrize("kind", [AllPairs, PairList, NeighborList])
@pytest.mark.parametrize("name", ["nve", "nvt_langevin"])
def test_single_precision_stays_single_beside_double(name, kind):
    assert jax.config.jax_enable_x64  # pyright: ignore
    simulator = SIMULATORS[name]
    structure = systems.single(MANY if kind is PairList else FEW)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    if kind is NeighborList:
        state = listed(simulator, structure)
    else:
        state = begin(simulator, params, structure, KEY, HOT)
    assert isinstance(state.neighbors, kind)
    (chunk,) = chunks(simulator, params, state, 20)
    assert int(chunk.trajectory.error) == 0
    floats = lambda tree: {
        leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    for tree in (state, chunk.state, chunk.trajectory):
        assert floats(tree) == {np.dtype(np.float32)}


def test_many_atoms_of_silicon_are_searched_with_a_grid():
    silicon = stillinger_weber()
    simulator, params = nve(silicon, dt=2.0), silicon.init(None)
    structure = systems.repeated(systems.si8(rattle=0.0), (4, 4, 4))
    structure = systems.make(structure.position, structure.cell, rattle=0.05)
    assert len(structure.position) > 500
    state = begin(simulator, params, structure, KEY, 6000.0)
    assert isinstance(state.neighbors, NeighborList)
    assert state.neighbors.grid is not None
    (chunk,) = chunks(simulator, params, state, 20, record_every=20)
    assert int(chunk.trajectory.error) == 0
    after = jax.tree.map(np.asarray, chunk.state)
    assert not np.array_equal(after.neighbors.reference_position, structure.position)
    fresh = simulator.neighbor_fns.allocate(after.structure)
    exact = jax.jit(silicon.energy)(params, after.structure, fresh)
    assert_close(chunk.trajectory.potential_energy[-1], exact, 1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
@pytest.mark.parametrize("option", ["dt", "skin"])
@EVERY_ENSEMBLE
def test_time_step_and_skin_must_be_positive(name, option, value):
    with pytest.raises(OptionError, match=rf"(?s)^{option} is .*remedy: "):
        ENSEMBLES[name](ARGON, **{option: value})


@pytest.mark.parametrize(
    "structure",
    [FEW, pytest.param(MANY, marks=pytest.mark.slow)],
    ids=["all pairs", "list"],
)
def test_nose_hoover_keeps_the_momentum_while_it_heats(structure):
    simulator = nvt_nose_hoover(ARGON, dt=4.0, temperature=HOT, thermostat_time=40.0)
    state = begin(simulator, PARAMS, structure, KEY, 30.0)
    (chunk,) = chunks(simulator, PARAMS, state, 100)
    momentum = chunk.trajectory.momentum
    assert chunk.trajectory.temperature.max() > 60.0, "the thermostat did nothing"
    total = np.abs(momentum.sum(axis=1)).max()
    assert total < 1e-10 * np.abs(momentum).sum(axis=(1, 2)).min()
