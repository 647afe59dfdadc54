"""The radial distribution function of one structure, soft."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.neighbors import NeighborList, displacements, neighbor_species
from jaxvae_md.observables.inputs import (
    check_grid,
    check_positive,
    check_reach,
    check_single,
    check_species,
    known,
)
from jaxvae_md.structure import Structure

_TINY = float(np.finfo(np.float32).tiny)


def radial_distribution(
    structure: Structure,
    neighbors: NeighborList,
    r: Float[Array, " bins"],
    width: float = 0.1,
    pair: tuple[int, int] | None = None,
) -> Float[Array, " bins"]:
    """Radial distribution function g(r) of one structure, smoothed: soft.

    Differentiable in positions and cell. Every pair is a Gaussian of the given width; the ideal
    gas it is compared with is smoothed nowhere, so values below about one width from r = 0 are
    not meaningful. `rdf_histogram` counts exactly.

    **Arguments:** `r` and `width` in angstrom; the neighbor list must reach a few widths beyond
    the largest r. `pair` (a, b) of species: only of atoms b around atoms a, with
    g = sum_ab c_a c_b g_ab for the fractions c of the species; static under jit.
    **Returns:** dimensionless, 1 for an ideal gas of the same density, N / V with the atom at the
    centre counted: a cell and its supercell have the same function. **Raises:** `OptionError`,
    `SpeciesError`, `InputError`.

    ```python
    r = jnp.linspace(1.5, 5.5, 81)
    g = radial_distribution(structure, neighbor_list(6.0).allocate(structure), r)
    ```
    """
    check_single(structure)
    check_grid("r", r, _TINY)
    if known(width):
        check_positive("width", width)
    check_species(pair, 2, structure.species, structure.mask)
    if known(r):
        check_reach(structure, neighbors, float(np.asarray(r).max()))
    mask, species = jnp.asarray(structure.mask), jnp.asarray(structure.species)
    vector = displacements(structure, neighbors)
    r = jnp.asarray(r, vector.dtype)
    distance = jnp.sqrt(jnp.sum(vector**2, axis=-1)).reshape(-1)
    real = neighbors.mask & mask[:, None]
    center = end = mask
    if pair is not None:
        center, end = mask & (species == pair[0]), mask & (species == pair[1])
        real &= center[:, None] & (neighbor_species(structure, neighbors) == pair[1])
    kernel = jnp.exp(-0.5 * ((r[:, None] - distance) / width) ** 2)
    kernel = kernel * jnp.where(real, 1.0, 0.0).reshape(-1)
    density_of_pairs = jnp.sum(kernel, axis=-1) / (width * jnp.sqrt(2 * jnp.pi))
    density = jnp.sum(end) / jnp.abs(jnp.linalg.det(structure.cell))
    return density_of_pairs / (jnp.sum(center) * density * 4 * jnp.pi * r**2)
