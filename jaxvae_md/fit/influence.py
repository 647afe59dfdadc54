"""Which label would change a potential most: the influence of a structure on held-out frames.

A fit is at the minimum of its loss, mean r^T r over frames. A further frame with the residual r_s
moves it, to first order, by -2 H^-1 J_s^T r_s / N, and the error h of held-out frames by
-2 (grad h)^T H^-1 J_s^T r_s / N. What is known before the label is J_s H^-1 grad h: along which
energies and forces of the structure the held-out error would answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.fit.forces import Labelled, Terms, residuals
from jaxvae_md.implicit import extreme_eigenvalues
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure


class Answer(NamedTuple):
    """By how much energy and forces of a structure change with the parameters along a direction."""

    energy: Float[Array, ""]
    """eV"""
    forces: Float[Array, "n 3"]
    """eV / angstrom"""


class Ascent(NamedTuple):
    """Latent points on the way up; the leading axis is that of the points."""

    z: Float[Array, "b latent"]
    value: Float[Array, " b"]
    start: Float[Array, " b"]
    """the value where the ascent began"""
    error: Int[Array, " b"]
    """error bits of the start; a point with some is not moved"""


def held_out_direction(
    potential: Potential,
    params: Params,
    data: Sequence[Labelled],
    held_out: Sequence[Labelled],
    terms: Terms,
    *,
    damping: float = 1e-4,
    max_steps: int = 200,
) -> Params:
    """H^-1 grad h: the change of fitted parameters that answers the error of held-out frames.

    H is the Gauss-Newton matrix of the loss of `force_matching` on the `data` of the fit, h the
    same loss of the held-out frames; solved by conjugate gradients on products, so that networks
    can be asked too. Each leaf of the parameters is measured in its root mean square, and
    `damping` is added in units of the largest eigenvalue: it stands for what keeps directions
    that no frame decides where they are.

    **Arguments:** `terms` from `terms_of(data, ...)`, as in the fit. **Source:** Koh and Liang,
    ICML (2017), with the Gauss-Newton matrix.

    ```python
    terms = terms_of(data, energy_weight=3.0, stress_weight=0.0)
    direction = held_out_direction(potential, params, data, held_out, terms)
    ```
    """
    return _direction(potential, damping, max_steps, params, list(data), list(held_out), terms)


def answer(
    potential: Potential,
    params: Params,
    direction: Params,
    structure: Structure,
    neighbors: NeighborList,
) -> Answer:
    """Derivatives of energy and forces along a direction of the parameters.

    Differentiable by positions.

    ```python
    energy, forces = answer(potential, params, direction, structure, neighbors)
    ```
    """

    def along(position):
        moved = structure._replace(position=position)
        by_params = jax.grad(potential.energy)(params, moved, neighbors)
        products = jax.tree.map(lambda a, b: jnp.vdot(a, b), by_params, direction)
        return sum(jax.tree.leaves(products), jnp.zeros((), position.dtype))

    energy, slope = jax.value_and_grad(along)(jnp.asarray(structure.position))
    return Answer(energy, -slope)


def influence(found: Answer, terms: Terms, mask: Array) -> Float[Array, ""]:
    """Root mean square change of the held-out error by a label, times the number of frames.

    Over labels whose residuals, in the units of the loss, are independent and of size 1.

    ```python
    influence(answer(potential, params, direction, *frame), terms, structure.mask)
    ```
    """
    return 2 * jnp.sqrt(_product(terms, mask, found, found))


def predicted_change(
    found: Answer,
    terms: Terms,
    mask: Array,
    energy_error: Float[Array, ""],
    force_error: Float[Array, "n 3"],
) -> Float[Array, ""]:
    """Change of the held-out error by a label, times the number of frames, to first order.

    **Arguments:** the potential's energy (eV) and forces (eV / angstrom) less the label's.

    ```python
    change = predicted_change(found, terms, structure.mask, e - e_label, f - f_label)
    ```
    """
    return -2 * _product(terms, mask, found, Answer(energy_error, force_error))


def ascend(
    value_fn: Callable[[Array, Any], tuple[Float[Array, ""], Int[Array, ""]]],
    z: Float[Array, "b latent"],
    starts: Any,
    *,
    num_steps: int = 10,
    radius: float = 1.0,
    first_step: float = 0.2,
) -> Ascent:
    """Moves latent points uphill, each at most `radius` from where it was.

    Steps along the gradient that lower the value, or whose structure has error bits, are not
    taken, and the next one is half as long.

    **Arguments:** `value_fn(z, start)` of one point makes its structure (`realise`, then `relax`
    or a simulation), and returns the logarithm of its influence, say, and error bits; `starts` a
    pytree whose leading axis is that of the points. To be jitted.

    ```python
    def value_fn(z, start):
        made = realise(descriptor, encode, z, *start, min_distance)
        found = answer(potential, params, direction, made.structure, start[1])
        return jnp.log(influence(found, terms, made.structure.mask)), made.error

    ascent = jax.jit(partial(ascend, value_fn))(targets.z, starts)
    ```
    """

    def of_point(point):
        origin, start = point
        slope_fn = jax.value_and_grad(value_fn, has_aux=True)

        def step(carry, _):
            z, value, slope, length = carry
            norm = jnp.sqrt(jnp.sum(slope**2))
            moved = z + length * slope / jnp.where(norm > 0, norm, 1)
            away = moved - origin
            distance = jnp.sqrt(jnp.sum(away**2))
            moved = origin + away * jnp.minimum(1, radius / jnp.where(distance > 0, distance, 1))
            (other, error), slope_there = slope_fn(moved, start)
            better = (other > value) & (error == 0) & jnp.all(jnp.isfinite(slope_there))
            keep = partial(jnp.where, better)
            carry = keep(moved, z), keep(other, value), keep(slope_there, slope)
            return (*carry, length * keep(1.2, 0.5)), None

        (value, error), slope = slope_fn(origin, start)
        usable = (error == 0) & jnp.all(jnp.isfinite(slope))
        carry = origin, value, jnp.where(usable, slope, 0), jnp.asarray(first_step, z.dtype)
        (found, best, *_), _ = lax.scan(step, carry, length=num_steps)
        return Ascent(found, best, value, error)

    return lax.map(of_point, (z, starts))


def _product(terms: Terms, mask: Array, one: Answer, other: Answer) -> Float[Array, ""]:
    """Of two changes of energy and forces, in the units of the loss."""
    num = jnp.sum(mask)
    of_energy = (terms.energy / num) ** 2 * one.energy * other.energy
    forces = jnp.where(mask[:, None], one.forces * other.forces, 0)
    return of_energy + terms.forces**2 / (3 * num) * jnp.sum(forces)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _direction(potential: Potential, damping, max_steps, params, data, held_out, terms):
    def in_parts(function, parts):
        """Mean over frames."""
        total = [jnp.sum(lax.map(function, part), axis=0) for part in parts]
        return sum(total[1:], total[0]) / sum(len(part.energy) for part in parts)

    flat, unravel = ravel_pytree(params)
    size = jax.tree.map(lambda p: jnp.full_like(p, _rms(p)), params)
    size, _ = ravel_pytree(size)
    of_frame = lambda x, frame: residuals(potential, unravel(size * x), frame, terms)
    x = flat / size

    def product(v):
        def one(frame):
            _, push = jax.linearize(lambda x: of_frame(x, frame), x)
            (pulled,) = jax.linear_transpose(push, x)(push(v))
            return pulled

        return 2 * in_parts(one, data)

    slope = in_parts(
        lambda frame: jax.grad(lambda x: jnp.sum(of_frame(x, frame) ** 2))(x), held_out
    )
    _, largest = extreme_eigenvalues(product, x, num_steps=16)
    shift = damping * largest
    found, _ = cg(lambda v: product(v) + shift * v, slope, tol=1e-6, maxiter=max_steps)
    return unravel(size * found)


def _rms(leaf):
    value = jnp.sqrt(jnp.mean(leaf**2))
    return jnp.where(value > 0, value, 1.0)
