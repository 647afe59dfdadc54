"""Small structures that between them exercise every kind of cell."""

import numpy as np

from jaxvae_md.neighbors import NeighborList
from jaxvae_md.structure import Structure

SI = ("Si",)
SIO2 = ("O", "Si")

_DIAMOND = 0.25 * np.array(
    [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]]
)


def make(position, cell, pbc=True, species=0, rattle: float = 0.0, seed: int = 0) -> Structure:
    """A Structure of numpy arrays, float64, rattled by `rattle` (standard deviation)."""
    position = np.asarray(position, float)
    noise = np.random.default_rng(seed).normal(0, 1, position.shape)
    return Structure(
        position=position + rattle * noise,
        cell=np.asarray(cell, float),
        pbc=np.broadcast_to(np.asarray(pbc, bool), 3).copy(),
        species=np.broadcast_to(np.asarray(species, np.int32), len(position)).copy(),
        mask=np.ones(len(position), bool),
    )


def si8(rattle: float = 0.1) -> Structure:
    """Cubic diamond cell: shorter than most cutoffs, so atoms meet their own images."""
    return make(5.43 * _DIAMOND, 5.43 * np.eye(3), rattle=rattle)


def triclinic() -> Structure:
    """Four atoms in a strongly skewed cell, two of them far outside it."""
    primitive = 2.715 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    cell = np.array([[2, 0, 0], [1, 1, 0], [2, -1, 1]]) @ primitive
    strain = np.array([[1.0, 0.03, -0.02], [0.01, 0.97, 0.04], [0.0, -0.03, 1.02]])
    basis = np.array([[0, 0, 0], [1, 0, 0], [0.25, 0.25, 0.25], [1.25, 0.25, 0.25]])
    outside = np.array([[0, 0, 0], [2, -1, 0], [0, 0, 0], [-1, 3, -2]]) @ cell
    return make((basis @ primitive + outside) @ strain, cell @ strain, rattle=0.1)


def slab() -> Structure:
    """Eight atoms, periodic in x and y; the vacuum along z is thinner than most cutoffs."""
    cell = np.diag([5.43, 5.43, 7.5])
    return make(5.43 * _DIAMOND, cell, pbc=(True, True, False), rattle=0.05)


def cluster() -> Structure:
    """A bent tetrahedron without periodicity; its cell is the unit cube that ASE completes."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 2.35 / 3**0.5
    return make([[0, 0, 0], *corners], np.eye(3), pbc=False, rattle=0.1)


def sio2() -> Structure:
    """Alpha-quartz: nine atoms, hexagonal, two species (0 is O, 1 is Si)."""
    a, c, u, x, y, z = 4.913, 5.405, 0.4697, 0.4135, 0.2669, 0.1191
    cell = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]])
    silicon = [[u, 0, 0], [0, u, 2 / 3], [-u, -u, 1 / 3]]
    oxygen = [
        [x, y, z],
        [-y, x - y, z + 2 / 3],
        [y - x, -x, z + 1 / 3],
        [y, x, -z],
        [x - y, -y, 1 / 3 - z],
        [-x, y - x, 2 / 3 - z],
    ]
    return make(np.array(silicon + oxygen) @ cell, cell, species=[1] * 3 + [0] * 6, rattle=0.05)


def bcc() -> Structure:
    """Two atoms (body-centred cubic, as tungsten): every neighbor is an image."""
    return make([[0, 0, 0], [1.58, 1.58, 1.58]], 3.16 * np.eye(3), rattle=0.1)


def fcc(num_species: int = 1) -> Structure:
    """Four atoms at argon's spacing, of one or two species."""
    sites = 2.65 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return make(sites, 5.3 * np.eye(3), species=np.arange(4) % num_species, rattle=0.15)


def dimer(distance: float, species=(0, 0)) -> Structure:
    """Two atoms in empty space, off every axis."""
    direction = np.array([2.0, -1.0, 2.0]) / 3
    return make([[0, 0, 0], distance * direction], np.eye(3), pbc=False, species=species)


ALL = {"si8": si8, "triclinic": triclinic, "slab": slab, "cluster": cluster, "bcc": bcc}
"""The structures of one species, by name."""


def random_structure(rng: np.random.Generator, pbc, num: int | None = None) -> Structure:
    """Atoms (two to eight by default) in a random, often skewed cell, up to three cells outside it.

    Along directions that are not periodic they stay inside, lest none has a neighbor.
    """
    size = max(1.0, (num or 8) / 8) ** (1 / 3)
    while True:
        cell = rng.uniform(2.5, 6.0, (3, 1)) * (np.eye(3) + rng.uniform(-0.9, 0.9, (3, 3)))
        cell *= size
        widths = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        if widths.min() > 1.3:
            break
    num = int(rng.integers(2, 9)) if num is None else num
    fractional = np.where(pbc, rng.uniform(-3, 4, (num, 3)), rng.uniform(0, 1, (num, 3)))
    return make(fractional @ cell, cell, pbc=pbc)


def repeated(structure: Structure, times: tuple[int, int, int]) -> Structure:
    """The supercell; atoms of one copy stay together, the original copy comes first."""
    grid = np.stack(np.meshgrid(*map(np.arange, times), indexing="ij"), -1).reshape(-1, 3)
    position = (grid @ structure.cell)[:, None] + structure.position
    return Structure(
        position=position.reshape(-1, 3),
        cell=np.array(times)[:, None] * structure.cell,
        pbc=structure.pbc,
        species=np.tile(structure.species, len(grid)),
        mask=np.tile(structure.mask, len(grid)),
    )


def reshaped(neighbors: NeighborList, capacity: int, num_images: int) -> NeighborList:
    """The list with padded slots up to `capacity`, and images that are beyond every reach.

    Structures and lists of the same shapes share one compiled program.
    """
    beyond = np.full((num_images - len(neighbors.images), 3), 1000, np.int32)
    extra = (0, 0), (0, capacity - neighbors.index.shape[1])
    return neighbors._replace(
        index=np.pad(neighbors.index, extra),
        shift=np.pad(neighbors.shift, (*extra, (0, 0))),
        mask=np.pad(neighbors.mask, extra),
        images=np.concatenate([neighbors.images, beyond]),
    )


def forgotten(neighbors: NeighborList) -> NeighborList:
    """The list without its pairs, for `update` to find again."""
    return neighbors._replace(
        index=np.zeros_like(neighbors.index),
        shift=np.zeros_like(neighbors.shift),
        mask=np.zeros_like(neighbors.mask),
    )


def single(structure: Structure) -> Structure:
    """The same structure with floats in float32."""
    return structure._replace(
        position=np.float32(structure.position), cell=np.float32(structure.cell)
    )
