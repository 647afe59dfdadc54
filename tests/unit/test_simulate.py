import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors, units
from jaxvae_md.neighbors import displacements
from jaxvae_md.potentials import energy_and_forces, potential
from jaxvae_md.simulate import engine, nve, nvt_langevin, rollout, run, temperature
from tests import systems
from tests.argon import ARGON, MASS, PARAMS, crystal
from tests.asserts import assert_close

CRYSTAL = crystal()
NVE = nve(ARGON, dt=4.0)
KEY = jax.random.key(0)


def begin(simulator=NVE, kelvin=40.0, extra=1.3):
    neighbors = simulator.neighbor_fns.allocate(CRYSTAL, extra=extra)
    return simulator.init(KEY, PARAMS, CRYSTAL, neighbors, kelvin)


def total_energy(trajectory):
    freedom = CRYSTAL.position.size - 3
    kinetic = 0.5 * freedom * units.BOLTZMANN * np.asarray(trajectory.temperature)
    return np.asarray(trajectory.potential_energy) + kinetic


def drift(dt: float, femtoseconds: float) -> float:
    """Largest deviation of the total energy, in units of the kinetic energy."""
    simulator = nve(ARGON, dt=dt)
    num_steps = round(femtoseconds / dt)
    trajectory = run(simulator, PARAMS, CRYSTAL, KEY, num_steps, initial_temperature=40.0)
    assert int(trajectory.error) == 0
    energy = total_energy(trajectory)
    return np.ptp(energy) / (1.5 * units.BOLTZMANN * 40.0 * len(CRYSTAL.position))


def test_nve_keeps_the_energy_to_second_order_of_the_time_step():
    coarse, fine = drift(8.0, 1600.0), drift(4.0, 1600.0)
    assert 0 < fine < 2e-3
    assert 3.0 < coarse / fine < 5.5


def test_nve_keeps_the_momentum():
    final, _ = jax.jit(lambda s: rollout(NVE, PARAMS, s, 100))(begin())
    total = np.abs(np.asarray(final.dynamics.momentum).sum(axis=0)).max()
    assert total < 1e-10 * np.abs(np.asarray(final.dynamics.momentum)).sum()


def test_one_step_is_velocity_verlet():
    state = begin()
    after = NVE.step(PARAMS, state)
    dt = 4.0 * units.FEMTOSECOND
    force = energy_and_forces(ARGON.energy, PARAMS, state.structure, state.neighbors)[1]
    momentum = state.dynamics.momentum + 0.5 * dt * force
    position = CRYSTAL.position + dt * momentum / MASS
    # jax_md keeps the time step in single precision
    assert_close(after.structure.position, position, 1e-9)
    moved = state.structure._replace(position=position)
    force = energy_and_forces(ARGON.energy, PARAMS, moved, state.neighbors)[1]
    assert_close(after.dynamics.momentum, momentum + 0.5 * dt * force, 1e-7)


@pytest.mark.parametrize("make", [nve, nvt_langevin])
def test_drawn_velocities_have_the_temperature_asked_for(make):
    simulator = make(ARGON)
    neighbors = simulator.neighbor_fns.allocate(CRYSTAL)
    keys = jax.random.split(KEY, 200)
    one = lambda key: temperature(simulator.init(key, PARAMS, CRYSTAL, neighbors, 300.0))
    kelvin = np.asarray(jax.jit(jax.vmap(one))(keys))
    error = kelvin.std() / len(keys) ** 0.5
    assert 0 < error < 5
    assert abs(kelvin.mean() - 300.0) < 4 * error


def test_drawn_velocities_have_no_drift():
    assert np.abs(np.asarray(begin().dynamics.momentum).sum(axis=0)).max() < 1e-10


def test_a_trajectory_follows_from_its_key():
    simulator = nvt_langevin(ARGON, dt=4.0, temperature=40.0)
    again = lambda key: run(simulator, PARAMS, CRYSTAL, key, 20).position
    assert np.array_equal(again(KEY), again(KEY))
    assert not np.array_equal(again(KEY), again(jax.random.key(1)))


