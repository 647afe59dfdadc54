"""Chebyshev descriptors of atomic environments, as aenet computes them, in linear time.

Columns: radial, angular, and for more than one species both again with the species' weights.
The formulas, and how the sum over pairs becomes linear in the number of neighbors, are told in
`environment`.

Source: Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017); conventions of aenet 2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.descriptors.environment import Basis, columns, columns_with_rule, sum_with_rule
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, NeighborList, displacements, neighbor_species
from jaxvae_md.structure import Structure, checked_species

_CHUNK, _CHUNK_ELSEWHERE = 64, 8192
"""environments at a time: on a CPU they stay in the cache of a core, elsewhere in its memory"""
_HIGHEST = 40


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

    def __post_init__(self):
        for name in ("radial_cutoff", "angular_cutoff"):
            cutoff = getattr(self, name)
            if not (_is_number(cutoff) and 0 < cutoff < FAR / 2):
                raise OptionError(
                    f"{name} is {cutoff!r}",
                    remedy=f"give a length in angstrom between 0 and {FAR / 2:g}",
                )
        for name in ("radial_order", "angular_order"):
            order = getattr(self, name)
            if not (isinstance(order, int | np.integer) and order >= 0):
                raise OptionError(f"{name} is {order!r}", remedy="give 0 or a positive integer")
        if self.angular_order > _HIGHEST:
            raise OptionError(
                f"angular_order is {self.angular_order}: in double precision nothing would be "
                "left of it",
                remedy=f"give {_HIGHEST} or less",
            )
        if len(self.weights) != len(self.species) or not all(map(_is_number, self.weights)):
            raise OptionError(
                f"weights {self.weights} for {len(self.species)} species",
                remedy="give one number per species",
            )

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
        """Descriptors of every atom, dimensionless. Padding atoms get zeros.

        The list must reach to `cutoff`, and be complete (see `neighbors.check_complete`).
        """
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
        num = prod(batch)
        vector = displacement.reshape(num, capacity, 3)
        weights = jnp.broadcast_to(weight, displacement.shape[:-1]).reshape(num, capacity)
        some: Callable[..., Any] = columns if self.forward_mode else columns_with_rule
        out = _in_chunks(partial(self._of, some, self._basis), (vector, FAR), (weights, 0))
        return out.reshape(-1, self.num_features)[:num].reshape(*batch, self.num_features)

    def total(
        self,
        fn: Callable[[Any, Float[Array, "e f"], Int[Array, " e"]], Float[Array, " e"]],
        args: Any,
        structure: Structure,
        neighbors: NeighborList,
    ) -> Float[Array, ""]:
        """Sum over atoms of `fn(args, descriptors, species)`, differentiable by all of it.

        With its derivative by positions in one evaluation: for the energy of a potential. `fn` is
        called with chunks of environments.

        ```python
        energy = descriptor.total(lambda a, x, _: x @ a, jnp.ones(26), structure, neighbors)
        ```
        """
        vector = displacements(structure, neighbors)
        weight = self._weight(structure, neighbors)
        plain = lambda basis, vector, weight, extra: jnp.sum(
            _masked(fn, args, columns(basis, vector, weight), extra)
        )
        fused = lambda basis, vector, weight, extra: sum_with_rule(
            partial(_masked, fn), basis, args, vector, weight, extra
        )
        some = plain if self.forward_mode else fused
        of = lambda vector, weight, *extra: self._of(some, self._basis, vector, weight, extra)
        arrays = (vector, FAR), (weight, 0), (structure.species, 0), (structure.mask, False)
        return jnp.sum(_in_chunks(of, *arrays))

    def _of(self, some: Callable[..., Any], basis: Basis, vector, weight, *more) -> Array:
        weight = weight if len(self.species) > 1 else None
        return some(basis, jnp.moveaxis(vector, -1, 0), weight, *more)

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
    either way: Hessian-vector products need no `forward_mode`.)

    **Errors**, of the angular columns' largest value: in float64 below 1e-12 up to angular order
    24 (there it equals aenet), 1e-8 at 40, which is the highest; in float32 1e-5 up to order 10:
    take float64 beyond. The radial columns lose nothing with the order.

    **Raises:** `SpeciesError`; `OptionError` for a cutoff that is not positive, a negative order
    or a wrong number of weights.

    ```python
    descriptor = chebyshev(("Si",), 6.0, 12, 6.0, 12)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    x = descriptor(structure, neighbors)  # [n, 26]
    ```
    """
    species = checked_species(species)
    if weights is None:
        half = len(species) // 2
        integers = range(-half, half + 1)
        weights = [w for w in integers if w != 0 or len(species) % 2]
    return Chebyshev(
        species,
        radial_cutoff,
        radial_order,
        angular_cutoff,
        angular_order,
        tuple(weights),
        forward_mode,
    )


def _masked(fn, args, x, extra):
    """What is not there counts nothing."""
    species, mask = extra
    return jnp.where(mask, fn(args, x, species), 0)


def _in_chunks(of: Callable[..., Array], *arrays: tuple[Array, float]) -> Array:
    """`of` arrays cut into chunks, the last one filled up with a value; stacked where several."""
    size = _CHUNK if jax.default_backend() == "cpu" else _CHUNK_ELSEWHERE
    num = len(arrays[0][0])
    if num <= size:
        return of(*(jnp.asarray(array) for array, _ in arrays))

    def cut(array, value):
        array = jnp.asarray(array)
        rest = jnp.full((-num % size, *array.shape[1:]), value, array.dtype)
        return jnp.concatenate([array, rest]).reshape(-1, size, *array.shape[1:])

    return lax.map(lambda chunk: of(*chunk), tuple(cut(*array) for array in arrays))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and isfinite(value)
