"""What is refused before anything is compiled.

Shapes are always known. Values are not while a function is traced (by jit, grad or vmap), and what
depends on them is then left unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxvae_md._typing import Array
from jaxvae_md.errors import GeometryError, InputError, OptionError, SpeciesError
from jaxvae_md.neighbors import NeighborList, host_pairs
from jaxvae_md.structure import Structure

_ROUNDING = 1e-5
"""relative; a pair this near to a radius may be counted on either side"""


def known(*values: Any) -> bool:
    """Whether the values are there, and not traced: np.asarray gives them then."""
    return not any(isinstance(value, Tracer) for value in values)


def check_single(structure: Structure) -> None:
    """Raises `InputError` for a structure with batch axes."""
    shape = np.shape(structure.position)
    if len(shape) != 2 or shape[-1] != 3:
        raise InputError(
            f"positions have the shape {shape}, and one structure has (n, 3)",
            remedy="use jax.vmap over the structures and their neighbor lists",
        )


def check_periodic(structure: Structure) -> None:
    """Raises `GeometryError` for a direction that is not periodic: there is no volume then."""
    if known(structure.pbc) and not np.asarray(structure.pbc).all():
        raise GeometryError(
            f"needs three periodic directions, and pbc is {np.asarray(structure.pbc).tolist()}",
            remedy="give a cell that is periodic in all of them",
        )


def check_reach(structure: Structure, neighbors: NeighborList, radius: float) -> None:
    """Raises `OptionError` when the list lacks pairs within `radius` (angstrom)."""
    used = structure.position, structure.cell, structure.pbc, structure.mask
    if not known(*used, neighbors.index, neighbors.shift, neighbors.mask):
        return
    # in numpy: nothing is to be compiled for this
    position, cell = np.asarray(structure.position), np.asarray(structure.cell)
    index, shift = np.asarray(neighbors.index), np.asarray(neighbors.shift)
    vector = position[index] + shift @ cell - position[:, None]
    near = np.linalg.norm(vector, axis=-1) < radius * (1 + _ROUNDING)
    listed = np.sum(near & np.asarray(neighbors.mask))
    needed = len(host_pairs(structure, radius * (1 - _ROUNDING))[0])
    if listed < needed:
        raise OptionError(
            f"the neighbor list has {listed} of the {needed} pairs within {radius:.6g} angstrom",
            remedy="allocate it from this structure with a larger cutoff",
        )


def check_species(kinds: Sequence[int] | None, num: int, species: Array, mask: Array) -> None:
    """Raises `OptionError` unless there are `num` kinds, `SpeciesError` for one without atoms."""
    if kinds is None:
        return
    if len(kinds) != num or not all(isinstance(kind, int | np.integer) for kind in kinds):
        raise OptionError(
            f"{kinds!r} are not {num} species", remedy="give indices into the species table"
        )
    if known(species, mask):
        present = set(np.asarray(species)[np.asarray(mask)].tolist())
        for kind in kinds:
            if kind not in present:
                raise SpeciesError(
                    f"no atom is of species {kind}, only of {sorted(present)}",
                    remedy="give indices into the species table",
                )


def check_grid(name: str, grid: Array, low: float, high: float = np.inf) -> None:
    """Raises `OptionError` unless the values are one axis of numbers between `low` and `high`."""
    if len(np.shape(grid)) != 1 or np.size(grid) == 0:
        raise OptionError(f"{name} has the shape {np.shape(grid)}", remedy="give one axis of them")
    if not known(grid):
        return
    # as numpy's: numpy's functions of an array of JAX are traced, even if its values are there
    grid = np.asarray(grid)
    if not (grid.min() >= low and grid.max() <= high):
        raise OptionError(
            f"{name} goes from {grid.min():.6g} to {grid.max():.6g}",
            remedy=f"stay between {low:.6g} and {high:.6g}",
        )


def check_positive(name: str, value: float, high: float = np.inf, low: float = 0.0) -> None:
    """Raises `OptionError` unless `low` < value < `high`."""
    if not low < value < high:
        raise OptionError(
            f"{name} is {value}", remedy=f"give a number between {low:.6g} and {high:.6g}"
        )


def check_atoms(name: str, array: Array, num: int) -> None:
    """Raises `InputError` unless the array has one value for each of `num` atoms."""
    if np.shape(array) != (num,):
        raise InputError(
            f"{name} has the shape {np.shape(array)} for {num} atoms",
            remedy=f"give one value for each atom, ({num},)",
        )


def check_frames(name: str, array: Array) -> None:
    """Raises `InputError` unless the array is of two frames or more, `[t, n, 3]`."""
    shape = np.shape(array)
    if len(shape) != 3 or shape[-1] != 3 or shape[1] == 0:
        raise InputError(
            f"{name} has the shape {shape}",
            remedy="give frames, atoms and components, (t, n, 3), as in simulate.Trajectory",
        )
    if shape[0] < 2:
        raise InputError(f"{name} has {shape[0]} frames", remedy="give two or more")
