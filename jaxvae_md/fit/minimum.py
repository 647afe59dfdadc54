"""A fit to its minimum: all frames at once, by L-BFGS, with the covariance of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.batching import Batch, batches
from jaxvae_md.errors import InputError
from jaxvae_md.fit.result import FitResult
from jaxvae_md.implicit import minimize
from jaxvae_md.potentials.potential import Potential, energy_forces_stress
from jaxvae_md.structure import Structure

_FIRST_STEP = 0.03
"""relative to the parameters"""


class Reference(NamedTuple):
    """A structure and what is known of it; None where it is not."""

    structure: Structure
    energy: float | None = None
    """eV, whole cell"""
    forces: Float[np.ndarray, "n 3"] | None = None
    """eV / angstrom"""
    stress: Float[np.ndarray, "3 3"] | None = None
    """eV / angstrom^3; tension is positive, as in ASE"""
    weight: float = 1.0
    """of its squared residuals"""


def least_squares(
    potential: Potential,
    params: Params,
    references: Sequence[Reference],
    *,
    energy_error: float = 1e-3,
    force_error: float = 0.05,
    stress_error: float = 1e-3,
    tolerance: float = 1e-8,
    max_steps: int = 500,
) -> FitResult:
    """The parameters of least squares, by L-BFGS on all frames at once; with their covariance.

    The loss is the sum over frames and components of the weighted squares of

        (E - E_ref) / (n energy_error), (F - F_ref) / force_error, (s - s_ref) / stress_error

    divided by their number. For few parameters; `force_matching` is for networks. The covariance
    is s^2 (J^T J)^-1, with s^2 the residuals' own variance: independent errors are of the stated
    sizes, up to one factor. It is not a number where the data leave a direction free.

    **Arguments:** errors in eV an atom, eV / angstrom and eV / angstrom^3: what a residual is
    worth; `tolerance` of the gradient relative to that at the start. **Raises:** `RunError` where
    it does not converge, `InputError` where nothing is known of any frame. Use float64.

    ```python
    references = [Reference(structure, energy, forces), Reference(other, stress=stress)]
    result = least_squares(potential, potential.init(key), references)
    ```
    """
    sizes = energy_error, force_error, stress_error
    num = sum(_num_known(reference) for reference in references)
    if num == 0:
        raise InputError("nothing is known of any frame", remedy="give energies, forces or stress")
    structures = [reference.structure for reference in references]
    frames = [_labels(batch, references, sizes) for batch in batches(structures, potential.cutoff)]
    params = jax.tree.map(jnp.asarray, params)
    fitted, before, after, jacobian, error = _solve(potential, tolerance, max_steps, params, frames)
    errors.check(int(error) & ~errors.ILL_CONDITIONED, "least squares")
    curvature = np.asarray(jacobian.T @ jacobian)
    covariance, num_params = np.full(curvature.shape, np.nan), len(curvature)
    # of one size each, for the condition number's sake
    unit = np.sqrt(np.diag(curvature))
    if num > num_params and unit.all():
        scaled = curvature / np.outer(unit, unit)
        if np.linalg.cond(scaled) < 1e10:
            variance = float(after) / (num - num_params)
            covariance = variance * np.linalg.inv(scaled) / np.outer(unit, unit)
    return FitResult(fitted, np.array([float(before), float(after)]) / num, covariance)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _solve(potential: Potential, tolerance: float, max_steps: int, params: Params, frames):
    """Parameters; the sum of squares before and after; the Jacobian; and error bits."""
    flat, unravel = ravel_pytree(params)
    # parameters of one size each, so that one step length suits all
    scale = jnp.where(flat == 0, 1.0, jnp.abs(flat))

    def residuals(flat, frames):
        params = potential.project(unravel(flat))
        parts = [lax.map(lambda one: _residuals(potential, params, one), part) for part in frames]
        return jnp.concatenate([part.reshape(-1) for part in parts])

    def loss(x, args):
        frames, scale, unit = args
        return jnp.sum(residuals(scale * x, frames) ** 2) / unit

    one = jnp.ones((), flat.dtype)
    before, slope = jax.value_and_grad(loss)(flat / scale, (frames, scale, one))
    steepest = jnp.max(jnp.abs(slope))
    # so that the first step, along the gradient, changes no parameter by more than a few per cent
    args = frames, scale, jnp.where(steepest > 0, steepest / _FIRST_STEP, 1.0)
    limit = _FIRST_STEP * tolerance
    found = minimize(loss, flat / scale, args, tolerance=limit, max_steps=max_steps)
    fitted = scale * found.x
    jacobian = jax.jacfwd(residuals)(fitted, frames)
    after = jnp.sum(residuals(fitted, frames) ** 2)
    return potential.project(unravel(fitted)), before, after, jacobian, found.error


class _Frame(NamedTuple):
    """A frame, what is known of it, and what a residual is multiplied by: zero where unknown."""

    structure: Structure
    neighbors: Any
    energy: Array
    forces: Array
    stress: Array
    of_energy: Array
    of_forces: Array
    of_stress: Array


def _num_known(reference: Reference) -> int:
    known = (reference.energy, reference.forces, reference.stress)
    return sum(np.size(value) for value in known if value is not None)


def _labels(batch: Batch, references: Sequence[Reference], sizes) -> _Frame:
    """The frames of a batch; a leading axis."""
    mask = np.asarray(batch.structure.mask)
    num_frames, num_atoms = mask.shape
    values = (
        np.zeros(num_frames),
        np.zeros((num_frames, num_atoms, 3)),
        np.zeros((num_frames, 3, 3)),
    )
    factors = np.zeros((3, num_frames))
    for row, frame in enumerate(batch.frame):
        reference = references[frame]
        known = reference.energy, reference.forces, reference.stress
        worth = sizes[0] * mask[row].sum(), *sizes[1:]
        for kind, (value, size) in enumerate(zip(known, worth, strict=True)):
            if value is None:
                continue
            factors[kind, row] = np.sqrt(reference.weight) / size
            if kind == 1:
                values[1][row][mask[row]] = value
            else:
                values[kind][row] = value
    return _Frame(batch.structure, batch.neighbors, *map(jnp.asarray, (*values, *factors)))


def _residuals(potential: Potential, params: Params, frame: _Frame) -> Float[Array, " k"]:
    known = frame.structure, frame.neighbors
    energy, forces, tension = energy_forces_stress(potential.energy, params, *known)
    off = jnp.where(frame.structure.mask[:, None], forces - frame.forces, 0)
    return jnp.concatenate(
        [
            (frame.of_energy * (energy - frame.energy))[None],
            (frame.of_forces * off).reshape(-1),
            (frame.of_stress * (tension - frame.stress)).reshape(-1),
        ]
    )
