"""Energy, forces and virial of a potential with either kind of neighbor list."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.pair_list import PairList, pair_sums
from jaxvae_md.potentials.potential import Potential, energy_and_forces, sum_over_atoms
from jaxvae_md.structure import Structure

Neighbors: TypeAlias = NeighborList | PairList | AllPairs


def energy(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, ""]:
    """Energy of the cell in eV.

    ```python
    energy(argon, params, structure, pair_list(argon.cutoff, 1.0).allocate(structure))
    ```
    """
    if isinstance(neighbors, NeighborList):
        return potential.energy(params, structure, neighbors)
    (phi,) = _sums(potential, params, structure, neighbors, lambda r, phi, w: (phi,), 1)
    total = sum_over_atoms(0.5 * phi, structure)
    long_range = _radial(potential).long_range
    if long_range is None:
        return total
    return total + long_range(params, structure).astype(total.dtype)


def forces(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Float[Array, "n 3"]:
    """Forces in eV / angstrom; by formula on the fast path, and by gradient otherwise.

    ```python
    forces(potential, params, structure, neighbors)
    ```
    """
    if isinstance(neighbors, NeighborList):
        return energy_and_forces(potential.energy, params, structure, neighbors)[1]
    term = lambda r, phi, weight: tuple(weight * x for x in r)
    return jnp.stack(_sums(potential, params, structure, neighbors, term, 3), axis=1)


def forces_and_virial(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> tuple[Float[Array, "n 3"], Float[Array, ""]]:
    """Forces (eV / angstrom), and -dE / ds (eV) of atoms and cell scaled together by 1 + s.

    The virial is the sum over pairs of r f; pressure is (2 K + virial) / 3 V.

    ```python
    force, virial = forces_and_virial(potential, params, structure, neighbors)
    ```
    """
    one = jnp.ones((), structure.position.dtype)
    if isinstance(neighbors, NeighborList):

        def of_scale(position, scale):
            scaled = structure._replace(position=scale * position, cell=scale * structure.cell)
            return potential.energy(params, scaled, neighbors)

        slope, virial = jax.grad(of_scale, argnums=(0, 1))(structure.position, one)
        return -slope, -virial

    def term(r, phi, weight):
        return *(weight * x for x in r), weight * (r[0] ** 2 + r[1] ** 2 + r[2] ** 2)

    *force, work = _sums(potential, params, structure, neighbors, term, 4)
    virial = sum_over_atoms(0.5 * work, structure)
    long_range = _radial(potential).long_range
    if long_range is not None:
        of_cell = lambda s: long_range(params, structure._replace(cell=s * structure.cell))
        virial = virial - jax.grad(of_cell)(one)
    return jnp.stack(force, axis=1), virial


def _radial(potential: Potential):
    assert potential.radial is not None, "a pair list is for radial potentials"
    return potential.radial


def _sums(potential, params, structure, neighbors, term, num_terms):
    """Sums over neighbors of `term((dx, dy, dz), phi, weight)`."""
    radial = _radial(potential)
    dtype = structure.position.dtype
    tables = {name: jnp.asarray(t, dtype) for name, t in radial.tables(params).items()}
    rows = None
    if len(potential.species) > 1:
        # a row of each table an atom, and then a choice a neighbor: no lookup of pairs
        columns = range(len(potential.species))
        rows = {name: [t[structure.species, b] for b in columns] for name, t in tables.items()}

    def of_pair(dx, dy, dz, species, own, tables):
        coefficients = {name: t[0, 0] for name, t in tables.items()}
        if own is not None:
            coefficients = {name: _choose(species, columns) for name, columns in own.items()}
        return term((dx, dy, dz), *radial.pair(dx**2 + dy**2 + dz**2, coefficients))

    return pair_sums(structure, neighbors, of_pair, num_terms, rows, tables)


def _choose(species, columns):
    chosen = columns[0]
    for number, column in enumerate(columns[1:], 1):
        chosen = jnp.where(species == number, column, chosen)
    return chosen