def test_chunks_do_not_change_a_trajectory():
    whole = run(NVE, PARAMS, CRYSTAL, KEY, 60, chunk=60)
    parts = run(NVE, PARAMS, CRYSTAL, KEY, 60, chunk=20)
    assert_close(parts.position, whole.position, 1e-12)
    assert_close(parts.potential_energy, whole.potential_energy, 1e-10)


@pytest.mark.parametrize(
    ("num_steps", "record_every", "chunk"),
    [(50, 10, 20), (55, 10, 20), (60, 15, 20), (60, 30, 20), (5, 1, 200), (9, 10, 20)],
)
def test_frames_are_recorded_evenly_to_the_end(num_steps, record_every, chunk):
    every = run(NVE, PARAMS, CRYSTAL, KEY, num_steps, record_every=1, chunk=num_steps)
    some = run(NVE, PARAMS, CRYSTAL, KEY, num_steps, record_every=record_every, chunk=chunk)
    assert len(some.position) == num_steps // record_every
    assert some.position.shape == (len(some.temperature), *CRYSTAL.position.shape)
    assert int(some.error) == 0
    expected = every.position[record_every - 1 :: record_every]
    if len(expected):
        assert_close(some.position, expected, 1e-10)


def test_steps_that_cannot_be_recorded_are_refused():
    with pytest.raises(errors.OptionError, match="record_every"):
        rollout(NVE, PARAMS, begin(), 25, record_every=10)


def test_recorded_energy_and_temperature_are_those_of_the_frame():
    state, trajectory = jax.jit(lambda s: rollout(NVE, PARAMS, s, 20, record_every=5))(begin())
    energy = ARGON.energy(PARAMS, state.structure, NVE.neighbor_fns.allocate(state.structure))
    assert trajectory.position.shape[0] == 4
    assert_close(trajectory.position[-1], state.structure.position, 0)
    assert_close(trajectory.potential_energy[-1], energy, 1e-12)
    assert_close(trajectory.temperature[-1], temperature(state), 1e-12)


def pulled_together():
    """All atoms are drawn to the middle, against a soft repulsion."""

    def energy(params, structure, neighbors):
        r2 = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
        repulsion = jnp.sum(jnp.maximum(25.0 - r2, 0) ** 2)
        pull = jnp.sum((structure.position - 20.0) ** 2)
        return params["pull"] * pull + params["push"] * repulsion

    return potential(("Ar",), 5.0, lambda key: {"pull": 0.2, "push": 1e-5}, energy)


def dilute(distance: float):
    """Eight atoms on a cube, in a box so large that they never meet an image."""
    corners = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)
    return systems.make(20 + 0.5 * distance * corners, 40.0 * np.eye(3), rattle=0.01)


def with_room(simulator, gas, num_steps):
    """The same run with a list that never overflows."""
    neighbors = simulator.neighbor_fns.allocate(gas)
    neighbors = systems.reshaped(neighbors, 8, len(neighbors.images))
    params = simulator.potential.init(None)
    state = simulator.init(KEY, params, gas, neighbors, 10.0)
    rolled = jax.jit(lambda s: rollout(simulator, params, s, num_steps, record_every=10))(state)[1]
    assert int(rolled.error) == 0
    return rolled


@pytest.mark.parametrize("distance", [5.2, 7.0], ids=["neighbors", "no neighbors"])
def test_an_overflowing_list_is_allocated_again_and_the_chunk_repeated(monkeypatch, distance):
    gas, simulator = dilute(distance), nve(pulled_together(), dt=2.0)
    expected = with_room(simulator, gas, 100)
    tries = []

    def allocate(*args):
        tries.append(args)
        assert len(tries) < 10, "the list is not growing"
        return engine_allocate(*args)

    engine_allocate = engine._allocate
    monkeypatch.setattr(engine, "_allocate", allocate)
    params = simulator.potential.init(None)
    trajectory = run(simulator, params, gas, KEY, 100, initial_temperature=10.0, chunk=50)
    assert tries, "the run must need a larger list"
    assert int(trajectory.error) == 0
    assert_close(trajectory.position, expected.position, 1e-9)
    assert_close(trajectory.potential_energy, expected.potential_energy, 1e-9)


