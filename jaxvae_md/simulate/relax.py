"""Relaxation to the nearest minimum of the energy, differentiable."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.implicit import minimize
from jaxvae_md.neighbors import NeighborList, is_stale
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure


class Relaxed(NamedTuple):
    """A relaxed structure."""

    structure: Structure
    energy: Float[Array, ""]
    """eV"""
    max_force: Float[Array, ""]
    """eV / angstrom, on the atoms that were free"""
    error: Int[Array, ""]
    """error bits: NOT_FINITE, NOT_CONVERGED, ILL_CONDITIONED, STALE_NEIGHBORS"""


def relax(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: NeighborList,
    *,
    fixed: Bool[Array, " n"] | None = None,
    skin: float = 0.5,
    tolerance: float = 1e-6,
    max_steps: int = 2000,
    damping: float = 0.0,
) -> Relaxed:
    """Moves the free atoms to the nearest minimum of the energy; the cell stays.

    Differentiable by the implicit function theorem: with respect to `params`, to the positions
    of the fixed atoms and to the cell. A local minimum does not depend on where the free atoms
    started, so their start has no gradient, save that without fixed atoms the centre of the
    positions is kept.

    **Arguments:** `fixed` marks atoms that stay; `skin` (angstrom) is the one the list was
    allocated with, and STALE_NEIGHBORS is set when an atom moved more than half of it: allocate
    again from the result and repeat. `tolerance` in eV / angstrom; `damping` as in
    `implicit.minimize`.

    ```python
    fns = neighbor_list(potential.cutoff, skin=1.0)
    relaxed = relax(potential, params, structure, fns.allocate(structure), skin=1.0)
    ```
    """
    position = jnp.asarray(structure.position)
    free = jnp.asarray(structure.mask if fixed is None else structure.mask & ~fixed)[:, None]
    none_fixed = jnp.all(free[:, 0] == structure.mask)

    def objective(move, args):
        params, structure, neighbors, free, none_fixed = args
        held = jnp.where(free, 0, move)
        move = jnp.where(free, move, 0)
        energy = potential.energy(
            params, structure._replace(position=structure.position + move), neighbors
        )
        # what the energy leaves undetermined: moves of fixed atoms, and translation
        drift = jnp.where(none_fixed, 0.5 * jnp.sum(jnp.sum(move, axis=0) ** 2), 0.0)
        return energy + drift + 0.5 * jnp.sum(held**2)

    minimum = minimize(
        objective,
        jnp.zeros_like(position),
        (params, structure._replace(position=position), neighbors, free, none_fixed),
        tolerance=tolerance,
        max_steps=max_steps,
        damping=damping,
    )
    relaxed = structure._replace(position=position + jnp.where(free, minimum.x, 0))
    stale = is_stale(relaxed, neighbors, skin)
    return Relaxed(
        structure=relaxed,
        energy=potential.energy(params, relaxed, neighbors),
        max_force=minimum.gradient_norm,
        error=minimum.error | jnp.where(stale, errors.STALE_NEIGHBORS, 0),
    )
