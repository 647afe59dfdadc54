"""Many steps at once, with lists of either kind, and many systems side by side."""

import re
import sys
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvae_md import all_pairs, units
from jaxvae_md.neighbors import NeighborList, displacements
from jaxvae_md.pair_list import PairList
from jaxvae_md.potentials import lennard_jones, potential
from jaxvae_md.simulate import (
    advance,
    begin,
    chunks,
    loop,
    npt_langevin,
    nve,
    nvt_langevin,
    nvt_nose_hoover,
    rollout,
)
from jaxvae_md.structure import stack
from tests import systems
from tests.argon import ARGON, MASS, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient
from tests.pairs import by_vesin, pair_set

KEY = jax.random.key(0)
HOT = 400.0
CRYSTAL = crystal(rattle=0.1)
SIMULATORS = {
    "nve": nve(ARGON, dt=4.0),
    "nvt_langevin": nvt_langevin(ARGON, dt=4.0, temperature=HOT),
    "nvt_nose_hoover": nvt_nose_hoover(ARGON, dt=4.0, temperature=HOT),
    "npt_langevin": npt_langevin(ARGON, dt=4.0, temperature=HOT, compressibility=0.2),
}
slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def with_a_list(monkeypatch):
    """Few atoms get a list too, which they would not need."""
    monkeypatch.setattr(all_pairs, "_MOST_TERMS", {4: 0, 8: 0})


def start(simulator, fast: bool, structure=CRYSTAL, momentum=None, params=PARAMS):
    """With room for what a hot crystal does in a few steps."""
    neighbors = loop.allocate(simulator, structure, fast=fast, extra=1.5, thinnest=0.9)
    assert isinstance(neighbors, PairList if fast else NeighborList)
    return jax.jit(simulator.init)(KEY, params, structure, neighbors, HOT, momentum)


@lru_cache
def moved(name: str, fast: bool, num_steps: int = 50):
    """The state before, after as many single steps, and after an advance."""
    simulator = SIMULATORS[name]

    @jax.jit
    def both(state):
        one = lambda state, _: (simulator.step(PARAMS, state), None)
        by_steps = lax.scan(one, state, length=num_steps)[0]
        return by_steps, advance(simulator, PARAMS, state, num_steps)

    before = start(simulator, fast)
    return before, *both(before)


def numbers(state):
    """All that the next step depends on, save the list."""
    leaf = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return [np.asarray(leaf(x), float) for x in jax.tree.leaves((state.dynamics, state.structure))]


@pytest.mark.parametrize(
    ("name", "fast"),
    [(name, True) for name in SIMULATORS]
    + [("nve", False)]
    + [slow(name, False) for name in SIMULATORS if name != "nve"],
)
def test_an_advance_is_as_many_steps(name, fast):
    before, by_steps, at_once = moved(name, fast)
    assert not at_once.neighbors.overflow
    origin = at_once.neighbors.reference_position
    assert not np.array_equal(origin, before.structure.position), "the list was never built again"
    assert not np.array_equal(origin, at_once.structure.position), "it was built at every step"
    for a, b in zip(*map(numbers, (at_once, by_steps)), strict=True):
        assert_close(a, b, 1e-10)
    assert_close(origin, by_steps.neighbors.reference_position, 1e-10)


def test_both_kinds_of_lists_lead_to_the_same_trajectory():
    fast, generic = (moved("nve", fast) for fast in (True, False))
    assert_close(fast[2].structure.position, generic[2].structure.position, 1e-9)
    assert_close(fast[2].dynamics.momentum, generic[2].dynamics.momentum, 1e-8)
    # the list holds all pairs even so long after it was built
    structure = jax.tree.map(np.asarray, fast[2].structure)
    fresh = SIMULATORS["nve"].neighbor_fns.allocate(structure)
    force = -jax.grad(lambda x: ARGON.energy(PARAMS, structure._replace(position=x), fresh))(
        fast[2].structure.position
    )
    assert_close(fast[2].dynamics.force, force, 1e-10)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "generic"])
