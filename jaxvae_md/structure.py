"""A structure as a pytree, padded and batched, and ASE's Atoms in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import GeometryError, SpeciesError

if TYPE_CHECKING:
    from ase import Atoms


class Structure(NamedTuple):
    """Atoms in a cell; leading batch axes are allowed everywhere.

    Positions are Cartesian and need not lie inside the cell. A direction that is not periodic
    still has a cell vector (of unit length where ASE has none), so that the cell is invertible.
    """

    position: Float[Array, "*b n 3"]
    """angstrom"""
    cell: Float[Array, "*b 3 3"]
    """angstrom; rows are lattice vectors, as in ASE"""
    pbc: Bool[Array, "*b 3"]
    species: Int[Array, "*b n"]
    """index into the species table, a tuple of chemical symbols"""
    mask: Bool[Array, "*b n"]
    """False marks padding"""


def species_table(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """The chemical symbols in `frames`, ordered by atomic number.

    ```python
    species_table([ase.build.bulk("Si"), ase.build.molecule("O2")])  # ("O", "Si")
    ```
    """
    from ase.data import chemical_symbols

    numbers = sorted({int(z) for atoms in frames for z in atoms.numbers})
    return tuple(chemical_symbols[z] for z in numbers)


def checked_species(species: Sequence[str]) -> tuple[str, ...]:
    """A species table as a tuple. **Raises:** `SpeciesError` when it cannot be one."""
    table = () if isinstance(species, str) else tuple(str(symbol) for symbol in species)
    if not table or len(set(table)) != len(table):
        raise SpeciesError(
            f"{species!r} is not a species table",
            remedy='give a tuple of different chemical symbols, ("Si",) say',
        )
    return table


def from_atoms(atoms: Atoms, species: tuple[str, ...], dtype=np.float64) -> Structure:
    """ASE Atoms to a Structure of numpy arrays.

    **Arguments:** `species` is the model's species table. **Raises:** `SpeciesError` for an
    element outside it, `GeometryError` for a periodic direction without a cell vector.

    ```python
    structure = from_atoms(ase.build.bulk("Si"), species=("Si",))
    ```
    """
    from ase.geometry import complete_cell

    if np.any(atoms.pbc & (atoms.cell.lengths() < 1e-3)):
        raise GeometryError(
            f"periodic ({atoms.pbc.tolist()}) without a cell vector in each of these directions",
            remedy="give the cell, or switch pbc off",
        )
    known = {symbol: i for i, symbol in enumerate(species)}
    symbols = atoms.get_chemical_symbols()
    for atom, symbol in enumerate(symbols):
        if symbol not in known:
            raise SpeciesError(
                f"{symbol} is not among the known elements {', '.join(species)}",
                atom=atom,
                remedy="give structures without it, or training data (a model) with it",
            )
    return Structure(
        position=np.array(atoms.positions, dtype),
        cell=np.asarray(complete_cell(atoms.cell.array), dtype),
        pbc=np.asarray(atoms.pbc, bool),
        species=np.array([known[symbol] for symbol in symbols], np.int32),
        mask=np.ones(len(atoms), bool),
    )


def to_atoms(structure: Structure, species: tuple[str, ...]) -> Atoms:
    """A Structure without batch axes to ASE Atoms; padding is dropped.

    ```python
    atoms = to_atoms(structure, species=("Si",))
    ```
    """
    from ase import Atoms

    mask = np.asarray(structure.mask)
    return Atoms(
        symbols=[species[i] for i in np.asarray(structure.species)[mask]],
        positions=np.asarray(structure.position, np.float64)[mask],
        cell=np.asarray(structure.cell, np.float64),
        pbc=np.asarray(structure.pbc),
    )


def check_geometry(structure: Structure) -> None:
    """On the host. **Raises:** `GeometryError` for a singular cell or positions not finite.

    ```python
    check_geometry(structure)
    ```
    """
    real = np.asarray(structure.mask)
    finite = np.asarray(np.isfinite(structure.position).all(axis=-1))
    cell = np.asarray(structure.cell, np.float64)
    if not finite[real].all():
        atom = int(np.argmax(real & ~finite))
        raise GeometryError("the position is not finite", atom=atom, remedy="repair the frame")
    if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6:
        raise GeometryError(
            f"the cell is singular (volume {np.linalg.det(cell):.3g} cubic angstrom)",
            remedy="give three independent lattice vectors, or switch pbc off",
        )


def check_species(structure: Structure, species: tuple[str, ...]) -> None:
    """On the host. **Raises:** `SpeciesError` for an atom whose species is not in the table.

    ```python
    check_species(structure, potential.species)
    ```
    """
    index = np.asarray(structure.species)
    foreign = np.nonzero(np.asarray(structure.mask) & ((index < 0) | (index >= len(species))))[0]
    if len(foreign):
        raise SpeciesError(
            f"species {index[foreign[0]]}, and only {len(species)} are known",
            atom=int(foreign[0]),
            remedy=f"make the structure with the species table {species}",
        )


def inverse_cell(cell: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """By cofactors: within a step of a simulation a factorisation is slow, on a GPU above all.

    ```python
    fractions = structure.position @ inverse_cell(structure.cell)
    ```
    """
    xp = np if isinstance(cell, np.ndarray) else jnp
    a, b, c = cell
    cofactors = xp.stack([xp.cross(b, c), xp.cross(c, a), xp.cross(a, b)], axis=1)
    return cofactors / xp.dot(a, cofactors[:, 0])


def perpendicular_widths(cell: Float[Array, "3 3"]) -> Float[Array, 3]:
    """Distances (angstrom) between the cell's opposite faces.

    ```python
    perpendicular_widths(structure.cell) > 2 * cutoff  # is the minimum image enough?
    ```
    """
    xp = np if isinstance(cell, np.ndarray) else jnp
    return 1 / xp.sqrt(xp.sum(inverse_cell(cell) ** 2, axis=0))


def pad(structure: Structure, num_atoms: int) -> Structure:
    """Appends padding atoms at the origin until there are `num_atoms`; no batch axes.

    ```python
    pad(structure, 64).mask.sum()  # still the number of real atoms
    ```
    """
    extra = int(num_atoms - structure.position.shape[-2])
    if extra < 0:
        raise ValueError(f"{structure.position.shape[-2]} atoms do not fit into {num_atoms}")
    return structure._replace(
        position=append_zeros(structure.position, extra, axis=0),
        species=append_zeros(structure.species, extra, axis=0),
        mask=append_zeros(structure.mask, extra, axis=0),
    )


def append_zeros(array: Array, num: int, axis: int) -> np.ndarray:
    """The array with `num` zeros (False) more along an axis."""
    array = np.asarray(array)
    shape = list(array.shape)
    shape[axis] = num
    return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)


def stack(structures: Sequence[Structure]) -> Structure:
    """Structures of any size as one batch, padded to the largest.

    ```python
    stack([small, large]).position.shape  # (2, atoms of the larger one, 3)
    ```
    """
    size = max(s.position.shape[-2] for s in structures)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(pad(s, size) for s in structures))


def unstack(structure: Structure) -> list[Structure]:
    """The systems of a leading axis as numpy arrays; a single one where there is no such axis.

    ```python
    len(unstack(stack([small, large])))  # 2
    ```
    """
    leaves = [np.asarray(leaf) for leaf in structure]
    if leaves[0].ndim == 2:
        return [Structure(*leaves)]
    return [Structure(*fields) for fields in zip(*leaves, strict=True)]
