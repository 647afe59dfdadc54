from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import all_pairs, errors, units
from jaxvae_md.neighbors import displacements
from jaxvae_md.potentials import energy_and_forces, potential, stress
from jaxvae_md.simulate import (
    begin,
    chunks,
    loop,
    npt_langevin,
    nve,
    nvt_langevin,
    nvt_nose_hoover,
    rollout,
    run,
    temperature,
)
from tests import systems
from tests.argon import ARGON, MASS, PARAMS, crystal
from tests.asserts import assert_close
from tests.tiers import some_slow

CRYSTAL = crystal()
NVE = nve(ARGON, dt=4.0)
KEY = jax.random.key(0)


def started(simulator=NVE, kelvin=40.0, extra=1.3):
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
    final, _ = jax.jit(lambda s: rollout(NVE, PARAMS, s, 100))(started())
    total = np.abs(np.asarray(final.dynamics.momentum).sum(axis=0)).max()
    assert total < 1e-10 * np.abs(np.asarray(final.dynamics.momentum)).sum()


def test_one_step_is_velocity_verlet():
    state = started()
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


@pytest.mark.parametrize("make", [nve, nvt_langevin, nvt_nose_hoover, npt_langevin])
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
    assert np.abs(np.asarray(started().dynamics.momentum).sum(axis=0)).max() < 1e-10


@pytest.mark.parametrize("make", [nvt_langevin, npt_langevin])
def test_a_trajectory_follows_from_its_key(make):
    simulator = make(ARGON, dt=4.0, temperature=40.0)
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
        rollout(NVE, PARAMS, started(), 25, record_every=10)


def test_recorded_energy_and_temperature_are_those_of_the_frame():
    state, trajectory = jax.jit(lambda s: rollout(NVE, PARAMS, s, 20, record_every=5))(started())
    energy = ARGON.energy(PARAMS, state.structure, NVE.neighbor_fns.allocate(state.structure))
    assert trajectory.position.shape[0] == 4
    assert_close(trajectory.position[-1], state.structure.position, 0)
    assert_close(trajectory.potential_energy[-1], energy, 1e-12)
    assert_close(trajectory.temperature[-1], temperature(state), 1e-12)
    assert_close(trajectory.momentum[-1], state.dynamics.momentum, 0)
    assert_close(trajectory.cell, np.tile(CRYSTAL.cell, (4, 1, 1)), 0)


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

    def allocate(*args, **options):
        tries.append(args)
        assert len(tries) < 10, "the list is not growing"
        return allocate_more(*args, **options)

    allocate_more = loop.allocate
    monkeypatch.setattr(loop, "allocate", allocate)
    params = simulator.potential.init(None)
    trajectory = run(simulator, params, gas, KEY, 100, initial_temperature=10.0, chunk=50)
    assert len(tries) > 1, "the run must need a larger list"
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
    allocate = loop.allocate
    monkeypatch.setattr(loop, "allocate", lambda *a, **o: sizes.append(a) or allocate(*a, **o))
    run(NVE, ABSURD["not a number"], CRYSTAL, KEY, 20)
    assert len(sizes) <= 2


@pytest.mark.parametrize("chunk", [20, 100])
@pytest.mark.parametrize("distance", [5.2, pytest.param(5.6, marks=pytest.mark.slow)])
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
    state = started(kelvin=400.0)
    after, trajectory = jax.jit(lambda s: rollout(NVE, PARAMS, s, 60))(state)
    assert int(trajectory.error) == 0
    moved = np.abs(after.neighbors.reference_position - CRYSTAL.position).max()
    assert moved > 0.1, "the list was never built again"
    energy = ARGON.energy(PARAMS, after.structure, NVE.neighbor_fns.allocate(after.structure))
    assert_close(trajectory.potential_energy[-1], energy, 1e-12)