@pytest.mark.parametrize("name", SIMULATORS)
def test_a_run_in_single_precision_computes_no_array_in_double(name, fast):
    simulator, structure = SIMULATORS[name], systems.single(CRYSTAL)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)
    neighbors = loop.allocate(simulator, structure, fast=fast)
    before = jax.eval_shape(partial(simulator.init, KEY), single, structure, neighbors, HOT)
    four = partial(advance, simulator, num_steps=4)
    program, after = jax.make_jaxpr(four, return_shape=True)(single, before)
    precise = {leaf.dtype for leaf in jax.tree.leaves((before, after))}
    assert np.dtype("float32") in precise
    assert np.dtype("float64") not in precise
    doubles = re.findall(r"f64\[\d.*", str(program))
    # jax_md sums kinetic energies in double precision
    assert not doubles or name == "nvt_nose_hoover"


# many systems


def parts_of(structure, num: int):
    """Systems of one shape that differ."""
    rattled = partial(systems.make, structure.position, structure.cell)
    return [rattled(rattle=0.05 + 0.1 * seed, seed=seed) for seed in range(num)]


def frames(simulator, state, num_steps, params=PARAMS, **options):
    """Positions and energies of all chunks."""
    parts = [part.trajectory for part in chunks(simulator, params, state, num_steps, **options)]
    assert int(parts[-1].error) == 0
    return [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("position", "momentum", "potential_energy", "temperature")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [64, 2048], ids=["in groups", "together"])
def test_systems_side_by_side_move_as_each_alone(monkeypatch, cached):
    # three systems: a group of two, and one that is left
    monkeypatch.setattr(sys.modules["jaxvae_md.simulate.advance"], "_CACHED_ATOMS", cached)
    simulator = nve(ARGON, dt=4.0)
    state = begin(simulator, PARAMS, stack(parts_of(CRYSTAL, 3)), KEY, HOT)
    assert isinstance(state.neighbors, PairList)
    options = {"record_every": 20, "chunk": 40}
    together = frames(simulator, state, 80, **options)
    assert together[0].shape == (4, 3, 32, 3)
    for number, system in enumerate(parts_of(CRYSTAL, 3)):
        momentum = np.asarray(state.dynamics.momentum)[number]
        alone = begin(simulator, PARAMS, system, KEY, momentum=momentum)
        for a, b in zip(together, frames(simulator, alone, 80, **options), strict=True):
            assert_close(a[:, number], b, 1e-8)


STRONG = lennard_jones(("Ar",), 8.0, 3.4, 0.5)


def dilute(distance: float):
    """Atoms on a cubic grid, in a box so large that they never meet an image."""
    grid = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    return systems.make(20 + distance * grid, 40.0 * np.eye(3), rattle=0.01)


@pytest.mark.slow
def test_an_overflow_of_one_system_allocates_for_all_and_repeats_the_chunk(monkeypatch):
    # one collapses, the other hardly moves
    simulator, params = nve(STRONG, dt=5.0), STRONG.init(None)
    both = [dilute(5.0), dilute(7.9)]
    rest = np.zeros((2, 27, 3))
    options = {"record_every": 10, "chunk": 60}
    tries = []
    allocate = loop.allocate
    monkeypatch.setattr(loop, "allocate", lambda *a, **o: tries.append(a) or allocate(*a, **o))
    state = begin(simulator, params, stack(both), KEY, momentum=rest)
    together = frames(simulator, state, 60, params, **options)
    assert len(tries) > 1, "the run must need a larger list"
    for number, system in enumerate(both):
        alone = begin(simulator, params, system, KEY, momentum=rest[0])
        roomy = allocate(simulator, system, fast=True, extra=5.0)
        expected = frames(simulator, alone._replace(neighbors=roomy), 60, params, **options)
        for a, b in zip(together, expected, strict=True):
            assert_close(a[:, number], b, 1e-8)


@pytest.mark.slow
def test_a_rollout_takes_systems_side_by_side():
    simulator = SIMULATORS["nve"]
    batch = stack(parts_of(CRYSTAL, 2))
    state = begin(simulator, PARAMS, batch, KEY, 40.0)
    _, rolled = jax.jit(lambda s: rollout(simulator, PARAMS, s, 20, record_every=10))(state)
    together = frames(simulator, state, 20, record_every=10)
    assert int(np.max(rolled.error)) == 0
    assert_close(rolled.position, together[0], 1e-10)
    assert_close(rolled.potential_energy, together[2], 1e-10)


