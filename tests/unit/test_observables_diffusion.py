import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import units
from jaxvae_md.errors import InputError, OptionError
from jaxvae_md.observables import (
    diffusion_coefficient,
    green_kubo_diffusion,
    mean_squared_displacement,
    velocity_autocorrelation,
)
from tests.asserts import assert_close

MASS = np.array([16.0, 28.0, 40.0, 1.0, 12.0])


def walk(seed=0, num_frames=800, num_atoms=60, step=0.1):
    """A random walk: each component moves by `step` (standard deviation) a frame."""
    steps = step * np.random.default_rng(seed).normal(size=(num_frames, num_atoms, 3))
    return np.cumsum(steps, axis=0)


def origins(position, lag):
    return position[lag:] - position[: len(position) - lag]


def test_displacement_is_that_of_a_loop_over_lags_and_origins():
    position = walk(num_frames=37, num_atoms=5) + 100.0
    direct = [np.mean(np.sum(origins(position, m) ** 2, -1)) for m in range(37)]
    msd = mean_squared_displacement(position)
    assert msd[0] == 0
    assert_close(msd, direct, 1e-12)


def test_correlation_is_that_of_a_loop_over_lags_and_origins():
    momentum = np.random.default_rng(0).normal(size=(37, 5, 3))
    velocity = momentum / MASS[:, None] * ase.units.fs
    direct = [np.mean(np.sum(velocity[m:] * velocity[: len(velocity) - m], -1)) for m in range(37)]
    assert_close(velocity_autocorrelation(momentum, MASS), direct, 1e-7)


def test_ballistic_atoms_move_by_their_velocity_squared():
    momentum = np.broadcast_to(np.random.default_rng(0).normal(size=(5, 3)), (37, 5, 3))
    time = 2.0 * np.arange(37)
    velocity = momentum[0] / MASS[:, None] * units.FEMTOSECOND
    position = time[:, None, None] * velocity
    msd = mean_squared_displacement(position)
    correlation = velocity_autocorrelation(momentum, MASS)
    assert_close(msd, np.mean(np.sum(velocity**2, -1)) * time**2, 1e-12)
    # the two speak of the same velocities
    assert_close(msd, correlation * time**2, 1e-12)


def test_a_random_walk_diffuses():
    # 6 D dt = 3 step^2
    expected = 0.1**2 / 2 / 5.0
    found = diffusion_coefficient(walk(num_atoms=400), dt=5.0, window=(0.0, 200.0))
    assert abs(found.coefficient - expected) < 3 * found.standard_error
    assert found.standard_error < 0.03 * expected
    msd = mean_squared_displacement(walk(num_atoms=400))
    time = 5.0 * np.arange(41)
    assert_close(msd[:41], 6 * expected * time, 0.05)


def test_the_standard_error_is_the_spread_of_repetitions():
    many = jax.jit(jax.vmap(lambda x: diffusion_coefficient(x, 1.0, (5.0, 40.0))))
    found = many(np.stack([walk(seed, 400, 20) for seed in range(60)]))
    spread = np.std(found.coefficient, ddof=1)
    assert_close(np.mean(found.standard_error), spread, 0.25)


def test_a_harmonic_oscillator_correlates_as_a_cosine():
    omega, frames = 2 * np.pi / 20, 2000
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, (5, 3))
    momentum = MASS[:, None] * np.cos(omega * np.arange(frames)[:, None, None] + phase)
    correlation = velocity_autocorrelation(momentum, MASS)[:100]
    assert_close(correlation / correlation[0], np.cos(omega * np.arange(100)), 2e-3)


def test_einstein_and_green_kubo_agree_with_langevin():
    # velocities that forget by the factor a a frame: D = <v^2> tau / 3, with v in angstrom / fs
    num, atoms, a, dt = 4000, 60, 0.9, 2.0
    noise = np.random.default_rng(1).normal(size=(num, atoms, 3))
    velocity = np.empty_like(noise)
    velocity[0] = noise[0]
    for k in range(1, num):
        velocity[k] = a * velocity[k - 1] + (1 - a**2) ** 0.5 * noise[k]
    velocity *= 0.01
    mass = np.full(atoms, 40.0)
    momentum = velocity * mass[:, None] / units.FEMTOSECOND
    # the trapezoidal sum of the geometric series
    expected = 0.01**2 * dt * (1 / (1 - a) - 0.5)
    kubo = green_kubo_diffusion(momentum, mass, dt, upto=120.0)
    assert abs(kubo.coefficient - expected) < 3 * kubo.standard_error
    assert kubo.standard_error < 0.04 * expected
    middle = 0.5 * (velocity[1:] + velocity[:-1])
    einstein = diffusion_coefficient(np.cumsum(middle * dt, axis=0), dt, window=(120.0, 400.0))
    assert abs(einstein.coefficient - expected) < 3 * einstein.standard_error
    assert einstein.standard_error < 0.1 * expected


