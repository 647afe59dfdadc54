"""How atoms move: mean squared displacement, velocity autocorrelation and diffusion.

Everything is averaged over all time origins, by fast Fourier transform.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from jaxvae_md import units
from jaxvae_md._typing import Array
from jaxvae_md.errors import InputError, OptionError
from jaxvae_md.observables.inputs import check_atoms, check_frames, check_positive, known


class Diffusion(NamedTuple):
    """A coefficient of self-diffusion."""

    coefficient: Float[Array, ""]
    """angstrom^2 / fs; times 0.1 it is in cm^2 / s, times 1e-5 in m^2 / s"""
    standard_error: Float[Array, ""]
    """angstrom^2 / fs; from the spread between atoms, which are taken as independent: too small
    where they move together, and not a number for one atom"""


def mean_squared_displacement(
    position: Float[Array, "t n 3"],
    *,
    atoms: Bool[Array, " n"] | None = None,
    remove_drift: bool = False,
    mass: Float[Array, " n"] | None = None,
    cell: Float[Array, "t 3 3"] | None = None,
) -> Float[Array, " t"]:
    """Mean squared displacement (angstrom^2) over each lag from 0 to t - 1 frames.

    The mean over atoms and all time origins. Differentiable. Late lags have few origins: a tenth
    of the trajectory is a good length. Rounding is about 1e-16 (float32: 1e-7) of the largest
    squared distance of an atom from its mean position.

    **Arguments:** `position` in angstrom, unwrapped, as in `simulate.Trajectory`. `atoms` marks
    those to average over (`structure.species == 0`, say), by default all. `remove_drift` subtracts
    the motion of the centre of mass of all atoms, with `mass` (amu; equal masses by default).
    `cell` is only checked: unwrapped positions of a variable cell breathe with it, and are refused.
    **Raises:** `InputError` for too few frames, other shapes or a variable cell. **Source:**
    Calandrini et al., Collection SFN 12, 201 (2011), section 4 (nMoldyn).

    ```python
    msd = mean_squared_displacement(trajectory.position, cell=trajectory.cell)
    ```
    """
    return _mean(_msd_of_atoms(position, atoms, remove_drift, mass, cell), atoms)


def diffusion_coefficient(
    position: Float[Array, "t n 3"],
    dt: float,
    window: tuple[float, float],
    *,
    atoms: Bool[Array, " n"] | None = None,
    remove_drift: bool = False,
    mass: Float[Array, " n"] | None = None,
    cell: Float[Array, "t 3 3"] | None = None,
) -> Diffusion:
    """Self-diffusion by Einstein's relation: one sixth of the slope of the displacement squared.

    The slope is that of the straight line through all lags within the window, by least squares.
    Differentiable.

    **Arguments:** `dt` in fs between two frames: that of the simulator times `record_every`;
    `window` (from, to) of lags in fs, after the ballistic beginning and short against the
    trajectory; the rest as in `mean_squared_displacement`. **Raises:** `OptionError` for a window
    with fewer than two lags or beyond the trajectory; `InputError`.

    ```python
    d = diffusion_coefficient(trajectory.position, dt=10.0, window=(500.0, 2000.0))
    d.coefficient, d.standard_error
    ```
    """
    check_frames("position", position)
    lag = _lags(len(position), dt, window)
    time = (lag - lag.mean()) * dt
    of_atoms = _msd_of_atoms(position, atoms, remove_drift, mass, cell)
    slope = of_atoms[:, lag] @ jnp.asarray(time / np.sum(time**2), of_atoms.dtype)
    return _spread(slope / 6, atoms)


def velocity_autocorrelation(
    momentum: Float[Array, "t n 3"],
    mass: Float[Array, " n"],
    *,
    atoms: Bool[Array, " n"] | None = None,
    remove_drift: bool = False,
) -> Float[Array, " t"]:
    """Velocity autocorrelation <v(0) v(t)> (angstrom^2 / fs^2) for lags of 0 to t - 1 frames.

    The mean over atoms and all time origins, the sum over components: 3 kT / m at lag 0.
    Differentiable. A variable cell needs no care: momenta are relative to it.

    **Arguments:** `momentum` in sqrt(amu eV), as in `simulate.Trajectory`; `mass` in amu; `atoms`
    marks those to average over, by default all; `remove_drift` subtracts the velocity of the
    centre of mass of all atoms. **Raises:** `InputError`.

    ```python
    c = velocity_autocorrelation(trajectory.momentum, mass)
    c / c[0]
    ```
    """
    return _mean(_vacf_of_atoms(momentum, mass, atoms, remove_drift), atoms)


def green_kubo_diffusion(
    momentum: Float[Array, "t n 3"],
    mass: Float[Array, " n"],
    dt: float,
    upto: float,
    *,
    atoms: Bool[Array, " n"] | None = None,
    remove_drift: bool = False,
) -> Diffusion:
    """Self-diffusion by Green and Kubo: one third of the integral of `velocity_autocorrelation`.

    By the trapezoidal rule; frames must be closer than the atoms vibrate. Differentiable.

    **Arguments:** `dt` in fs between two frames; `upto` in fs, where the integral is cut: once the
    correlation has decayed, and short against the trajectory; the rest as in
    `velocity_autocorrelation`. **Raises:** `OptionError` for a limit below dt or beyond the
    trajectory; `InputError`. **Source:** Kubo, J. Phys. Soc. Jpn. 12, 570 (1957).

    ```python
    d = green_kubo_diffusion(trajectory.momentum, mass, dt=5.0, upto=1000.0)
    ```
    """
    check_frames("momentum", momentum)
    lag = _lags(len(momentum), dt, (0.0, upto))
    weight = np.full(len(lag), dt)
    weight[[0, -1]] = 0.5 * dt
    of_atoms = _vacf_of_atoms(momentum, mass, atoms, remove_drift)
    integral = of_atoms[:, lag] @ jnp.asarray(weight, of_atoms.dtype)
    return _spread(integral / 3, atoms)


def _msd_of_atoms(position, atoms, remove_drift, mass, cell) -> Float[Array, "n t"]:
    check_frames("position", position)
    num = np.shape(position)[1]
    if mass is not None:
        check_atoms("mass", mass, num)
    _check_marked(atoms, num)
    _check_cell(cell, len(position))
    if remove_drift:
        return _msd(position, np.ones(num) if mass is None else mass)
    return _msd(position, None)


def _vacf_of_atoms(momentum, mass, atoms, remove_drift) -> Float[Array, "n t"]:
    check_frames("momentum", momentum)
    check_atoms("mass", mass, np.shape(momentum)[1])
    _check_marked(atoms, np.shape(momentum)[1])
    return _vacf(momentum, mass, remove_drift)


@jax.jit
def _msd(position: Float[Array, "t n 3"], drifting: Float[Array, " n"] | None):
    """<|x(k + m) - x(k)|^2> as <|x(k + m)|^2 + |x(k)|^2> - 2 <x(k + m) x(k)>, for each atom.

    Without the drift of the centre of the masses `drifting`, where they are given.
    """
    position = jnp.asarray(position)
    # displacements are small beside positions, and their squares lose digits
    position = position - jnp.mean(position, axis=0)
    if drifting is not None:
        weight = (drifting / jnp.sum(drifting)).astype(position.dtype)
        position = position - jnp.sum(weight[:, None] * position, axis=1, keepdims=True)

    def of_atom(x):
        square = jnp.cumsum(jnp.sum(x**2, axis=-1))
        earlier = square[::-1]
        later = square[-1] - jnp.concatenate([jnp.zeros(1, x.dtype), square[:-1]])
        origins = len(x) - jnp.arange(len(x))
        msd = (earlier + later) / origins - 2 * _autocorrelation(x)
        return msd.at[0].set(0)

    atoms = jnp.moveaxis(position, 1, 0)
    return lax.map(of_atom, atoms, batch_size=min(len(atoms), 64))


@partial(jax.jit, static_argnames="remove_drift")
def _vacf(momentum: Float[Array, "t n 3"], mass: Float[Array, " n"], remove_drift: bool):
    mass = mass.astype(momentum.dtype)
    velocity = momentum / mass[:, None]
    if remove_drift:
        velocity = velocity - jnp.sum(momentum, axis=1, keepdims=True) / jnp.sum(mass)
    atoms = jnp.moveaxis(velocity * units.FEMTOSECOND, 1, 0)
    return lax.map(_autocorrelation, atoms, batch_size=min(len(atoms), 64))


def _autocorrelation(x: Float[Array, "t 3"]) -> Float[Array, " t"]:
    """Mean of x(k) x(k + m) over k; zeros are appended, lest the end correlate with the start."""
    num = len(x)
    size = 1 << (2 * num - 1).bit_length()
    spectrum = jnp.fft.rfft(x, size, axis=0)
    power = jnp.sum(spectrum.real**2 + spectrum.imag**2, axis=-1)
    return jnp.fft.irfft(power, size)[:num] / (num - jnp.arange(num))


@jax.jit
def _mean(of_atoms: Array, atoms: Array | None) -> Array:
    """Over the first axis."""
    if atoms is None:
        return jnp.mean(of_atoms, axis=0)
    chosen = jnp.asarray(atoms).reshape(-1, *[1] * (of_atoms.ndim - 1))
    return jnp.sum(jnp.where(chosen, of_atoms, 0), axis=0) / jnp.sum(chosen)


@jax.jit
def _spread(of_atoms: Float[Array, " n"], atoms: Array | None) -> Diffusion:
    num = len(of_atoms) if atoms is None else jnp.sum(jnp.asarray(atoms))
    mean = _mean(of_atoms, atoms)
    variance = _mean((of_atoms - mean) ** 2, atoms)
    return Diffusion(mean, jnp.sqrt(variance / jnp.asarray(num - 1, of_atoms.dtype)))


def _lags(num: int, dt: float, window: tuple[float, float]) -> np.ndarray:
    """Lags (in frames) within the window; rounding does not lose its ends."""
    check_positive("dt", dt)
    low, high = window
    last = (num - 1) * dt
    if not 0 <= low < high <= last * (1 + 1e-9):
        raise OptionError(
            f"the window from {low:.6g} to {high:.6g} fs is not within the trajectory's "
            f"{last:.6g} fs",
            remedy="give two times within it, the first smaller, or simulate longer",
        )
    frames = np.arange(num)
    lag = frames[(frames * dt >= low - 1e-9 * last) & (frames * dt <= high + 1e-9 * last)]
    if len(lag) < 2:
        raise OptionError(
            f"the window from {low:.6g} to {high:.6g} fs has {len(lag)} lags of {dt:.6g} fs",
            remedy="widen it, or record more often",
        )
    return lag


def _check_marked(atoms: Array | None, num: int) -> None:
    if atoms is None:
        return
    check_atoms("atoms", atoms, num)
    if known(atoms) and not np.asarray(atoms).any():
        raise InputError("no atom is marked", remedy="mark those to average over")


def _check_cell(cell: Array | None, num: int) -> None:
    if cell is None:
        return
    if np.shape(cell) != (num, 3, 3):
        raise InputError(
            f"cell has the shape {np.shape(cell)} for {num} frames", remedy=f"give ({num}, 3, 3)"
        )
    if known(cell):
        cell = np.asarray(cell)
        scale = np.abs(cell[0]).max()
        if not np.allclose(cell, cell[0], rtol=0, atol=1e-6 * scale):
            frame = int(np.argmax(np.abs(cell - cell[0]).max(axis=(1, 2)) > 1e-6 * scale))
            raise InputError(
                "the cell differs from the first one, and unwrapped positions breathe with it",
                frame=frame,
                remedy="measure diffusion at constant volume (nve, nvt_langevin)",
            )
