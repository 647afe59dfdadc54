"""Energy, forces and virial of a potential with either kind of neighbor list."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.cutoffs import within
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.pair_list import PairList, pair_sums
from jaxvae_md.potentials.potential import (
    Potential,
    chosen_by_species,
    energy_and_forces,
    sum_over_atoms,
)
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
    radial = _radial(potential)

    def term(r, own, other, coefficients):
        inside, square = within(_square(r), potential.cutoff)
        terms = (radial.pair(square, coefficients)[0],)
        if radial.embedding is not None:
            terms += radial.embedding.density(square, coefficients)[:1]
        return tuple(jnp.where(inside, x, 0) for x in terms)

    num_terms = 1 if radial.embedding is None else 2
    phi, *density = _sums(potential, params, structure, neighbors, term, num_terms)
    each = 0.5 * phi
    if radial.embedding is not None:
        each = each + radial.embedding.energy(params, density[0], structure.species)
    total = sum_over_atoms(each, structure)
    if radial.long_range is None:
        return total
    return total + radial.long_range(params, structure).astype(total.dtype)


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
    term = lambda r, weight: tuple(weight * x for x in r)
    return jnp.stack(_sums_by_weight(potential, params, structure, neighbors, term, 3), axis=1)


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

    term = lambda r, weight: (*(weight * x for x in r), weight * _square(r))
    *force, work = _sums_by_weight(potential, params, structure, neighbors, term, 4)
    virial = sum_over_atoms(0.5 * work, structure)
    long_range = _radial(potential).long_range
    if long_range is not None:
        of_cell = lambda s: long_range(params, structure._replace(cell=s * structure.cell))
        virial = virial - jax.grad(of_cell)(one)
    return jnp.stack(force, axis=1), virial


def pull_back_forces(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: Neighbors,
    cotangent: Float[Array, "n 3"],
) -> tuple[Float[Array, "n 3"], Params, Float[Array, "n 3"]]:
    """Forces f, and the derivatives of sum(cotangent * f) by parameters and by positions.

    The last is a product with the Hessian. On the fast path all three are one pass over the
    pairs; an embedding needs two before it, for the densities and for what they are worth.

    ```python
    force, by_params, by_position = pull_back_forces(potential, params, structure, neighbors, g)
    ```
    """
    if isinstance(neighbors, NeighborList):

        def of(params, position):
            moved = structure._replace(position=position)
            return energy_and_forces(potential.energy, params, moved, neighbors)[1]

        force, pull = jax.vjp(of, params, structure.position)
        return force, *pull(cotangent)

    radial = _radial(potential)
    columns = tuple(cotangent[:, k] for k in range(3))
    slopes, worths, by_params_of_slopes = (), (), None
    if radial.embedding is not None:
        slopes, worths, by_params_of_slopes = _pull_back_slopes(
            potential, params, structure, neighbors, columns
        )

    def of_pair(r, own, other, coefficients):
        (own, own_slopes, own_worths), (other, other_slopes, other_worths) = own, other
        weight_of = lambda square, c: _weight(radial, square, c, own_slopes, other_slopes)
        inside, square = within(_square(r), potential.cutoff)
        weight, pull = jax.vjp(weight_of, square, coefficients)
        # masked here, where one mask serves all derivatives
        by_square, by_coefficients = pull(jnp.where(inside, _along(r, own, other), 0))
        weight, factor = jnp.where(inside, weight, 0), 2 * by_square
        for mine, its in zip(own_worths, other_worths, strict=True):
            _, pull, (at_atom, at_neighbor) = _density_vjp(radial, square, coefficients)
            # half of all pairs are counted
            (more,) = pull(jnp.where(inside, 2 * mine, 0))
            by_coefficients = jax.tree.map(jnp.add, by_coefficients, more)
            factor = factor - jnp.where(inside, mine * at_atom + its * at_neighbor, 0)
        force = tuple(weight * x for x in r)
        change = _change(own, other)
        by_vector = tuple(weight * g + factor * x for g, x in zip(change, r, strict=True))
        return (*force, *by_vector), by_coefficients

    of_atom = columns, slopes, worths
    sums, by_params = _pull_back(potential, params, structure, neighbors, of_pair, 6, of_atom)
    if by_params_of_slopes is not None:
        by_params = jax.tree.map(jnp.add, by_params, by_params_of_slopes)
    return jnp.stack(sums[:3], axis=1), by_params, jnp.stack(sums[3:], axis=1)


def _pull_back_slopes(potential, params, structure, neighbors, cotangent):
    """Slopes of the embedding energy; and of sum(cotangent * force), in which they are factors,
    the derivatives by each atom's density and by the parameters."""
    embedding = _embedding(potential)
    slope_of = lambda params, density: _slopes(embedding, params, density, structure)
    density = _densities(potential, params, structure, neighbors)
    slope, pull = jax.vjp(slope_of, params, density)

    def along_density(r, own, other, coefficients):
        inside, square = within(_square(r), potential.cutoff)
        _, weight, _ = embedding.density(square, coefficients)
        return (jnp.where(inside, weight, 0) * _along(r, own, other),)

    (factor,) = _sums(potential, params, structure, neighbors, along_density, 1, cotangent)
    by_params, by_density = pull(factor)
    return (slope,), (by_density,), by_params