@pytest.mark.parametrize("num_steps", [10, 5])
@pytest.mark.parametrize("simulator", [NVE, npt_langevin(ARGON, dt=4.0)], ids=["nve", "npt"])
def test_precision_follows_the_input(simulator, num_steps):
    structure = systems.single(CRYSTAL)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    trajectory = run(simulator, params, structure, KEY, num_steps)
    assert {field.dtype for field in trajectory[:-1]} == {np.dtype(np.float32)}
    reference = run(simulator, PARAMS, CRYSTAL, KEY, num_steps)
    assert [field.shape for field in trajectory] == [field.shape for field in reference]
    assert len(trajectory.position) == num_steps // 10
    assert trajectory.cell.shape[1:] == (3, 3)


RESUMABLE = {
    "nve": NVE,
    "nvt": nvt_langevin(ARGON, dt=4.0, temperature=200.0),
    "nose_hoover": nvt_nose_hoover(ARGON, dt=4.0, temperature=200.0),
    "npt": npt_langevin(ARGON, dt=4.0, temperature=200.0, compressibility=0.5),
}


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf):
    """As a file would keep it."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def restored(state):
    back = lambda leaf: jax.random.wrap_key_data(plain(leaf)) if is_key(leaf) else plain(leaf)
    return jax.tree.map(back, state)


@pytest.mark.parametrize("name", some_slow([*RESUMABLE], "nve", "npt"))
def test_a_run_continues_from_any_chunk_bit_by_bit(name, monkeypatch):
    monkeypatch.setattr(all_pairs, "_MOST_TERMS", {4: 0, 8: 0})  # few atoms get a list too
    simulator = RESUMABLE[name]
    parts = lambda state, num: list(chunks(simulator, PARAMS, state, num, record_every=5, chunk=40))
    start = begin(simulator, PARAMS, CRYSTAL, KEY, 400.0)
    whole = parts(start, 100)
    assert [len(part.trajectory.temperature) for part in whole] == [8, 8, 4]
    built_again = whole[1].state.neighbors.reference_position != CRYSTAL.position
    assert built_again.any(), "the list must be part of what is restored"
    for done in (1, 2):
        rest = parts(restored(whole[done - 1].state), 100 - 40 * done)
        for a, b in zip(rest, whole[done:], strict=True):
            for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
                assert x.dtype == y.dtype
                assert np.array_equal(plain(x), plain(y))
    at_once = run(
        simulator, PARAMS, CRYSTAL, KEY, 100, initial_temperature=400.0, record_every=5, chunk=40
    )
    assert np.array_equal(
        at_once.position, np.concatenate([part.trajectory.position for part in whole])
    )


@pytest.mark.parametrize("name", some_slow([*RESUMABLE], "nve", "npt"))
def test_a_run_starts_with_the_momentum_given(name):
    momentum = np.random.default_rng(0).normal(size=CRYSTAL.position.shape)
    state = begin(RESUMABLE[name], PARAMS, CRYSTAL, KEY, momentum=momentum)
    assert_close(state.dynamics.momentum, momentum, 0)
    drawn = begin(RESUMABLE[name], PARAMS, CRYSTAL, KEY)
    assert_close(state.dynamics.force, drawn.dynamics.force, 0)
    assert not np.allclose(drawn.dynamics.momentum, momentum)


def test_a_failure_ends_the_chunks_with_good_frames_and_the_state_before():
    simulator, gas = nve(pulled_together(), dt=2.0), dilute(7.0)
    params = simulator.potential.init(None)
    state = begin(simulator, params, gas, KEY, 10.0)
    options = {"record_every": 2, "chunk": 20}
    good = list(chunks(simulator, params, state, 100, **options))
    hot = np.concatenate([part.trajectory.temperature for part in good])
    assert not any(part.trajectory.error for part in good)
    ended = list(chunks(simulator, params, state, 100, runaway=0.9 * hot.max(), **options))
    num_good = int(np.argmax(hot >= 0.9 * hot.max()))
    assert num_good % 10 > 0, "some frames of the last chunk must be good"
    assert len(ended) == num_good // 10 + 1
    assert [int(part.trajectory.error) for part in ended[:-1]] == [0] * (len(ended) - 1)
    last, before = ended[-1], ended[-2]
    assert int(last.trajectory.error) == errors.NOT_FINITE
    assert_close(last.trajectory.temperature, hot[num_good // 10 * 10 : num_good], 1e-9)
    assert_close(last.state.structure.position, before.state.structure.position, 0)


# constant pressure

COMPRESSED = CRYSTAL._replace(position=0.97 * CRYSTAL.position, cell=0.97 * CRYSTAL.cell)
NPT = npt_langevin(ARGON, 8.0, 40.0, friction=0.01, barostat_time=300.0, compressibility=0.5)


@cache
def relaxed_at_no_pressure():
    """The frames of a compressed crystal, and the pressure of each in GPa."""
    state = begin(NPT, PARAMS, COMPRESSED, KEY, 40.0)
    *_, last = parts = list(chunks(NPT, PARAMS, state, 2000, record_every=5, chunk=400))
    assert int(last.trajectory.error) == 0
    position, momentum, cell, energy, kelvin, _ = (
        np.concatenate(fields) if fields[0].ndim else fields
        for fields in zip(*(part.trajectory for part in parts), strict=True)
    )
    fresh = NPT.neighbor_fns.allocate(COMPRESSED, extra=1.5)

    @jax.jit
    def measured(frame):
        position, cell, momentum = frame
        structure = jax.tree.map(jnp.asarray, COMPRESSED)._replace(position=position, cell=cell)
        neighbors = NPT.neighbor_fns.update(structure, fresh)
        virial = -jnp.trace(stress(ARGON.energy, PARAMS, structure, neighbors)) / 3
        kinetic = jnp.sum(momentum**2 / MASS) / (3 * jnp.linalg.det(cell))
        energy = ARGON.energy(PARAMS, structure, neighbors)
        return (virial + kinetic) / units.GIGAPASCAL, energy, neighbors.overflow

    pressure, exact, overflow = jax.lax.map(measured, (position, cell, momentum))
    assert not np.any(overflow)
    return last.state, np.asarray(pressure), kelvin, cell, energy, np.asarray(exact)


@pytest.mark.slow
def test_a_compressed_crystal_expands_until_the_pressure_is_gone():
    _, pressure, kelvin, cell, *_ = relaxed_at_no_pressure()
    assert pressure[:3].mean() > 0.3
    assert abs(pressure[100:].mean()) < 0.03
    assert abs(kelvin[100:].mean() - 40.0) < 3.0
    assert np.linalg.det(cell[-1]) > 1.03 * np.linalg.det(COMPRESSED.cell)
    # the shape stays
    assert_close(cell / cell[:, :1, :1], np.tile(np.eye(3), (len(cell), 1, 1)), 1e-12)


def test_a_list_serves_while_the_cell_changes():
    state, _, _, cell, energy, exact = relaxed_at_no_pressure()
    assert (np.diff(cell[:, 0, 0]) != 0).all()
    assert_close(energy, exact, 1e-10)
    reference = np.asarray(state.neighbors.reference_cell)
    assert not np.array_equal(reference, COMPRESSED.cell), "the list was never built again"
    assert not np.array_equal(reference, state.structure.cell), "it was built at every step"
    assert_close(state.structure.cell, cell[-1], 0)


def test_a_cell_that_leaves_its_volumes_ends_the_chunks():
    state = begin(NPT, PARAMS, COMPRESSED, KEY, 40.0)
    options = {"record_every": 5, "chunk": 100}
    whole = list(chunks(NPT, PARAMS, state, 400, **options))
    volume = np.linalg.det(np.concatenate([part.trajectory.cell for part in whole]))
    highest = float(volume[:30].max())
    *_, last = ended = list(chunks(NPT, PARAMS, state, 400, volumes=(0.0, highest), **options))
    assert int(last.trajectory.error) == errors.NOT_FINITE
    kept = np.concatenate([part.trajectory.cell for part in ended])
    assert len(kept) == np.argmax(volume >= highest) < 30
    *_, last = chunks(NPT, PARAMS, state, 400, volumes=(volume[0], np.inf), **options)
    assert int(last.trajectory.error) == errors.NOT_FINITE


@pytest.mark.slow
def test_the_cell_may_come_to_meet_more_of_its_images():
    # four atoms at the density of a gas: the cell collapses below the reach of the list
    sparse = crystal((1, 1, 1))
    sparse = sparse._replace(position=1.25 * sparse.position, cell=1.25 * sparse.cell)
    simulator = npt_langevin(ARGON, 4.0, 20.0, 0.5, barostat_time=100.0, compressibility=1.0)
    reach = ARGON.cutoff + simulator.neighbor_fns.skin
    assert sparse.cell[0, 0] > reach
    state = begin(simulator, PARAMS, sparse, KEY, 20.0)
    (chunk,) = chunks(simulator, PARAMS, state, 200, chunk=200)
    assert int(chunk.trajectory.error) == 0
    structure = chunk.state.structure
    assert structure.cell[0, 0] < 0.95 * reach
    assert chunk.state.neighbors.grid != state.neighbors.grid
    fresh = simulator.neighbor_fns.allocate(jax.tree.map(np.asarray, structure))
    energy = ARGON.energy(PARAMS, structure, fresh)
    assert_close(chunk.trajectory.potential_energy[-1], energy, 1e-10)


@pytest.mark.slow
def test_without_friction_and_barostat_constant_pressure_is_velocity_verlet():
    simulator = npt_langevin(ARGON, 4.0, 40.0, friction=0.0, compressibility=0.0)
    momentum = started().dynamics.momentum
    frames = lambda simulator: (
        next(
            chunks(simulator, PARAMS, begin(simulator, PARAMS, CRYSTAL, KEY, momentum=momentum), 50)
        ).trajectory
    )
    npt, verlet = frames(simulator), frames(NVE)
    # jax_md keeps the time step in single precision
    assert_close(npt.position, verlet.position, 1e-7)
    assert_close(npt.momentum, verlet.momentum, 1e-5)
    assert_close(npt.cell, verlet.cell, 0)


def test_free_atoms_keep_their_momentum_times_the_length_of_the_cell():
    # scaled positions and momenta have a volume of phase space that stays
    free = potential(("Ar",), 0.5, lambda key: {}, lambda p, s, n: 0.0 * jnp.sum(s.position))
    simulator = npt_langevin(free, 4.0, 300.0, 0.001, friction=0.0, compressibility=1e3)
    state = begin(simulator, {}, dilute(7.0), KEY, 300.0)
    (chunk,) = chunks(simulator, {}, state, 100)
    momentum, cell = chunk.trajectory.momentum, chunk.trajectory.cell
    assert np.abs(cell[-1, 0, 0] / 40.0 - 1) > 0.01
    expected = 40.0 * np.asarray(state.dynamics.momentum)
    assert_close(momentum[-1] * cell[-1, 0, 0], expected, 1e-12)


def test_force_and_virial_are_those_of_the_structure():
    state, *_ = relaxed_at_no_pressure()
    listed = NPT.neighbor_fns.allocate(jax.tree.map(np.asarray, state.structure))
    virial = -np.trace(stress(ARGON.energy, PARAMS, state.structure, listed))
    volume = np.linalg.det(state.structure.cell)
    assert_close(state.dynamics.virial, virial * volume, 1e-10)
    force = energy_and_forces(ARGON.energy, PARAMS, state.structure, listed)[1]
    assert_close(state.dynamics.force, force, 1e-10)
    assert_close(state.dynamics.position, state.structure.position, 0)


def test_a_cell_that_is_not_periodic_has_no_pressure():
    slab = CRYSTAL._replace(pbc=np.array([True, True, False]))
    with pytest.raises(errors.OptionError, match=r"three periodic directions.*\n  remedy: "):
        run(NPT, PARAMS, slab, KEY, 10)
