"""Chebyshev descriptors of atomic environments, as aenet computes them, in linear time.

For a centre with neighbors j at distance r_j in direction u_j:

    radial    c_n = sum_j   w_j fc(r_j; Rr) T_n(2 r_j / Rr - 1)                  n = 0 .. Nr
    angular   c_n = sum_j<k w_j w_k fc(r_j; Ra) fc(r_k; Ra) T_n(u_j . u_k)       n = 0 .. Na

with w = 1, and for more than one species again with w = the species' weight. Columns: radial,
angular, weighted radial, weighted angular.

Source: Artrith, Urban and Ceder, Phys. Rev. B 96, 014112 (2017); conventions of aenet 2.0.

The sum over pairs is linear in the number of neighbors. With T_n = sum_l b_nl P_l, the addition
theorem P_l(u . v) = sum_m Y_lm(u) Y_lm(v) (Racah-normalised real harmonics) and the moments
A_lm = sum_j w_j fc(r_j) Y_lm(u_j):

    sum_j<k = 1/2 [ sum_l b_nl sum_m A_lm^2 - sum_j (w_j fc(r_j))^2 ]     (T_n(1) = 1)

Y_lm = Q_lm(z) Re or Im (x + i y)^m, where Q_lm is a polynomial in z and is expanded in T_a(z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import factorial, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.polynomial import chebyshev as chebyshev_series
from numpy.polynomial import legendre as legendre_series

from jaxvae_md import cutoffs
from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, NeighborList, displacements, neighbor_species
from jaxvae_md.structure import Structure, checked_species


@dataclass(frozen=True)
class Chebyshev:
    """The descriptor as a function: `descriptor(structure, neighbors)`. Make it by `chebyshev`."""

    species: tuple[str, ...]
    radial_cutoff: float
    radial_order: int
    angular_cutoff: float
    angular_order: int
    weights: tuple[float, ...]

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
        dtype = displacement.dtype
        x, y, z = jnp.moveaxis(displacement, -1, 0)
        r = jnp.sqrt(x**2 + y**2 + z**2)
        x, y, z = x / r, y / r, z / r

        basis = _chebyshev_polynomials(
            jnp.minimum(2 * r / self.radial_cutoff - 1, 1), self.radial_order
        )
        f_radial = cutoffs.cosine(r, self.radial_cutoff)
        f_angular = cutoffs.cosine(r, self.angular_cutoff)
        polynomial_z = _chebyshev_polynomials(z, self.angular_order)
        powers = _powers(x, y, self.angular_order)
        to_harmonics, to_angular = (jnp.asarray(t, dtype) for t in _tables(self.angular_order))

        columns = []
        for w in (1.0,) if len(self.species) == 1 else (1.0, weight):
            f = w * f_angular
            moments = jnp.einsum("...ak,c...mk->c...am", polynomial_z, powers * f[..., None, :])
            harmonics = jnp.einsum("mla,c...am->c...lm", to_harmonics, moments)
            power = jnp.sum(harmonics**2, axis=(0, -1))
            self_terms = jnp.sum(f**2, axis=-1, keepdims=True)
            columns += [
                jnp.einsum("...nk,...k->...n", basis, w * f_radial),
                0.5 * (power @ to_angular - self_terms),
            ]
        return jnp.concatenate(columns, axis=-1)

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
) -> Chebyshev:
    """Chebyshev descriptors for a table of species.

    **Arguments:** cutoffs in angstrom; orders are the highest, so that each part has order + 1
    columns; `weights` one number per species, by default aenet's: integers symmetric about 0,
    with 0 only for an odd number of species. The descriptor is differentiable in position and
    cell. In float64 it equals aenet to 1e-12 of a column's scale; in float32 to 1e-5 up to
    order 10.

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
    )


def _chebyshev_polynomials(x: Float[Array, "*b k"], order: int) -> Float[Array, "*b n k"]:
    """T_0 .. T_order by T_n = 2 x T_n-1 - T_n-2."""
    terms = [jnp.ones_like(x), x]
    while len(terms) <= order:
        terms.append(2 * x * terms[-1] - terms[-2])
    return jnp.stack(terms[: order + 1], axis=-2)


def _powers(x: Float[Array, "*b k"], y: Float[Array, "*b k"], order: int) -> Array:
    """Re and Im of (x + i y)^m for m = 0 .. order, as `[2, *b, m, k]`."""
    re, im = [jnp.ones_like(x)], [jnp.zeros_like(x)]
    for _ in range(order):
        re, im = [*re, re[-1] * x - im[-1] * y], [*im, re[-1] * y + im[-1] * x]
    return jnp.stack([jnp.stack(re, axis=-2), jnp.stack(im, axis=-2)])


@lru_cache
def _tables(order: int) -> tuple[np.ndarray, np.ndarray]:
    """`to_harmonics[m, l, a]`: Q_lm(z) = sum_a q_mla T_a(z); `to_angular[l, n]`: b_nl."""
    size = order + 1
    to_harmonics = np.zeros((size, size, size))
    for m in range(size):
        for l in range(m, size):  # noqa: E741
            # Q_lm is proportional to the m-th derivative of P_l
            derivative = legendre_series.legder(np.eye(l + 1)[l], m)
            series = chebyshev_series.poly2cheb(legendre_series.leg2poly(derivative))
            norm = sqrt((2 if m else 1) * factorial(l - m) / factorial(l + m))
            to_harmonics[m, l, : len(series)] = norm * series
    # b_nl = (2 l + 1) / 2 integral T_n P_l, exact by Gauss-Legendre quadrature
    node, quadrature = legendre_series.leggauss(size + 1)
    t = chebyshev_series.chebvander(node, order)
    p = legendre_series.legvander(node, order)
    to_angular = np.einsum("g,gn,gl->ln", quadrature, t, p) * (np.arange(size)[:, None] + 0.5)
    return to_harmonics, to_angular
