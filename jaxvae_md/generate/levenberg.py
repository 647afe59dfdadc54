"""Levenberg-Marquardt for all atoms of a cell, from coarse to fine.

With residuals R_ic = (x_ic - mean_c) / scale_c - target_ic of atom i and column c, every step
solves (H + lambda tr(H) / 3n) d = -g for the moves d of all atoms, with

    J = dR / d position     H = sum_ic s_i w_c^2 J_ic J_ic^T     g = sum_ic s_i w_c^2 R_ic J_ic

Far from the solution the squares have many minima. Three measures lead past most of them: w_c
opens the orders of the Chebyshev polynomials one after the other, the smooth ones first;
s_i = 1 / (1 + q_i / c), with q_i the atom's mean square and c a fraction of the cell's median,
leaves out for a while those atoms whose surroundings are wrong (the Cauchy loss is
sum c log(1 + q_i / c)); and lambda has a floor as long as they are left out, since a step that is
too bold loses the way that the start knows. What does not converge begins again, with new noise,
where atoms do not fit.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.generate.jacobian import jacobian
from jaxvae_md.neighbors import NeighborList, is_stale, neighbor_list
from jaxvae_md.structure import Structure

SKIN = 0.6
"""of the neighbor list, in angstrom"""
_FIRST_ORDER = 2
"""the highest order that is open at the first step"""
_OPENED, _ROBUST = 0.5, 0.7
"""shares of the steps: when all orders are open, and until when the Cauchy weights last"""
_CAUCHY = 0.3
"""scale of the Cauchy loss, in medians of the atoms' mean squares"""
_NEAR = 1e-3
"""residual below which all this is left out, and convergence is quadratic"""
_DAMPING, _LEAST_ROBUST, _LEAST = 0.1, 0.03, 1e-9
"""lambda: first, and at least, with Cauchy weights and without"""
_MAX_MOVE = 0.5
"""of an atom in one step, in angstrom"""
_MAX_TRIALS = 8
"""of lambda with one Jacobian"""
_STALLED, _PATIENCE = 1e-3, 5
"""relative decrease of the loss that is none, and how often in a row ends an attempt"""
_FITS = 1e-2
"""mean square below which an atom stays where it is when the others begin again"""


class Options(NamedTuple):
    """Told at `invert`."""

    tolerance: float
    num_steps: int
    num_restarts: int
    noise: float


class Solved(NamedTuple):
    """The best place that was found, and what is told of it at `Inverted`."""

    position: Float[Array, "n 3"]
    residual: Float[Array, ""]
    num_steps: Int[Array, ""]
    attempt: Int[Array, ""]
    error: Int[Array, ""]
    most: Int[Array, ""]
    """largest number of neighbors that an atom had on the way"""


class _Place(NamedTuple):
    """Where a cell's atoms are, and what is known there."""

    position: Float[Array, "n 3"]
    neighbors: NeighborList
    mismatch: Float[Array, "n f"]