# from a fast list into a derivative


@pytest.mark.slow
def test_a_rollout_from_a_fast_list_has_the_gradient_by_sigma():
    simulator = SIMULATORS["nve"]
    state = begin(simulator, PARAMS, CRYSTAL, KEY, 40.0)
    assert isinstance(state.neighbors, PairList)
    weight = np.random.default_rng(0).normal(size=CRYSTAL.position.shape)

    def measured(params):
        final, trajectory = rollout(simulator, params, state, 20, record_every=20)
        return jnp.sum(weight * final.structure.position) + trajectory.potential_energy[-1]

    assert_gradient(measured, {"sigma": PARAMS["sigma"], "epsilon": PARAMS["epsilon"]})
    (position, *_) = frames(simulator, state, 20, record_every=20)
    final = jax.jit(lambda s: rollout(simulator, PARAMS, s, 20))(state)[0].structure.position
    assert_close(final, position[-1], 1e-11)


# many atoms and a potential of another kind


def exponential():
    """A sum over pairs that the package does not know to be one."""

    def energy(params, structure, neighbors):
        r = jnp.linalg.norm(displacements(structure, neighbors), axis=-1)
        return 0.5 * jnp.sum(params["height"] * jnp.where(r < 5.0, (5.0 - r) ** 3, 0))

    return potential(("Ar",), 5.0, lambda key: {"height": jnp.asarray(1e-3)}, energy)


@pytest.mark.slow
def test_many_atoms_of_any_potential_are_searched_with_a_grid():
    simulator = nve(exponential(), dt=4.0)
    params, structure = simulator.potential.init(None), crystal((5, 5, 5), rattle=0.2)
    assert len(structure.position) >= 500
    state = begin(simulator, params, structure, KEY, HOT)
    assert isinstance(state.neighbors, NeighborList)
    assert state.neighbors.grid is not None
    (chunk,) = chunks(simulator, params, state, 40, record_every=40, chunk=40)
    assert int(chunk.trajectory.error) == 0
    after = jax.tree.map(np.asarray, chunk.state)
    assert not np.array_equal(after.neighbors.reference_position, structure.position)
    built = structure._replace(position=after.neighbors.reference_position)
    assert pair_set(after.neighbors) == by_vesin(built, 5.5)
    fresh = simulator.neighbor_fns.allocate(after.structure)
    exact = simulator.potential.energy(params, after.structure, fresh)
    assert_close(chunk.trajectory.potential_energy[-1], exact, 1e-12)


def free():
    return potential(("Ar",), 5.0, lambda key: {}, lambda p, s, n: 0.0 * jnp.sum(s.position))


def gathering(num_steps: int):
    """More than 500 atoms that fly to the middle; half of their distances is left at the end."""
    grid = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), -1).reshape(-1, 3)
    structure = systems.make(4.0 * grid + 9.0, 50.0 * np.eye(3), rattle=0.2)
    simulator = nve(free(), dt=2.0)
    target = structure.position.mean(axis=0) + 0.5 * (
        structure.position - structure.position.mean(axis=0)
    )
    time = num_steps * 2.0 * units.FEMTOSECOND
    momentum = MASS * (target - structure.position) / time
    return simulator, structure, momentum, target


@pytest.mark.slow
def test_atoms_that_crowd_get_larger_grid_cells():
    simulator, structure, momentum, target = gathering(1000)
    state = begin(simulator, {}, structure, KEY, momentum=momentum)
    assert state.neighbors.grid is not None
    *_, last = chunks(simulator, {}, state, 1000, record_every=100, chunk=1000)
    assert int(last.trajectory.error) == 0
    assert_close(last.state.structure.position, target, 1e-6)
    built = structure._replace(position=np.asarray(last.state.neighbors.reference_position))
    assert pair_set(last.state.neighbors) == by_vesin(built, 5.5)
