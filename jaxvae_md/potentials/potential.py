"""What every interatomic potential of the package is: a tuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.structure import Structure


class Embedding(NamedTuple):
    """An energy of each atom by the sum of its neighbors' densities."""

    density: Callable[[Float[Array, ...], dict[str, Float[Array, ...]]], tuple[Array, Array, Array]]
    """(r squared, coefficients) -> the neighbor's density rho at the atom, -rho'(r) / r of it, and
    the same of the atom's density at the neighbor"""
    energy: Callable[[Params, Float[Array, " n"], Int[Array, " n"]], Float[Array, " n"]]
    """(parameters, density, species) -> eV of each atom"""


class Radial(NamedTuple):
    """A sum over pairs of a function of their distance, in a form that simulates fast."""

    tables: Callable[[Params], dict[str, Float[Array, "s s"]]]
    """parameters -> coefficients by the two species of a pair"""
    pair: Callable[[Float[Array, ...], dict[str, Float[Array, ...]]], tuple[Array, Array]]
    """(r squared, coefficients) -> energy phi (eV), and -phi'(r) / r (eV / angstrom^2), by which
    the vector to an atom is multiplied to give its force; asked for within the cutoff only"""
    long_range: Callable[[Params, Structure], Float[Array, ""]] | None = None
    """energy (eV) that composition and volume alone decide"""
    embedding: Embedding | None = None
    """with the same coefficients"""


class Atomic(NamedTuple):
    """A sum over atoms of a function of their descriptors."""

    descriptor: Chebyshev
    energy: Callable[[Params, Float[Array, "e f"], Int[Array, " e"]], Float[Array, " e"]]
    """(parameters, descriptors, species) -> eV of each atom"""


class Evaluation(NamedTuple):
    """What a potential says of a structure."""

    energy: Float[Array, ""]
    """eV"""
    forces: Float[Array, "n 3"]
    """eV / angstrom; zero on padding atoms"""
    stress: Float[Array, "3 3"]
    """eV / angstrom^3; tension is positive, as in ASE; not a number without a volume"""


class Potential(NamedTuple):
    """An interatomic potential. Make your own by `potential`, which fills in what is derived."""

    species: tuple[str, ...]
    cutoff: float
    """angstrom; what the neighbor list must cover"""
    init: Callable[[Array], Params]
    """key -> parameters, a pytree"""
    energy: Callable[[Params, Structure, NeighborList], Float[Array, ""]]
    """energy of the cell in eV; forces and stress by grad"""
    prepare: Callable[[Structure, NeighborList], Any]
    """the work that no parameter enters, done once for each frame of a fit"""
    predict: Callable[[Params, Any], Evaluation]
    """parameters and what `prepare` returned -> energy, forces and stress"""
    project: Callable[[Params], Params]
    """the nearest parameters that make sense (sigma > 0, say); applied after every update"""
    radial: Radial | None = None
    """the same energy as a sum over pairs, where it is one"""
    atomic: Atomic | None = None
    """the same energy as a sum over atoms of a function of descriptors, where it is one"""


def potential(
    species: tuple[str, ...],
    cutoff: float,
    init: Callable,
    energy: Callable,
    prepare: Callable | None = None,
    predict: Callable | None = None,
    project: Callable | None = None,
    radial: Radial | None = None,
    atomic: Atomic | None = None,
) -> Potential:
    """A Potential from its energy function; what is not given follows from it.

    ```python
    def energy(params, structure, neighbors):
        r = jnp.linalg.norm(displacements(structure, neighbors), axis=-1)
        return 0.5 * jnp.sum(params["k"] * jnp.exp(-r))

    exponential = potential(("Si",), 6.0, lambda key: {"k": jnp.array(1.0)}, energy)
    ```
    """

    def by_gradient(params, features):
        return energy_forces_stress(energy, params, *features)

    return Potential(
        species=species,
        cutoff=cutoff,
        init=init,
        energy=energy,
        prepare=prepare or (lambda structure, neighbors: (structure, neighbors)),
        predict=predict or by_gradient,
        project=project or (lambda params: params),
        radial=radial,
        atomic=atomic,
    )


def energy_and_forces(
    energy: Callable, params: Params, structure: Structure, neighbors: NeighborList
) -> tuple[Float[Array, ""], Float[Array, "n 3"]]:
    """Energy (eV) and forces (eV / angstrom); forces on padding atoms are zero.

    ```python
    e, f = energy_and_forces(potential.energy, params, structure, neighbors)
    ```
    """
    of_position = lambda position: energy(params, structure._replace(position=position), neighbors)
    value, gradient = jax.value_and_grad(of_position)(jnp.asarray(structure.position))
    return value, -gradient


def stress(
    energy: Callable, params: Params, structure: Structure, neighbors: NeighborList
) -> Float[Array, "3 3"]:
    """Virial stress (1 / V) dE / d(strain) in eV / angstrom^3; tension is positive, as in ASE.

    ```python
    pressure = -jnp.trace(stress(potential.energy, params, structure, neighbors)) / 3
    ```
    """
    of_strain = lambda strain: energy(params, _strained(structure, strain), neighbors)
    return jax.grad(of_strain)(jnp.zeros_like(structure.cell)) / _volume(structure)


def energy_forces_stress(
    energy: Callable, params: Params, structure: Structure, neighbors: NeighborList
) -> Evaluation:
    """Energy, forces and stress by one gradient.

    ```python
    e, f, s = energy_forces_stress(potential.energy, params, structure, neighbors)
    ```
    """

    def of_both(position, strain):
        moved = structure._replace(position=position)
        return energy(params, _strained(moved, strain), neighbors)

    value, (slope, virial) = jax.value_and_grad(of_both, argnums=(0, 1))(
        jnp.asarray(structure.position), jnp.zeros_like(structure.cell)
    )
    return Evaluation(value, -slope, virial / _volume(structure))


def _strained(structure: Structure, strain: Float[Array, "3 3"]) -> Structure:
    deformation = jnp.eye(3, dtype=strain.dtype) + 0.5 * (strain + strain.T)
    return structure._replace(
        position=structure.position @ deformation, cell=structure.cell @ deformation
    )


def _volume(structure: Structure) -> Float[Array, ""]:
    return jnp.abs(jnp.linalg.det(structure.cell))


def sum_over_atoms(energy: Float[Array, " n"], structure: Structure) -> Float[Array, ""]:
    """Sum of atomic energies without the padding atoms'."""
    return jnp.sum(jnp.where(structure.mask, energy, 0))


def chosen_by_species(species: Int[Array, ...], columns: Sequence[Array]) -> Array:
    """Of one column a species that of each atom: by choices, which are faster than lookups."""
    chosen = columns[0]
    for number, column in enumerate(columns[1:], 1):
        chosen = jnp.where(species == number, column, chosen)
    return chosen
