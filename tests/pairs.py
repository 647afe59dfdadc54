"""Lists of neighbors as sets of (i, j, image), whatever found them."""

from typing import Any

import numpy as np
import vesin

from jaxvae_md.structure import Structure
from tests import oracles

Pairs = set[tuple[int, ...]]


def pair_set(neighbors: Any) -> Pairs:
    """(i, j, image) of every slot in use; no pair may be there twice."""
    index, shift, mask = map(np.asarray, (neighbors.index, neighbors.shift, neighbors.mask))
    atom, slot = np.nonzero(mask)
    rows = np.column_stack([atom, index[atom, slot], shift[atom, slot]]).tolist()
    assert len(set(map(tuple, rows))) == len(rows)
    return set(map(tuple, rows))


def by_brute_force(structure: Structure, cutoff: float) -> Pairs:
    return {(i, j, *image) for i, j, image, _ in oracles.pairs(structure, cutoff)}


def by_vesin(structure: Structure, cutoff: float) -> Pairs:
    """Without the padding atoms, which must come last."""
    position = np.asarray(structure.position, np.float64)[structure.mask]
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True)
    cell = np.asarray(structure.cell, np.float64)
    i, j, shift = calculator.compute(position, cell, structure.pbc, "ijS")
    return set(map(tuple, np.column_stack([i, j, shift]).astype(int).tolist()))


def assert_pairs(found: Pairs, structure: Structure, cutoff: float) -> None:
    """All pairs within the cutoff and no others; those at the cutoff may be rounded either way."""
    rounding = 1e-4 if structure.position.dtype == np.float32 else 0.0
    surely = by_vesin(structure, cutoff - rounding)
    assert surely
    assert surely <= found <= by_vesin(structure, cutoff + rounding)
