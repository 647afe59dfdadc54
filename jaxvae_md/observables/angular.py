"""The distribution of bond angles in one structure, soft."""

from __future__ import annotations

from functools import partial
from math import ceil, log, pi, sqrt

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float

from jaxvae_md import cutoffs
from jaxvae_md._typing import Array
from jaxvae_md.neighbors import NeighborList, displacements, neighbor_species
from jaxvae_md.observables.inputs import (
    check_grid,
    check_positive,
    check_reach,
    check_single,
    check_species,
)
from jaxvae_md.structure import Structure


def angular_distribution(
    structure: Structure,
    neighbors: NeighborList,
    theta: Float[Array, " bins"],
    cutoff: float,
    width: float = 0.05,
    triple: tuple[int, int, int] | None = None,
) -> Float[Array, " bins"]:
    """Distribution of the bond angles at all atoms of one structure, smoothed: soft.

    Differentiable in positions and cell to any order, straight angles included. The angle between
    the bonds to j and k counts fc(r_j) fc(r_k), with the cosine cutoff fc, so that nothing jumps
    when a neighbor enters; nearer neighbors count more, therefore, unlike in `adf_histogram`.

    Every angle t is a Gaussian of the given width, reflected at 0 and pi so that nothing leaks
    out. It is summed as the cosine series (1 + 2 sum_m exp(-(m width)^2 / 2) cos(m theta)
    cos(m t)) / pi, in which cos(m t) is a polynomial of cos(t): no angle is computed at all. This
    is Poisson's summation of the images.

    **Arguments:** `theta` in radian within [0, pi]; `cutoff` of a bond in angstrom; `width` in
    radian, at least 0.001; `triple` of species: the centre, and the two ends in any order. The
    last three are static under jit. The work grows with the square of the list's capacity.
    **Returns:** density in 1/radian that integrates to 1 over [0, pi]; not a number when no atom
    has two bonds. **Raises:** `OptionError` (for a list that lacks bonds, where that is known),
    `SpeciesError`, `InputError`.

    ```python
    theta = jnp.linspace(0, jnp.pi, 181)
    p = angular_distribution(structure, neighbor_list(3.0).allocate(structure), theta, 3.0)
    ```
    """
    check_single(structure)
    check_grid("theta", theta, 0.0, pi * (1 + 1e-6))
    check_positive("cutoff", cutoff)
    check_positive("width", width, high=pi, low=0.000999)
    check_species(triple, 3, structure.species, structure.mask)
    check_reach(structure, neighbors, cutoff)
    vector = displacements(structure, neighbors)
    real = jnp.asarray(neighbors.mask)
    first = second = real
    if triple is not None:
        center, one, other = triple
        real = real & (jnp.asarray(structure.species) == center)[:, None]
        species = neighbor_species(structure, neighbors)
        first, second = real & (species == one), real & (species == other)
    num = ceil(sqrt(-2 * log(jnp.finfo(vector.dtype).eps)) / width)
    moments = _moments(vector, first, second, float(cutoff), num)
    m = jnp.arange(num + 1, dtype=vector.dtype)
    series = moments * jnp.where(m == 0, 1, 2) * jnp.exp(-0.5 * (m * width) ** 2)
    cosines = jnp.cos(m[:, None] * jnp.asarray(theta, vector.dtype))
    return jnp.sum(series[:, None] * cosines, axis=0) / (pi * moments[0])


@partial(jax.jit, static_argnames=("cutoff", "num"))
def _moments(
    vector: Float[Array, "n k 3"],
    first: Bool[Array, "n k"],
    second: Bool[Array, "n k"],
    cutoff: float,
    num: int,
) -> Float[Array, " m"]:
    """Sums of fc fc cos(m t) over all pairs of bonds, for m from 0 to `num`."""

    # the recurrence is computed again in the backward pass: it would be kept num times
    @jax.checkpoint
    def of_atom(atom):
        vector, first, second = atom
        distance = jnp.sqrt(jnp.sum(vector**2, axis=-1))
        near = cutoffs.cosine(distance, cutoff)
        direction = vector / distance[:, None]
        cos = jnp.sum(direction[:, None] * direction, axis=-1)
        weight = jnp.where(first, near, 0)[:, None] * jnp.where(second, near, 0)
        weight = jnp.where(jnp.eye(len(near), dtype=bool), 0, weight)

        def next_order(carry, _):
            before, now = carry
            return (now, 2 * cos * now - before), jnp.sum(weight * now)

        start = cos, jnp.ones_like(cos)
        return lax.scan(next_order, start, length=num + 1)[1]

    atoms = vector, first, second
    return jnp.sum(lax.map(of_atom, atoms, batch_size=min(len(vector), 64)), axis=0)
