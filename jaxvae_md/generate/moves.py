"""Moves that make a defect of a structure: on the host, before anything is compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxvae_md.neighbors import host_pairs, image_grid
from jaxvae_md.structure import Structure

_MOST_REMOVED = 4
"""atoms, but of a small cell an eighth at most"""
_NUM_PLACES = 200
"""random points among which an atom is inserted where there is most room"""
_GAPS = (1.0, 3.0)
"""opened between two halves, in nearest-neighbor distances"""


class Move(NamedTuple):
    """A structure that was changed."""

    structure: Structure
    kind: str
    """one of `KINDS`"""


def remove(structure: Structure, nearest_distance: float, rng: np.random.Generator) -> Structure:
    """Without an atom, and up to three of those nearest to it."""
    num = len(structure.position)
    count = rng.integers(1, min(_MOST_REMOVED, max(1, num // 8)) + 1)
    distance = _distances_from(structure, structure.position[rng.integers(num)])
    kept = np.ones(num, bool)
    kept[np.argsort(distance)[:count]] = False
    return structure._replace(
        position=structure.position[kept],
        species=structure.species[kept],
        mask=structure.mask[kept],
    )


def insert(structure: Structure, nearest_distance: float, rng: np.random.Generator) -> Structure:
    """With one atom more, where there is room among random places."""
    fraction = structure.position @ np.linalg.inv(structure.cell)
    low = np.where(structure.pbc, 0, fraction.min(axis=0))
    high = np.where(structure.pbc, 1, fraction.max(axis=0))
    places = rng.uniform(low, high, (_NUM_PLACES, 3)) @ structure.cell
    room = [_distances_from(structure, place).min() for place in places]
    # not the roomiest alone: a vacuum is no interstitial site
    inside = np.nonzero(np.less(room, 1.2 * nearest_distance))[0]
    order = inside if len(inside) else np.arange(_NUM_PLACES)
    order = order[np.argsort(np.take(room, order))]
    place = places[order[-1 - rng.integers(max(1, len(order) // 20))]]
    return structure._replace(
        position=np.concatenate([structure.position, place[None]]),
        species=np.append(structure.species, rng.choice(structure.species)).astype(np.int32),
        mask=np.append(structure.mask, True),
    )


def rotate(structure: Structure, nearest_distance: float, rng: np.random.Generator) -> Structure:
    """A bond turned by a right angle about an axis across it.

    **Source:** Wooten, Winer and Weaire, Phys. Rev. Lett. 54, 1392 (1985).
    """
    i, j, shift = host_pairs(structure, 1.3 * nearest_distance)
    bonds = np.nonzero(i < j)[0]
    if not len(bonds):
        return rattle(structure, nearest_distance, rng)
    bond = rng.choice(bonds)
    a, b = i[bond], j[bond]
    along = structure.position[b] + shift[bond] @ structure.cell - structure.position[a]
    across = np.cross(along, rng.normal(size=3))
    across *= np.linalg.norm(along) / np.linalg.norm(across)
    middle = structure.position[a] + along / 2
    position = structure.position.copy()
    position[a] = middle - across / 2
    position[b] = middle + across / 2 - shift[bond] @ structure.cell
    return structure._replace(position=position)


def cleave(structure: Structure, nearest_distance: float, rng: np.random.Generator) -> Structure:
    """Two halves, drawn apart along a lattice vector: a crack, or a slab with two surfaces."""
    periodic = np.nonzero(structure.pbc)[0]
    if not len(periodic):
        return rattle(structure, nearest_distance, rng)
    axis = rng.choice(periodic)
    fraction = structure.position @ np.linalg.inv(structure.cell)
    fraction -= np.where(structure.pbc, np.floor(fraction), 0)
    sorted_ = np.sort(fraction[:, axis])
    width = np.diff(np.append(sorted_, sorted_[0] + 1))
    # between two layers, rarely through one
    cut = rng.choice(len(width), p=width**2 / np.sum(width**2))
    plane = (sorted_[cut] + width[cut] / 2) % 1
    normal = np.linalg.inv(structure.cell)[:, axis]
    normal /= np.linalg.norm(normal)
    gap = rng.uniform(*_GAPS) * nearest_distance * normal
    position = fraction @ structure.cell
    position = position + (fraction[:, axis] > plane)[:, None] * gap
    cell = structure.cell.copy()
    cell[axis] += gap
    return structure._replace(position=position, cell=cell)


def rattle(structure: Structure, nearest_distance: float, rng: np.random.Generator) -> Structure:
    """As it was, but for small displacements: with a strain, and MD after it, the plain way."""
    noise = 0.01 * nearest_distance * rng.normal(size=structure.position.shape)
    return structure._replace(position=structure.position + noise)


KINDS = {"remove": remove, "insert": insert, "rotate": rotate, "cleave": cleave, "strain": rattle}
"""(structure, nearest_distance, rng) -> structure"""
_SHARES = {"remove": 0.35, "insert": 0.1, "rotate": 0.15, "cleave": 0.25, "strain": 0.15}
"""by what the labels of each kind were worth in silicon"""


def strained(structure: Structure, strain: Float[np.ndarray, "3 3"]) -> Structure:
    """Cell and positions multiplied by 1 + strain."""
    deformation = np.eye(3) + strain
    return structure._replace(
        position=structure.position @ deformation, cell=structure.cell @ deformation
    )


def random_move(
    structure: Structure,
    nearest_distance: float,
    rng: np.random.Generator,
    strain: float = 0.05,
) -> Move:
    """One of the moves, on a structure under a random strain half of the time.

    **Arguments:** a structure without padding; `nearest_distance` in angstrom; `strain` the
    standard deviation of its components.

    ```python
    move = random_move(structure, 2.35, np.random.default_rng(0))
    ```
    """
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    if kind == "strain" or rng.uniform() < 0.5:
        tensor = rng.normal(0, strain, (3, 3))
        structure = strained(structure, np.clip((tensor + tensor.T) / 2, -2 * strain, 2 * strain))
    return Move(KINDS[kind](structure, nearest_distance, rng), kind)


def _distances_from(structure: Structure, place) -> Float[np.ndarray, " n"]:
    """Distances (angstrom) of the nearest image of each atom, in cells that are not too skewed."""
    fraction = (structure.position - place) @ np.linalg.inv(structure.cell)
    fraction = np.where(structure.pbc, fraction - np.round(fraction), fraction)
    images = image_grid(np.where(structure.pbc, 1, 0))
    vectors = (fraction[:, None] + images) @ structure.cell
    return np.sqrt(np.min(np.sum(vectors**2, axis=-1), axis=1))