def table(sigma: float, epsilon: float) -> dict:
    return {"sigma": jnp.full((1, 1), sigma), "epsilon": jnp.full((1, 1), epsilon)}


ABSURD = {
    "far too large": table(8.0, 1.0),
    "attracting without a core": table(3.4, -5.0),
    "not a number": table(jnp.nan, 1.0),
}


@pytest.mark.parametrize("params", ABSURD.values(), ids=ABSURD.keys())
def test_absurd_parameters_end_a_run_with_the_error_bit(params):
    trajectory = run(NVE, params, CRYSTAL, KEY, 400, initial_temperature=40.0, chunk=40)
    assert int(trajectory.error) & errors.NOT_FINITE
    assert len(trajectory.position) < 40
    assert np.isfinite(trajectory.position).all()


def test_positions_that_are_not_finite_do_not_enlarge_the_list(monkeypatch):
    # each size of the list is compiled again, up to that of all pairs
    sizes = []
    allocate = engine._allocate
    monkeypatch.setattr(engine, "_allocate", lambda *a: sizes.append(a) or allocate(*a))
    run(NVE, ABSURD["not a number"], CRYSTAL, KEY, 20)
    assert len(sizes) <= 1


@pytest.mark.parametrize("chunk", [20, 100])
@pytest.mark.parametrize("distance", [5.2, 5.6])
def test_a_runaway_keeps_right_frames_before_it(distance, chunk):
    # all atoms fall into the middle, faster and faster
    simulator, gas = nve(pulled_together(), dt=2.0), dilute(distance)
    expected = with_room(simulator, gas, 100)
    hot = np.asarray(expected.temperature)
    limit = 0.9 * hot.max()
    num_good = int(np.argmax(hot >= limit))
    assert 0 < num_good < len(hot)
    ended = run(
        simulator,
        simulator.potential.init(None),
        gas,
        KEY,
        100,
        initial_temperature=10.0,
        chunk=chunk,
        runaway=limit,
    )
    assert int(ended.error) & errors.NOT_FINITE
    kept = len(ended.position)
    assert kept <= num_good
    # frames that miss pairs because the list overflowed are not among them
    if kept:
        assert_close(ended.position, expected.position[:kept], 1e-12)
    assert len(ended.potential_energy) == len(ended.temperature) == kept


def test_the_error_of_a_run_is_what_check_raises():
    bad = run(NVE, ABSURD["not a number"], CRYSTAL, KEY, 20)
    with pytest.raises(errors.RunError, match="not finite"):
        errors.check(bad.error, "simulation")


def test_a_stale_list_is_built_again_inside():
    state = begin(kelvin=400.0)
    after, trajectory = jax.jit(lambda s: rollout(NVE, PARAMS, s, 60))(state)
    assert int(trajectory.error) == 0
    moved = np.abs(after.neighbors.reference_position - CRYSTAL.position).max()
    assert moved > 0.1, "the list was never built again"
    energy = ARGON.energy(PARAMS, after.structure, NVE.neighbor_fns.allocate(after.structure))
    assert_close(trajectory.potential_energy[-1], energy, 1e-12)


def test_precision_follows_the_input():
    structure = systems.single(CRYSTAL)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    trajectory = run(NVE, params, structure, KEY, 10)
    assert trajectory.position.dtype == np.float32
    reference = run(NVE, PARAMS, CRYSTAL, KEY, 10)
    assert trajectory.position.shape == reference.position.shape
