import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors, units
from jaxvae_md.potentials import energy_and_forces, lennard_jones
from jaxvae_md.simulate import nve, nvt_langevin, rollout, run, temperature
from tests import systems
from tests.asserts import assert_close

CUTOFF = 6.0
ARGON = lennard_jones(("Ar",), CUTOFF, sigma=3.4, epsilon=0.0103)
PARAMS = ARGON.init(None)
CRYSTAL = systems.repeated(systems.fcc(), (2, 2, 2))._replace(
    position=systems.repeated(systems.fcc()._replace(position=np.round(systems.fcc().position / 2.65) * 2.65), (2, 2, 2)).position
)
NVE = nve(ARGON, dt=4.0)
KEY = jax.random.key(0)


def begin(simulator=NVE, kelvin=40.0, extra=1.3):
    neighbors = simulator.neighbor_fns.allocate(CRYSTAL, extra=extra)
    return simulator.init(KEY, PARAMS, CRYSTAL, neighbors, kelvin)


def total_energy(trajectory, n=len(CRYSTAL.position)):
    freedom = 3 * n - 3
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
    dt, mass = 4.0 * units.FEMTOSECOND, 39.948
    force = energy_and_forces(ARGON.energy, PARAMS, state.structure, state.neighbors)[1]
    momentum = state.dynamics.momentum + 0.5 * dt * force
    position = CRYSTAL.position + dt * momentum / mass
    assert_close(after.structure.position, position, 1e-13)
    moved = state.structure._replace(position=position)
    force = energy_and_forces(ARGON.energy, PARAMS, moved, state.neighbors)[1]
    assert_close(after.dynamics.momentum, momentum + 0.5 * dt * force, 1e-12)


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
    some = run(
        NVE, PARAMS, CRYSTAL, KEY, num_steps, record_every=record_every, chunk=chunk
    )
    assert len(some.position) == num_steps // record_every
    assert some.position.shape == (len(some.temperature), *CRYSTAL.position.shape)
    assert int(some.error) == 0
    expected = every.position[record_every - 1 :: record_every]
    if len(expected):
        assert_close(some.position, expected, 1e-10)


def test_recorded_energy_and_temperature_are_those_of_the_frame():
    state, trajectory = jax.jit(lambda s: rollout(NVE, PARAMS, s, 20, record_every=5))(begin())
    energy = ARGON.energy(PARAMS, state.structure, NVE.neighbor_fns.allocate(state.structure))
    assert trajectory.position.shape[0] == 4
    assert_close(trajectory.position[-1], state.structure.position, 0)
    assert_close(trajectory.potential_energy[-1], energy, 1e-12)
    assert_close(trajectory.temperature[-1], temperature(state), 1e-12)


def hot_gas():
    """Atoms that meet far more neighbors later than at the start."""
    cell = 40.0 * np.eye(3)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 3)
    return systems.make(7.0 * grid + 3.0, cell, rattle=0.01)


def closing_in(structure):
    """A potential that pulls all atoms towards the middle, beside a soft repulsion."""
    from jaxvae_md.neighbors import displacements
    from jaxvae_md.potentials import potential

    def energy(params, structure, neighbors):
        r2 = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
        repulsion = jnp.where(r2 < 25.0, (25.0 - jnp.minimum(r2, 25.0)) ** 2, 0.0)
        middle = jnp.mean(structure.position, axis=0)
        pull = jnp.sum((structure.position - lax_stop(middle)) ** 2)
        return params["pull"] * pull + params["push"] * jnp.sum(repulsion)

    lax_stop = jax.lax.stop_gradient
    return potential(("Ar",), 5.0, lambda key: {"pull": 0.2, "push": 1e-5}, energy)


def test_an_overflowing_list_is_allocated_again_and_the_chunk_repeated():
    gas = hot_gas()
    simulator = nve(closing_in(gas), dt=2.0)
    params = simulator.potential.init(None)
    tight = simulator.neighbor_fns.allocate(gas, extra=1.15)
    state = simulator.init(KEY, params, gas, tight, 10.0)
    _, raw = jax.jit(lambda s: rollout(simulator, params, s, 200, record_every=10))(state)
    assert int(raw.error) == errors.NEIGHBOR_OVERFLOW, "the run must need a larger list"

    trajectory = run(simulator, params, gas, KEY, 200, initial_temperature=10.0, chunk=50)
    assert int(trajectory.error) == 0
    assert len(trajectory.position) == 20
    roomy = simulator.neighbor_fns.allocate(gas)
    roomy = systems.reshaped(roomy, 16, len(roomy.images))
    state = simulator.init(KEY, params, gas, roomy, 10.0)
    _, expected = jax.jit(lambda s: rollout(simulator, params, s, 200, record_every=10))(state)
    assert int(expected.error) == 0
    assert_close(trajectory.position, expected.position, 1e-9)


ABSURD = {
    "far too large": {"sigma": jnp.full((1, 1), 8.0), "epsilon": jnp.full((1, 1), 1.0)},
    "attracting without a core": {"sigma": jnp.full((1, 1), 3.4), "epsilon": jnp.full((1, 1), -5.0)},
    "not a number": {"sigma": jnp.full((1, 1), jnp.nan), "epsilon": jnp.full((1, 1), 1.0)},
}


@pytest.mark.parametrize("params", ABSURD.values(), ids=ABSURD.keys())
def test_absurd_parameters_end_a_run_with_the_error_bit(params):
    trajectory = run(NVE, params, CRYSTAL, KEY, 400, initial_temperature=40.0, chunk=40)
    assert int(trajectory.error) == errors.NOT_FINITE
    assert len(trajectory.position) < 40
    assert np.isfinite(trajectory.position).all()


def test_a_runaway_keeps_the_frames_before_it():
    # a time step that is too long, not at once but within some hundred steps
    simulator = nve(ARGON, dt=4.0)
    gone = run(
        simulator, PARAMS, CRYSTAL, KEY, 100, initial_temperature=80.0, chunk=20, runaway=60.0
    )
    good = run(simulator, PARAMS, CRYSTAL, KEY, 100, initial_temperature=80.0, chunk=20)
    assert int(good.error) == 0
    chunks_below = np.maximum.accumulate(good.temperature.reshape(5, 2).max(axis=1)) < 60.0
    assert int(gone.error) == errors.NOT_FINITE
    assert len(gone.position) == 2 * chunks_below.sum()


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
