"""Chebyshev descriptors of atomic environments, as aenet computes them, in linear time.

For a centre with neighbors j at distance r_j in direction u_j:

    radial    c_n = sum_j   w_j fc(r_j; Rr) T_n(2 r_j / Rr - 1)                  n = 0 .. Nr
    angular   c_n = sum_j<k w_j w_k fc(r_j; Ra) fc(r_k; Ra) T_n(u_j . u_k)       n = 0 .. Na

with w = 1, and for more than one species again with w = the species' weight. Columns: radial,
angular, weighted radial, weighted angular.

Source: Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017); conventions of aenet 2.0. How
the sum over pairs becomes linear in the number of neighbors is told in `environment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.descriptors.environment import Basis, columns, columns_with_rule
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, NeighborList, displacements, neighbor_species
from jaxvae_md.structure import Structure, checked_species

_CHUNK = 64
"""environments at a time on a CPU"""


@dataclass(frozen=True)
class Chebyshev:
    """The descriptor as a function: `descriptor(structure, neighbors)`. Make it by `chebyshev`."""

    species: tuple[str, ...]
    radial_cutoff: float
    radial_order: int
    angular_cutoff: float
    angular_order: int
    weights: tuple[float, ...]
    forward_mode: bool = False

    @property
    def cutoff(self) -> float:
        """The larger cutoff (angstrom): what the neighbor list must cover."""
        return max(self.radial_cutoff, self.angular_cutoff)

    @property
    def num_features(self) -> int:
        """Number of columns f."""
        columns = self.radial_order + self.angular_order + 2
        return columns if len(self.species) == 1 else 2 * columns

    def __call__(self, structure: Structure, neighbors: NeighborList) -> Float[Array, "n f"]:
        """Descriptors of every atom, dimensionless. Padding atoms get zeros."""
        return self.at(structure, neighbors)

    def at(
        self, structure: Structure, neighbors: NeighborList, atoms: Int[Array, " a"] | None = None
    ) -> Float[Array, "a f"]:
        """Descriptors of some atoms only."""
        vector = displacements(structure, neighbors, atoms)
        return self.of_environments(vector, self._weight(structure, neighbors, atoms))

    def linearise(
        self, structure: Structure, neighbors: NeighborList
    ) -> tuple[Float[Array, "n f"], Float[Array, "n f k 3"]]:
        """Descriptors, and their derivatives (1/angstrom) by every displacement vector r_ij.

        What force matching keeps: energies and forces of any network on the descriptors follow
        from these two without evaluating the descriptor again.
        """
        vector = displacements(structure, neighbors)
        weight = self._weight(structure, neighbors)

        def one(vector, weight):
            environment = lambda v: self.of_environments(v, weight)
            return environment(vector), jax.jacrev(environment)(vector)

        return jax.vmap(one)(vector, weight)

    def of_environments(
        self, displacement: Float[Array, "*b k 3"], weight: Float[Array, "*b k"]
    ) -> Float[Array, "*b f"]:
        """Descriptors from displacement vectors (angstrom) and the neighbors' weights.

        Neighbors beyond the cutoff contribute nothing; none may sit at the centre.
        """
        *batch, capacity, _ = displacement.shape
        vector = displacement.reshape(-1, capacity, 3)
        weights = jnp.broadcast_to(weight, displacement.shape[:-1]).reshape(-1, capacity)
        some: Callable[..., Any] = columns if self.forward_mode else columns_with_rule
        weighted = len(self.species) > 1

        def of(vector, weight) -> Array:
            return some(self._basis, jnp.moveaxis(vector, -1, 0), weight if weighted else None)

        num = len(vector)
        if num <= _CHUNK or jax.default_backend() != "cpu":
            out = of(vector, weights)
        else:
            # a chunk stays in the cache of a core
            extra = -num % _CHUNK
            cut = lambda array: array.reshape(-1, _CHUNK, *array.shape[1:])
            vector = jnp.concatenate([vector, jnp.full((extra, capacity, 3), FAR, vector.dtype)])
            weights = jnp.concatenate([weights, jnp.zeros((extra, capacity), weights.dtype)])
            out = lax.map(lambda chunk: of(*chunk), (cut(vector), cut(weights)))
            out = out.reshape(-1, out.shape[-1])[:num]
        return out.reshape(*batch, -1)

    @property
    def _basis(self) -> Basis:
        return Basis(self.radial_cutoff, self.radial_order, self.angular_cutoff, self.angular_order)

    def _weight(self, structure, neighbors, atoms=None) -> Float[Array, "n k"]:
        table = jnp.asarray(self.weights, jnp.asarray(structure.position).dtype)
        return table[neighbor_species(structure, neighbors, atoms)]


def chebyshev(
    species: Sequence[str],
    radial_cutoff: float,
    radial_order: int,
    angular_cutoff: float,
    angular_order: int,
    weights: Sequence[float] | None = None,
    forward_mode: bool = False,
) -> Chebyshev:
    """Chebyshev descriptors for a table of species.

    **Arguments:** cutoffs in angstrom; orders are the highest, so that each part has order + 1
    columns; `weights` one number per species, by default aenet's: integers symmetric about 0,
    with 0 only for an odd number of species. The descriptor is differentiable in position and
    cell, to any order, in reverse mode by a rule of its own; `forward_mode` leaves the rule out,
    so that `jax.jvp` and `jax.jacfwd` work on the descriptor itself. (They work on gradients
    either way: Hessian-vector products need no `forward_mode`.) In float64 it equals aenet to
    1e-12 of a column's scale; in float32 to 1e-5 up to order 10.

    **Raises:** `SpeciesError`; `OptionError` for a cutoff that is not positive, a negative order
    or a wrong number of weights.

    ```python
    descriptor = chebyshev(("Si",), 6.0, 12, 6.0, 12)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    x = descriptor(structure, neighbors)  # [n, 26]
    ```
    """
    species = checked_species(species)
    for name, cutoff in (("radial_cutoff", radial_cutoff), ("angular_cutoff", angular_cutoff)):
        if not 0 < cutoff < FAR / 2:
            raise OptionError(f"{name} is {cutoff}", remedy="give a positive length in angstrom")
    for name, order in (("radial_order", radial_order), ("angular_order", angular_order)):
        if order < 0 or order != int(order):
            raise OptionError(f"{name} is {order}", remedy="give 0 or a positive integer")
    if weights is None:
        half = len(species) // 2
        integers = range(-half, half + 1)
        weights = [w for w in integers if w != 0 or len(species) % 2]
    if len(weights) != len(species):
        raise OptionError(
            f"{len(weights)} weights for {len(species)} species", remedy="give one per species"
        )
    return Chebyshev(
        species,
        float(radial_cutoff),
        int(radial_order),
        float(angular_cutoff),
        int(angular_order),
        tuple(float(w) for w in weights),
        forward_mode,
    )