def test_marked_atoms_alone_are_averaged():
    position = walk(num_frames=37, num_atoms=5)
    momentum = np.random.default_rng(3).normal(size=(37, 5, 3))
    atoms = np.array([True, False, False, True, True])
    marked = mean_squared_displacement(position, atoms=atoms)
    assert_close(marked, mean_squared_displacement(position[:, atoms]), 1e-12)
    marked = diffusion_coefficient(position, 1.0, (2.0, 9.0), atoms=atoms)
    alone = diffusion_coefficient(position[:, atoms], 1.0, (2.0, 9.0))
    assert_close(np.array(marked), np.array(alone), 1e-12)
    marked = velocity_autocorrelation(momentum, MASS, atoms=atoms)
    assert_close(marked, velocity_autocorrelation(momentum[:, atoms], MASS[atoms]), 1e-12)


def test_the_drift_of_the_centre_of_mass_is_removed():
    position = walk(num_frames=37, num_atoms=5)
    center = np.sum(MASS[:, None] * position, axis=1, keepdims=True) / MASS.sum()
    position = position - center
    drift = np.array([0.3, -0.1, 0.2]) * np.arange(37)[:, None, None]
    still = mean_squared_displacement(position)
    drifting = position + drift
    remove = {"remove_drift": True}
    assert_close(mean_squared_displacement(drifting, **remove, mass=MASS), still, 1e-12)
    assert mean_squared_displacement(drifting)[-1] > 2 * still[-1]
    equal = mean_squared_displacement(drifting - position.mean(1, keepdims=True), **remove)
    expected = mean_squared_displacement(position - position.mean(1, keepdims=True))
    assert_close(equal, expected, 1e-12)
    momentum = MASS[:, None] * position
    moving = momentum + MASS[:, None] * np.array([0.3, -0.1, 0.2])
    still = velocity_autocorrelation(momentum, MASS)
    assert_close(velocity_autocorrelation(moving, MASS, **remove), still, 1e-12)
    assert np.abs(velocity_autocorrelation(moving, MASS) - still).max() > 1e-3 * still[0]


def test_single_precision_is_kept_and_far_positions_do_not_spoil_it():
    position = np.float32(walk() + 50.0)
    msd = jax.jit(mean_squared_displacement)(position)
    assert msd.dtype == np.float32
    assert_close(msd, mean_squared_displacement(np.float64(position)), 1e-5)
    momentum = np.float32(walk())
    vacf = velocity_autocorrelation(momentum, np.ones(60))
    assert vacf.dtype == np.float32


def test_a_variable_cell_is_refused():
    position = walk(num_frames=37, num_atoms=5)
    cell = np.broadcast_to(20.0 * np.eye(3), (37, 3, 3)).copy()
    same = mean_squared_displacement(position, cell=cell)
    assert_close(same, mean_squared_displacement(position), 1e-12)
    cell[7:] *= 1.01
    with pytest.raises(InputError, match=r"frame 7: the cell differs(.|\n)*constant volume"):
        diffusion_coefficient(position, 1.0, (1.0, 5.0), cell=cell)
    with pytest.raises(InputError, match="cell has the shape"):
        mean_squared_displacement(position, cell=cell[0])


def test_what_cannot_be_is_refused():
    position, mass = walk(num_frames=10, num_atoms=5), MASS
    with pytest.raises(InputError, match=r"position has 1 frames(.|\n)*two or more"):
        mean_squared_displacement(position[:1])
    with pytest.raises(InputError, match=r"position has the shape \(10, 15\)"):
        mean_squared_displacement(position.reshape(10, 15))
    with pytest.raises(InputError, match="atoms has the shape"):
        mean_squared_displacement(position, atoms=np.ones(4, bool))
    with pytest.raises(InputError, match="no atom"):
        mean_squared_displacement(position, atoms=np.zeros(5, bool))
    nobody = jnp.zeros(5, bool)
    with pytest.raises(InputError, match="no atom"):
        jax.jit(lambda x: mean_squared_displacement(x, atoms=nobody))(position)
    with pytest.raises(InputError, match="mass has the shape"):
        velocity_autocorrelation(position, mass[:3])
    for window in ((0.0, 10.0), (-1.0, 5.0), (5.0, 5.0), (6.0, 2.0)):
        with pytest.raises(OptionError, match=r"not within the trajectory's 9 fs"):
            diffusion_coefficient(position, 1.0, window)
    with pytest.raises(OptionError, match="has 1 lags"):
        diffusion_coefficient(position, 1.0, (1.5, 2.5))
    with pytest.raises(OptionError, match="dt"):
        green_kubo_diffusion(position, mass, 0.0, 5.0)
    assert np.isfinite(diffusion_coefficient(position, 0.1, (0.0, 0.9)).coefficient)
