"""Observables of structures and trajectories."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.neighbors import NeighborList, displacements
from jaxvae_md.structure import Structure


def radial_distribution(
    structure: Structure,
    neighbors: NeighborList,
    r: Float[Array, " bins"],
    width: float = 0.1,
) -> Float[Array, " bins"]:
    """Radial distribution function g(r) of one structure, smoothed and differentiable.

    Every pair is a Gaussian of the given width; the ideal gas it is compared with is smoothed
    nowhere, so values below about one width from r = 0 are not meaningful.

    **Arguments:** `r` and `width` in angstrom; the neighbor list must reach a few widths beyond
    the largest r. **Returns:** dimensionless, 1 for an ideal gas.

    ```python
    r = jnp.linspace(1.5, 5.5, 81)
    g = radial_distribution(structure, neighbor_list(6.0).allocate(structure), r)
    ```
    """
    vector = displacements(structure, neighbors)
    distance = jnp.sqrt(jnp.sum(vector**2, axis=-1)).reshape(-1)
    real = jnp.where(neighbors.mask & structure.mask[:, None], 1.0, 0.0).reshape(-1)
    kernel = jnp.exp(-0.5 * ((r[:, None] - distance) / width) ** 2)
    density_of_pairs = jnp.sum(kernel * real, axis=-1) / (width * jnp.sqrt(2 * jnp.pi))
    num = jnp.sum(structure.mask)
    density = num / jnp.abs(jnp.linalg.det(structure.cell))
    return density_of_pairs / (num * density * 4 * jnp.pi * r**2)
