"""What makes a structure physical enough to be labelled: pair distances and the energy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.batching import batches
from jaxvae_md.neighbors import NeighborList, displacements, host_pairs, neighbor_species
from jaxvae_md.potentials import Potential, compose, potential
from jaxvae_md.structure import Structure

_RARE, _MARGIN = 0.005, 0.95
"""share of atoms that are nearer to their nearest neighbor, and of that distance"""
_RADII = 0.7
"""of the sum of covalent radii, for species that never meet in the training data"""
_REACH, _STIFFNESS = 0.1, 20.0
"""angstrom beyond the shortest distance, and eV / angstrom^2, of the repulsion"""


class Guard(NamedTuple):
    """Limits that a generated structure must keep."""

    min_distance: Float[np.ndarray, "s s"]
    """shortest allowed pair distances in angstrom, by species"""
    floor: float
    """lowest energy in eV per atom, by the current potential; below it extrapolates"""
    ceiling: float
    """and the highest"""


def fit_guard(
    structures: Sequence[Structure], potential: Potential, params: Params, nearest_distance: float
) -> Guard:
    """Limits from the training data.

    Distances: 0.95 of what all but 0.5 % of the atoms have to their nearest neighbor, and 0.7 times
    the sum of covalent radii for pairs that never meet there. Energy: the range that the current
    potential gives the data, and half of it and 0.05 eV more to both sides.

    **Arguments:** structures without padding; `nearest_distance` in angstrom.

    ```python
    guard = fit_guard(structures, potential, params, nearest_distance=2.35)
    ```
    """
    from ase.data import atomic_numbers, covalent_radii

    num = len(potential.species)
    nearest: list[list[float]] = [[] for _ in range(num * num)]
    for structure in structures:
        i, j, shift = host_pairs(structure, 2 * nearest_distance)
        vector = structure.position[j] + shift @ structure.cell - structure.position[i]
        of_atom = np.full((len(structure.position), num), np.inf)
        np.minimum.at(of_atom, (i, structure.species[j]), np.linalg.norm(vector, axis=1))
        for a, row in zip(structure.species, of_atom, strict=True):
            for b in np.nonzero(np.isfinite(row))[0]:
                nearest[a * num + b].append(row[b])
    shortest = np.array(
        [np.quantile(found, _RARE) if found else np.inf for found in nearest]
    ).reshape(num, num)
    shortest = np.minimum(shortest, shortest.T)
    radius = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in potential.species])
    fallback = _RADII * (radius[:, None] + radius)
    distance = np.where(np.isfinite(shortest), _MARGIN * shortest, fallback)
    energy = _energy_per_atom(structures, potential, params)
    more = 0.5 * float(np.ptp(energy)) + 0.05
    return Guard(distance, float(energy.min()) - more, float(energy.max()) + more)


def overlap(
    structure: Structure, neighbors: NeighborList, min_distance: Float[Array, "s s"]
) -> Float[Array, ""]:
    """Sum over pairs of max(min_distance - r, 0)^2 in angstrom^2; differentiable.

    ```python
    energy = stiffness * overlap(structure, neighbors, 1.05 * guard.min_distance)
    ```
    """
    distance = jnp.sqrt(jnp.sum(displacements(structure, neighbors) ** 2, axis=-1))
    limit = jnp.asarray(min_distance)[
        structure.species[:, None], neighbor_species(structure, neighbors)
    ]
    return 0.5 * jnp.sum(jnp.maximum(limit - distance, 0) ** 2)


@lru_cache(maxsize=16)
def guarded(current: Potential) -> Potential:
    """A potential with a repulsion where pairs are nearer than the data show: it knows nothing there.

    Parameters: {"current", "repulsion": {"distance": [s, s]}}; a pair at its shortest distance
    costs 0.2 eV, less by 0.1 angstrom 0.8 eV.

    ```python
    stiff = guarded(potential)
    params = {"current": params, "repulsion": {"distance": guard.min_distance}}
    ```
    """  # noqa: E501

    def energy(params, structure, neighbors):
        reach = params["distance"] + _REACH
        return _STIFFNESS * overlap(structure, neighbors, reach)

    num = len(current.species)
    init = lambda key: {"distance": jnp.zeros((num, num))}
    repulsion = potential(current.species, current.cutoff, init, energy)
    return compose(current=current, repulsion=repulsion)


def _energy_per_atom(
    structures: Sequence[Structure], potential: Potential, params: Params
) -> Float[np.ndarray, " frames"]:
    out = np.zeros(len(structures))
    of = jax.jit(lambda p, s, n: jax.lax.map(lambda a: potential.energy(p, *a), (s, n)))
    for batch in batches(structures, potential.cutoff, num_batches=1):
        energy = np.asarray(of(params, batch.structure, batch.neighbors))
        out[batch.frame] = energy / np.sum(batch.structure.mask, axis=1)
    return out
