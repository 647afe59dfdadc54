"""What surrounds each atom: crystal structure, centrosymmetry and coordination, on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError, SpeciesError
from jaxvae_md.observables.frames import one_frame, pairs_within
from jaxvae_md.observables.inputs import check_positive
from jaxvae_md.structure import Structure

OTHER, FCC, HCP, BCC = range(4)

STRUCTURES = ("other", "fcc", "hcp", "bcc")
"""names of the codes that `local_structure` gives"""

REACH = 8.0
"""angstrom; nothing further away is a neighbor to those who ask for the nearest ones"""

_CHUNK = 2048
"""atoms whose neighborhoods are compared at once: tens of MB"""


def local_structure(structure: Structure, cutoff: float | None = None) -> Int[np.ndarray, " n"]:
    """Crystal structure at each atom of one structure, by common-neighbor analysis.

    Every bond of an atom has three numbers: the neighbors that both ends have in common, the bonds
    between these, and the bonds in their longest chain (Honeycutt and Andersen, J. Phys. Chem.
    91, 4950 (1987)). An atom is fcc with 12 bonds 421, hcp with 6 of 421 and 6 of 422, bcc with 8
    of 666 and 6 of 444. Not differentiable; one species or many, all atoms are alike.

    Without a cutoff it is the adaptive analysis (Stukowski, Modelling Simul. Mater. Sci. Eng. 20,
    045021 (2012)), as in OVITO: the 12 nearest neighbors for fcc and hcp, then the 14 nearest for
    bcc, bonded within (1 + sqrt 2) / 2 of their own mean distance. That serves any density and any
    mixture of phases.

    **Arguments:** `cutoff` of a bond in angstrom for the conventional analysis: midway between
    two shells, 0.854 a in fcc and 1.207 a in bcc.
    **Returns:** `OTHER` 0, `FCC` 1, `HCP` 2, `BCC` 3, named by `STRUCTURES`; surfaces, defects,
    liquids and padding are `OTHER`. **Raises:** `InputError` for several structures, or under jit;
    `OptionError`, `GeometryError`.

    ```python
    share = np.bincount(local_structure(structure), minlength=4) / structure.mask.sum()
    ```
    """
    frame = one_frame(structure)
    code = np.full(len(frame.mask), OTHER)
    if cutoff is not None:
        check_positive("cutoff", cutoff)
        i, _, vector = pairs_within(frame, cutoff)
        degree = np.bincount(i, minlength=len(code))
        for num in (12, 14):
            atoms = np.flatnonzero(degree == num)
            around = vector[degree[i] == num].reshape(-1, num, 3)
            code[atoms] = _classify(around, np.full(len(atoms), cutoff))
        return code
    around = _nearest(frame, 14)
    distance = np.linalg.norm(around, axis=-1)
    # in units of bcc's second shell
    distance_bcc = distance * np.where(np.arange(14) < 8, np.sqrt(4 / 3), 1)
    for scaled in (distance[:, :12], distance_bcc):
        num = scaled.shape[1]
        atoms = np.flatnonzero((code == OTHER) & np.isfinite(scaled).all(axis=1))
        local = 0.5 * (1 + np.sqrt(2)) * scaled[atoms].mean(axis=1)
        code[atoms] = _classify(around[atoms, :num], local)
    return code


def centrosymmetry(structure: Structure, num_neighbors: int) -> Float[np.ndarray, " n"]:
    """Centrosymmetry parameter of each atom of one structure, in square angstrom.

    The sum of the num_neighbors / 2 smallest |r_i + r_j|^2 among all pairs of the nearest
    neighbors (Kelchner, Plimpton and Hamilton, Phys. Rev. B 58, 11085 (1998)), as LAMMPS and
    OVITO compute it: 0 where every neighbor has its opposite, large at surfaces and faults.

    **Arguments:** `num_neighbors` is even: 12 in fcc, 8 in bcc.
    **Returns:** not a number for padding and for atoms with fewer neighbors within `REACH`: a gas
    atom has no symmetry (LAMMPS has 0 there). **Raises:** `InputError` for several structures, or
    under jit; `OptionError`, `GeometryError`.

    ```python
    defects = centrosymmetry(structure, 8) > 2.0
    ```
    """
    if not isinstance(num_neighbors, int | np.integer) or num_neighbors < 2 or num_neighbors % 2:
        raise OptionError(
            f"num_neighbors is {num_neighbors!r}", remedy="give an even number: 12 in fcc, 8 in bcc"
        )
    frame = one_frame(structure)
    around = _nearest(frame, int(num_neighbors))
    one, other = np.triu_indices(num_neighbors, 1)
    value = np.empty(len(around))
    for start in range(0, len(around), _CHUNK):
        some = around[start : start + _CHUNK]
        square = np.sum((some[:, one] + some[:, other]) ** 2, axis=-1)
        smallest = np.partition(square, num_neighbors // 2 - 1, axis=1)[:, : num_neighbors // 2]
        value[start : start + _CHUNK] = smallest.sum(axis=1)
    return value


def coordination(
    structure: Structure, cutoff: float | Float[Array, "s s"]
) -> Int[np.ndarray, "n s"]:
    """Number of neighbors of each species around each atom of one structure.

    Every periodic image counts. Not differentiable.

    **Arguments:** `cutoff` in angstrom: one for all pairs, or a symmetric table by species; a pair
    with 0 has no bonds.
    **Returns:** [atom, species of the neighbor], for as many species as the table has (with one
    cutoff: as the structure has); 0 for padding. **Raises:** `OptionError`, `SpeciesError` for a
    species outside the table; `InputError` for several structures, or under jit; `GeometryError`.

    ```python
    oxygen_around = coordination(structure, 2.3)[:, 0]
    ```
    """
    frame = one_frame(structure)
    table = _cutoff_table(cutoff, count_species(frame))
    foreign = frame.mask & ((frame.species < 0) | (frame.species >= len(table)))
    if foreign.any():
        atom = int(np.argmax(foreign))
        raise SpeciesError(
            f"species {frame.species[atom]}, and the table of cutoffs has {len(table)}",
            atom=atom,
            remedy="give a row and a column for each species",
        )
    i, j, vector = pairs_within(frame, table.max())
    a, b = frame.species[i], frame.species[j]
    bonded = np.linalg.norm(vector, axis=-1) <= table[a, b]
    num = len(frame.mask) * len(table)
    count = np.bincount(i[bonded] * len(table) + b[bonded], minlength=num)
    return count.reshape(len(frame.mask), len(table))


def count_species(frame: Structure) -> int:
    """How many species the atoms of one structure need a table for.

    ```python
    count_species(from_atoms(ase.build.molecule("H2O"), ("H", "O")))  # 2
    ```
    """
    return int(frame.species[frame.mask].max(initial=0)) + 1


def _cutoff_table(cutoff: float | Array, num_species: int) -> Float[np.ndarray, "s s"]:
    table = np.asarray(cutoff, np.float64)
    if table.ndim == 0:
        check_positive("cutoff", float(table))
        return np.full((num_species, num_species), float(table))
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not (table == table.T).all():
        raise OptionError(
            f"cutoffs {table.tolist()} are no symmetric table",
            remedy="give one number, or a row and a column for each species",
        )
    if not (np.isfinite(table).all() and (table >= 0).all() and table.any()):
        raise OptionError(
            f"cutoffs are {table.tolist()}", remedy="give lengths in angstrom, some more than 0"
        )
    return table


def _nearest(frame: Structure, num: int) -> Float[np.ndarray, "n num 3"]:
    """Vectors to the nearest neighbors, nearest first; not a number where there are fewer."""
    around = np.full((len(frame.mask), num, 3), np.nan)
    lacking = frame.mask.copy()
    for doublings in (3, 2, 1, 0):
        if not lacking.any():
            break
        radius = REACH * 0.5 ** (doublings / 3)  # of the volume
        i, _, vector = pairs_within(frame, radius)
        wanted = lacking[i]
        i, vector = i[wanted], vector[wanted]
        order = np.lexsort((np.sum(vector**2, axis=-1), i))
        count = np.bincount(i, minlength=len(lacking))
        rank = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
        order = order[(rank < num) & (count[i] >= num)]
        found = count >= num
        around[found] = vector[order].reshape(-1, num, 3)
        lacking &= ~found
    return around


def _classify(
    around: Float[np.ndarray, "n k 3"], cutoff: Float[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Codes of atoms with 12 or with 14 neighbors, which are bonded within `cutoff`."""
    code = np.full(len(around), OTHER)
    num = around.shape[1]
    for start in range(0, len(around), _CHUNK):
        some = around[start : start + _CHUNK]
        square = np.sum((some[:, :, None] - some[:, None]) ** 2, axis=-1)
        bonded = (square <= cutoff[start : start + _CHUNK, None, None] ** 2) & ~np.eye(
            num, dtype=bool
        )
        signature = _signatures(bonded)
        how_many = {name: _matches(signature, name) for name in (421, 422, 444, 666)}
        part = code[start : start + _CHUNK]
        if num == 14:
            part[(how_many[666] == 8) & (how_many[444] == 6)] = BCC
        else:
            part[how_many[421] == 12] = FCC
            part[(how_many[421] == 6) & (how_many[422] == 6)] = HCP
    return code


def _matches(signature: Int[np.ndarray, "n k 3"], name: int) -> Int[np.ndarray, " n"]:
    digits = [int(digit) for digit in str(name)]
    return np.sum((signature == digits).all(axis=-1), axis=1)


def _signatures(bonded: Bool[np.ndarray, "n k k"]) -> Int[np.ndarray, "n k 3"]:
    """Common neighbors, bonds between them, and bonds in their longest chain, of every bond.

    A chain is what hangs together, as in OVITO.
    """
    # as numbers: numpy multiplies matrices of them with BLAS
    bond = bonded.astype(np.float32)
    common = bond.sum(axis=2)
    degree = bond * (bond @ bond)
    link = bond[:, :, :, None] * bond[:, :, None, :] * bond[:, None]
    linked = link + np.eye(bond.shape[1], dtype=np.float32)
    for _ in range(4):  # chains of up to 16 bonds
        linked = np.minimum(linked @ linked, 1)
    chain = np.squeeze(linked @ degree[..., None], -1).max(axis=2)
    return np.rint(np.stack([common, degree.sum(axis=2) / 2, chain / 2], axis=-1)).astype(int)
