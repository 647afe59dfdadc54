"""What the coverage scores compare: an atom's descriptor, its neighborhood's and its region's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md import cutoffs
from jaxvae_md._typing import Array
from jaxvae_md.batching import batches
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.neighbors import NeighborList, displacements
from jaxvae_md.structure import Structure, from_atoms

if TYPE_CHECKING:
    from ase import Atoms

_NEAR, _REGION = 1.7, 2.55
"""pooling radii in nearest-neighbor distances"""
_HOPS = 3


class Surroundings(NamedTuple):
    """Three views of each environment, from standardised descriptors x; a pytree of arrays."""

    own: Float[Array, "*m f"]
    """x itself"""
    near: Float[Array, "*m d"]
    """mean and standard deviation of x over the atom and its nearest neighbors"""
    region: Float[Array, "*m d"]
    """the same over some fifty atoms: pooled three times within the descriptor's cutoff"""


def pool(
    x: Float[Array, "n f"],
    structure: Structure,
    neighbors: NeighborList,
    radius: float,
    num_hops: int = 1,
) -> Float[Array, "n d"]:
    """Mean and standard deviation of descriptors over an atom and its neighbors, d = 2 f.

    Weights are fc(r; radius), 1 for the atom itself; `radius` in angstrom, covered by the list.
    With more hops the mean is taken again of the neighbors' means, which reaches `num_hops` times
    as far with the same list. Differentiable in x and in the positions. In single precision a
    deviation far below that of the whole structure is wrong by some 1e-3 of the latter.

    ```python
    c = pool(x, structure, neighbors, radius=4.0)
    ```
    """
    vector = displacements(structure, neighbors)
    weight = cutoffs.cosine(jnp.sqrt(jnp.sum(vector**2, axis=-1)), radius)
    total = 1 + jnp.sum(weight, axis=-1, keepdims=True)
    # shifted, so that the difference of squares does not cancel
    centre = jnp.mean(x, axis=0)
    moments = jnp.concatenate([x - centre, (x - centre) ** 2], axis=-1)
    for _ in range(num_hops):
        moments += jnp.einsum("nk,nkf->nf", weight, moments[neighbors.index])
        moments /= total
    mean, square = jnp.split(moments, 2, axis=-1)
    deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0) + 1e-10)
    return jnp.concatenate([mean + centre, deviation], axis=-1)


def surroundings_of(
    descriptor: Chebyshev,
    standardizer: Standardizer,
    nearest_distance: float,
    structure: Structure,
    neighbors: NeighborList,
) -> Surroundings:
    """`surroundings` of one structure, under jit; differentiable in its positions.

    ```python
    fns = neighbor_list(reach(descriptor, 2.35))
    y = surroundings_of(descriptor, standardizer, 2.35, structure, fns.allocate(structure))
    ```
    """
    x = standardizer.apply(descriptor(structure, neighbors))
    near = pool(x, structure, neighbors, _NEAR * nearest_distance)
    return Surroundings(x, near, pool(x, structure, neighbors, _REGION * nearest_distance, _HOPS))


def surroundings(
    frames: Sequence[Atoms],
    descriptor: Chebyshev,
    standardizer: Standardizer,
    nearest_distance: float,
) -> list[Surroundings]:
    """What the coverage scores compare, of every frame.

    **Arguments:** `nearest_distance` (angstrom) of the material sets the radii.

    ```python
    y = surroundings(frames, descriptor, standardizer, nearest_distance=2.35)
    ```
    """
    structures = [from_atoms(atoms, descriptor.species) for atoms in frames]
    out: list[Surroundings] = [None] * len(structures)  # type: ignore[list-item]
    one = _surroundings(descriptor, nearest_distance)
    scale = jax.tree.map(jnp.asarray, standardizer)
    for batch in batches(structures, reach(descriptor, nearest_distance)):
        pooled = jax.tree.map(np.asarray, one(scale, batch.structure, batch.neighbors))
        for row, (mask, frame) in enumerate(zip(batch.structure.mask, batch.frame, strict=True)):
            out[frame] = jax.tree.map(lambda leaf, row=row, mask=mask: leaf[row][mask], pooled)
    return out


def reach(descriptor: Chebyshev, nearest_distance: float) -> float:
    """Cutoff (angstrom) of the neighbor list that `surroundings_of` needs."""
    return max(descriptor.cutoff, _REGION * nearest_distance)


def joined(parts: Sequence[Surroundings]) -> Surroundings:
    """The environments of several structures in one.

    ```python
    scores = score(model, joined(surroundings(frames, descriptor, standardizer, 2.35)))
    ```
    """
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


@lru_cache
def _surroundings(descriptor: Chebyshev, nearest_distance: float):
    def batch(standardizer, structure, neighbors):
        one = lambda frame: surroundings_of(descriptor, standardizer, nearest_distance, *frame)
        return lax.map(one, (structure, neighbors))

    return jax.jit(batch)