def pull_back_energy(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> tuple[Float[Array, ""], Params, Float[Array, "n 3"]]:
    """Energy (eV), and its derivatives by parameters and by positions.

    ```python
    energy, by_params, by_position = pull_back_energy(potential, params, structure, neighbors)
    ```
    """
    if isinstance(neighbors, NeighborList):
        of = lambda params, x: potential.energy(params, structure._replace(position=x), neighbors)
        value, gradient = jax.value_and_grad(of, argnums=(0, 1))(params, structure.position)
        return value, *gradient
    radial = _radial(potential)
    slopes, more = (), []
    if radial.embedding is not None:
        density = _densities(potential, params, structure, neighbors)
        embedding = radial.embedding
        of_params = lambda p: sum_over_atoms(
            embedding.energy(p, density, structure.species), structure
        )
        more.append(jax.value_and_grad(of_params)(params))
        slopes = (_slopes(radial.embedding, params, density, structure),)
    if radial.long_range is not None:
        more.append(jax.value_and_grad(radial.long_range)(params, structure))

    def of_pair(r, own, other, coefficients):
        inside, square = within(_square(r), potential.cutoff)
        phi_of = lambda c: radial.pair(square, c)[0]
        phi, pull = jax.vjp(phi_of, coefficients)
        (by_coefficients,) = pull(inside.astype(phi.dtype))
        if slopes:
            _, pull, _ = _density_vjp(radial, square, coefficients)
            (of_density,) = pull(jnp.where(inside, 2 * own[0], 0))
            by_coefficients = jax.tree.map(jnp.add, by_coefficients, of_density)
        weight = jnp.where(inside, _weight(radial, square, coefficients, own, other), 0)
        return (jnp.where(inside, phi, 0), *(-weight * x for x in r)), by_coefficients

    sums, by_params = _pull_back(potential, params, structure, neighbors, of_pair, 4, slopes)
    value = sum_over_atoms(0.5 * sums[0], structure)
    for energy, gradient in more:
        value = value + energy.astype(value.dtype)
        by_params = jax.tree.map(jnp.add, by_params, gradient)
    return value, by_params, jnp.stack(sums[1:], axis=1)


def _weight(radial, square, coefficients, own=(), other=()):
    """By which the vector to an atom is multiplied to give its force from a neighbor.

    `own` and `other` hold the slopes of the embedding energy of both, where there is one.
    """
    _, weight = radial.pair(square, coefficients)
    if radial.embedding is None:
        return weight
    _, at_atom, at_neighbor = radial.embedding.density(square, coefficients)
    return weight + own[0] * at_atom + other[0] * at_neighbor


def _density_vjp(radial, square, coefficients):
    """The density, its derivative's transpose by the coefficients, and both weights."""

    def of(coefficients):
        value, *weights = radial.embedding.density(square, coefficients)
        return value, weights

    return jax.vjp(of, coefficients, has_aux=True)


def _change(own, other):
    return tuple(a - b for a, b in zip(own, other, strict=True))


def _along(r, own, other):
    """(g_i - g_j) (x_i - x_j)"""
    return sum(g * x for g, x in zip(_change(own, other), r, strict=True))


def _densities(potential, params, structure, neighbors):
    density = _embedding(potential).density

    def term(r, own, other, coefficients):
        inside, square = within(_square(r), potential.cutoff)
        return (jnp.where(inside, density(square, coefficients)[0], 0),)

    return _sums(potential, params, structure, neighbors, term, 1)[0]


def _slopes(embedding, params, density, structure):
    """dF / d(density) of each atom."""
    total = lambda density: jnp.sum(embedding.energy(params, density, structure.species))
    return jax.grad(total)(density)


def _sums_by_weight(potential, params, structure, neighbors, term, num_terms):
    """Sums over neighbors of `term((dx, dy, dz), weight)`, as in `_weight`."""
    radial = _radial(potential)
    slopes = ()
    if radial.embedding is not None:
        density = _densities(potential, params, structure, neighbors)
        slopes = (_slopes(radial.embedding, params, density, structure),)

    def of_pair(r, own, other, coefficients):
        inside, square = within(_square(r), potential.cutoff)
        weight = _weight(radial, square, coefficients, own, other)
        return term(r, jnp.where(inside, weight, 0))

    lean = radial.embedding is None
    return _sums(potential, params, structure, neighbors, of_pair, num_terms, slopes, lean)


def _pull_back(potential, params, structure, neighbors, of_pair, num_terms, of_atom=()):
    """Sums over neighbors, and by the parameters half the sum over all pairs.

    `of_pair((dx, dy, dz), own, other, coefficients)` returns the terms, and the derivatives by
    the coefficients of the pair.
    """
    radial = _radial(potential)
    dtype = structure.position.dtype
    tables, by_tables = jax.vjp(lambda p: _tables(radial, p, dtype), params)
    if any(table.ndim > 2 for table in tables.values()):
        raise OptionError(
            "a potential by tables has no derivative on the fast path",
            remedy='take adjoint="checkpointed", or the analytic form',
        )
    rows, species = _by_species(structure, tables)
    num_species = len(potential.species)

    def term(r, own, other, tables):
        (own, rows), (other, species) = own, other
        coefficients = _chosen(tables, rows, species)
        # one value a pair, lest the derivative be a sum
        coefficients = jax.tree.map(lambda c: jnp.broadcast_to(c, r[0].shape), coefficients)
        terms, by_coefficients = of_pair(r, own, other, coefficients)
        each = jax.tree.leaves(by_coefficients)
        if num_species > 1:
            each = [jnp.where(species == b, x, 0) for x in each for b in range(num_species)]
        return *terms, *each

    total = pair_sums(
        structure,
        neighbors,
        term,
        num_terms + len(tables) * num_species,
        (of_atom, rows),
        (of_atom, species),
        tables,
    )
    names, treedef = jax.tree.flatten(tables)
    columns = jnp.stack(total[num_terms:], axis=1).reshape(-1, len(names), num_species)
    of_tables = jnp.zeros((num_species, len(names), num_species), dtype)
    of_tables = of_tables.at[structure.species].add(0.5 * columns)
    of_tables = [of_tables[:, k] for k in range(len(names))]
    return total[:num_terms], by_tables(jax.tree.unflatten(treedef, of_tables))[0]


def _radial(potential: Potential):
    assert potential.radial is not None, "a pair list is for radial potentials"
    return potential.radial


def _embedding(potential: Potential):
    embedding = _radial(potential).embedding
    assert embedding is not None
    return embedding


def _sums(potential, params, structure, neighbors, of_pair, num_terms, of_atom=(), lean=True):
    """Sums over neighbors of `of_pair((dx, dy, dz), own, other, coefficients)`.

    `own` and `other` are those of both atoms of the arrays in `of_atom`.
    """
    tables = _tables(_radial(potential), params, structure.position.dtype)
    rows, species = _by_species(structure, tables)

    def term(r, own, other, tables):
        (own, rows), (other, species) = own, other
        return of_pair(r, own, other, _chosen(tables, rows, species))

    own, other = (of_atom, rows), (of_atom, species)
    return pair_sums(structure, neighbors, term, num_terms, own, other, tables, lean)


def _tables(radial, params, dtype):
    return {name: jnp.asarray(table, dtype) for name, table in radial.tables(params).items()}


def _by_species(structure, tables):
    """For each atom its rows of the tables, a column of all atoms a species; and its species.

    A row an atom, and then a choice a neighbor: no lookup of pairs. Nothing where the species
    is one.
    """
    num = len(next(iter(tables.values())))
    if num == 1:
        return (), ()
    rows = {name: [t[structure.species, b] for b in range(num)] for name, t in tables.items()}
    return rows, jnp.asarray(structure.species, jnp.int32)


def _chosen(tables, rows, species):
    """The coefficients of pairs."""
    if not rows:
        return {name: table[0, 0] for name, table in tables.items()}
    return {name: chosen_by_species(species, columns) for name, columns in rows.items()}


def _square(r):
    return r[0] ** 2 + r[1] ** 2 + r[2] ** 2
