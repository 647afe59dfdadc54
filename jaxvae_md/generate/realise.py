"""Structures that realise a requested environment: gradient descent through the descriptor."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.generate.guard import overlap
from jaxvae_md.implicit import minimize
from jaxvae_md.neighbors import NeighborList, displacements, is_stale, neighbor_species
from jaxvae_md.structure import Structure


class Realised(NamedTuple):
    """A structure made for a request."""

    structure: Structure
    residual: Float[Array, ""]
    """root mean square difference between the atom's features and the request"""
    closest: Float[Array, ""]
    """shortest pair distance over its lower limit; TOO_CLOSE is set below 0.95"""
    error: Int[Array, ""]
    """error bits: NOT_FINITE, NOT_CONVERGED, ILL_CONDITIONED, STALE_NEIGHBORS, TOO_CLOSE"""


def realise(
    descriptor: Chebyshev,
    features_fn: Callable[[Float[Array, " f"]], Float[Array, " t"]],
    target: Float[Array, " t"],
    structure: Structure,
    neighbors: NeighborList,
    center: Int[Array, ""],
    min_distance: Float[Array, "s s"],
    *,
    skin: float = 2.0,
    tether: float = 1e-2,
    repulsion: float = 10.0,
    tolerance: float = 1e-8,
    max_steps: int = 2000,
    damping: float = 0.0,
) -> Realised:
    """Moves atoms of a start structure until one atom's surroundings are what is requested.

    Minimises over the displacements u of all atoms

        1/2 |features(x_center) - target|^2 / t + tether/2 |u|^2 + repulsion/2 sum (dmin - r)+^2

    The tether keeps what the request does not speak of where it was, and makes the minimum
    unique, so the result is differentiable with respect to the target (and to whatever made it)
    and to the start, by the implicit function theorem.

    **Arguments:** `features_fn` maps the descriptor of one atom to what is requested (its
    standardised form, or its latent code); `center` the atom; `min_distance` (angstrom) per
    species pair; `skin` (angstrom) as the list was allocated; `tether` in 1/angstrom^2;
    `repulsion` in 1/angstrom^2; `tolerance`, `max_steps` and `damping` as in
    `implicit.minimize`.

    ```python
    fns = neighbor_list(descriptor.cutoff, skin=2.0)
    result = realise(descriptor, standardizer.apply, target, start, fns.allocate(start),
                     center=0, min_distance=jnp.array([[1.9]]))
    ```
    """
    position = jnp.asarray(structure.position)
    atom = jnp.asarray(center)[None]
    limit = jnp.asarray(min_distance)

    def mismatch(structure, neighbors, atom, target):
        return features_fn(descriptor.at(structure, neighbors, atom)[0]) - target

    def objective(move, args):
        target, structure, neighbors, atom, limit = args
        moved = structure._replace(position=structure.position + move)
        return 0.5 * (
            jnp.mean(mismatch(moved, neighbors, atom, target) ** 2)
            + tether * jnp.sum(move**2)
            + repulsion * overlap(moved, neighbors, limit)
        )

    minimum = minimize(
        objective,
        jnp.zeros_like(position),
        (target, structure._replace(position=position), neighbors, atom, limit),
        tolerance=tolerance,
        max_steps=max_steps,
        damping=damping,
    )
    moved = structure._replace(position=position + minimum.x)
    distance = jnp.sqrt(jnp.sum(displacements(moved, neighbors) ** 2, axis=-1))
    pair = structure.species[:, None], neighbor_species(structure, neighbors)
    closest = jnp.min(distance / limit[pair])
    stale = is_stale(moved, neighbors, skin)
    return Realised(
        structure=moved,
        residual=jnp.sqrt(jnp.mean(mismatch(moved, neighbors, atom, target) ** 2)),
        closest=closest,
        error=minimum.error
        | jnp.where(stale, errors.STALE_NEIGHBORS, 0)
        | jnp.where(closest < 0.95, errors.TOO_CLOSE, 0),
    )