@partial(jax.jit, static_argnums=0)
def solve(
    descriptor: Chebyshev,
    options: Options,
    target: Float[Array, "n f"],
    start: Structure,
    neighbors: NeighborList,
    standardizer: Standardizer,
    key: Array,
) -> Solved:
    """One cell: attempts until one converges.

    **Arguments:** as `invert` has them, checked; `target` in the type of the positions;
    `neighbors` allocated with `SKIN`.

    ```python
    neighbors = neighbor_list(descriptor.cutoff, SKIN).allocate(start, multiple=16)
    found = solve(descriptor, options, target, start, neighbors, standardizer, key)
    ```
    """
    update = neighbor_list(descriptor.cutoff, SKIN).update
    start, target, neighbors = jax.tree.map(jnp.asarray, (start, target, neighbors))
    real, order = start.mask, _orders(descriptor)
    num_steps = options.num_steps

    def place(position, neighbors) -> _Place:
        moved = start._replace(position=position)
        stale = is_stale(moved, neighbors, SKIN)
        neighbors = lax.cond(stale, update, lambda _, n: n, moved, neighbors)
        mismatch = standardizer.apply(descriptor(moved, neighbors)) - target
        return _Place(position, neighbors, jnp.where(real[:, None], mismatch, 0))

    def mean(moves):
        """Of the atoms; zero for padding."""
        moves = jnp.where(real[:, None], moves, 0)
        return jnp.where(real[:, None], jnp.sum(moves, axis=0) / jnp.sum(real), 0)

    def residual(at: _Place):
        return jnp.sum(at.mismatch**2) / (jnp.sum(real) * at.mismatch.shape[1])

    def step(carry):
        at, damping, count, stalls, total = carry
        highest = max(float(order.max()) - _FIRST_ORDER, 0.0)
        near = residual(at) < _NEAR
        opened = _FIRST_ORDER + highest * jnp.where(near, 1, count / (_OPENED * num_steps))
        weight = jnp.clip(opened + 1 - order, 0, 1).astype(target.dtype)
        weight = weight / jnp.sqrt(jnp.sum(weight**2))
        robust = ~near & (count < _ROBUST * num_steps)

        def of_atoms(at):
            return jnp.sum((weight * at.mismatch) ** 2, axis=1)

        middle = jnp.nanmedian(jnp.where(real, of_atoms(at), jnp.nan))
        cauchy = jnp.maximum(_CAUCHY * middle, jnp.finfo(target.dtype).tiny)

        def loss(at):
            q = of_atoms(at)
            return jnp.sum(jnp.where(robust, cauchy * jnp.log1p(q / cauchy), q))

        moved = start._replace(position=at.position)
        _, slope = jacobian(descriptor, moved, at.neighbors)
        trust = jnp.where(robust, 1 / (1 + of_atoms(at) / cauchy), 1.0) * real
        both = jnp.sqrt(trust)[:, None] * weight
        rows = slope * (both / standardizer.scale.astype(slope.dtype))[:, :, None, None]
        rows = rows.reshape(-1, 3 * len(real))
        gram, gradient = rows.T @ rows, (both * at.mismatch).reshape(-1) @ rows
        unit = jnp.trace(gram) / (3 * jnp.sum(real)) * jnp.eye(len(gram), dtype=gram.dtype)
        before = loss(at)

        def trial(carry):
            _, tried, damping, _, _ = carry
            factor = jax.scipy.linalg.cho_factor(gram + damping * unit, lower=True)
            move = -jax.scipy.linalg.cho_solve(factor, gradient).reshape(3, -1).T
            move = jnp.where(real[:, None], move, 0)
            move = move - mean(move)
            length = jnp.sqrt(jnp.max(jnp.sum(move**2, axis=1)))
            move = move * jnp.minimum(1, _MAX_MOVE / jnp.where(length > 0, length, 1))
            there = place(at.position + move, at.neighbors)
            along = move.T.reshape(-1)
            promised = -along @ (2 * gradient + gram @ along)
            gained = before - loss(there)
            # what is not a number is no gain
            better = gained > 0
            kept = gained / promised
            factor = jnp.where(kept > 0.75, 0.2, jnp.where(kept < 0.25, 2.0, 0.7))
            damping = damping * jnp.where(better, factor, 5.0)
            damping = jnp.clip(damping, jnp.where(robust, _LEAST_ROBUST, _LEAST), 1e6)
            there = jax.tree.map(lambda a, b: jnp.where(better, a, b), there, at)
            return better, tried + 1, damping, there, jnp.where(better, gained / before, 0)

        untried = (jnp.array(False), 0, damping, at, jnp.zeros_like(before))
        unsuccessful = lambda carry: ~carry[0] & (carry[1] < _MAX_TRIALS)
        better, _, damping, at, decrease = lax.while_loop(unsuccessful, trial, untried)
        # while weights change, what stalls now may move later
        stalls = jnp.where(robust | (decrease > _STALLED), 0, stalls + 1)
        stalls = jnp.where(better | robust, stalls, _PATIENCE)
        return at, jnp.minimum(damping, 1e2), count + 1, stalls, total + 1

    def unfinished(carry):
        at, _, count, stalls, _ = carry
        going = (count < num_steps + num_steps // 2) & (stalls < _PATIENCE)
        return going & (residual(at) > options.tolerance) & ~at.neighbors.overflow

    def attempt(carry):
        best, number, total, found_by = carry
        fits = jnp.mean(best.mismatch**2, axis=1) < _FITS
        fresh = jax.random.normal(jax.random.fold_in(key, number), start.position.shape)
        fresh = start.position + options.noise * fresh.astype(target.dtype)
        again = jnp.where((fits | ~real)[:, None], best.position, fresh)
        again = again - mean(again - start.position)
        at = place(jnp.where(number == 0, start.position, again), best.neighbors)
        first = (at, jnp.asarray(_DAMPING, target.dtype), 0, 0, total)
        at, _, _, _, total = lax.while_loop(unfinished, step, first)
        better = (residual(at) < residual(best)) | ~jnp.isfinite(residual(best))
        overflow = at.neighbors.overflow
        best = jax.tree.map(lambda a, b: jnp.where(better | overflow, a, b), at, best)
        return best, number + 1, total, jnp.where(better, number, found_by)

    def unsolved(carry):
        best, number, _, _ = carry
        solved = residual(best) <= options.tolerance
        return ~solved & (number <= options.num_restarts) & ~best.neighbors.overflow

    # nothing is known of the start yet, nor does any of its atoms fit
    unknown = _Place(start.position, neighbors, jnp.full_like(target, jnp.nan))
    none = jnp.zeros((), int)
    first = (unknown, none, none, none)
    best, _, total, found_by = lax.while_loop(unsolved, attempt, first)
    solution = start._replace(position=best.position)
    value, at_end = residual(best), best.neighbors
    bits = (
        (~jnp.isfinite(value), errors.NOT_FINITE),
        (~(value <= options.tolerance), errors.NOT_CONVERGED),
        (at_end.overflow, errors.NEIGHBOR_OVERFLOW),
        (is_stale(solution, at_end, SKIN), errors.STALE_NEIGHBORS),
    )
    error = sum((jnp.where(bad, bit, 0) for bad, bit in bits), none)
    return Solved(best.position, value, total, found_by, error, at_end.most)


def _orders(descriptor: Chebyshev) -> Int[np.ndarray, " f"]:
    """Order of the Chebyshev polynomial of every column."""
    parts = [np.arange(n + 1) for n in (descriptor.radial_order, descriptor.angular_order)]
    return np.concatenate(parts * (1 if len(descriptor.species) == 1 else 2))
