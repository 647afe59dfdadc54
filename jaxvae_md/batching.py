"""Frames of different size as a few padded batches, so that a data set compiles few times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from jaxvae_md.errors import InputError, OptionError
from jaxvae_md.neighbors import NeighborList, image_grid, neighbor_list
from jaxvae_md.structure import Structure, append_zeros, pad


class Batch(NamedTuple):
    """Frames of similar size, padded to the same shapes."""

    structure: Structure
    """leading axis b"""
    neighbors: NeighborList
    """leading axis b"""
    frame: Int[np.ndarray, " b"]
    """position of each frame in the list that was batched"""


def batches(structures: Sequence[Structure], cutoff: float, num_batches: int = 3) -> list[Batch]:
    """Sorts structures by size into at most `num_batches` padded batches with neighbor lists.

    The borders between batches are chosen to pad few atoms.

    **Arguments:** `cutoff` of the neighbor lists in angstrom. **Raises:** `GeometryError`, naming
    the frame; `OptionError` when there are no structures.

    ```python
    for batch in batches(structures, cutoff=6.0):
        x = jax.vmap(descriptor)(batch.structure, batch.neighbors)
    ```
    """
    if not structures:
        raise OptionError("no structures", remedy="give at least one frame")
    sizes = np.array([s.position.shape[0] for s in structures])
    fns = neighbor_list(cutoff)
    out = []
    for group in _groups(sizes, num_batches):
        size = sizes[group].max()
        padded = [pad(structures[i], size) for i in group]
        lists = []
        for number, structure in zip(group, padded, strict=True):
            try:
                lists.append(fns.allocate(structure))
            except InputError as error:
                raise error.at(frame=int(number)) from None
        capacity = max(n.index.shape[1] for n in lists)
        images = image_grid(np.max([n.images.max(axis=0) for n in lists], axis=0))
        lists = [_widen(n, capacity)._replace(images=images, grid=None) for n in lists]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *zip(padded, lists, strict=True))
        out.append(Batch(*stacked, frame=group))
    return out


def _groups(sizes: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """Frames grouped by size, with the borders that waste the least padding.

    A further group must save a tenth of all atoms, since every shape is compiled.
    """
    levels = np.unique(sizes)
    counts = np.array([np.sum(sizes == level) for level in levels])
    price = 0.1 * sizes.sum()

    def best(last: int, left: int) -> tuple[float, list[int]]:
        """Least cost of levels[: last + 1] in at most `left` groups, and the borders."""
        whole = counts[: last + 1].sum() * levels[last] + price, [last]
        if left == 1 or last == 0:
            return whole
        options = [whole]
        for border in range(max(0, last - 12), last):
            cost, borders = best(border, left - 1)
            tail = counts[border + 1 : last + 1].sum() * levels[last]
            options.append((cost + tail + price, [*borders, last]))
        return min(options, key=lambda option: option[0])

    _, borders = best(len(levels) - 1, num_groups)
    lower = 0
    out = []
    for border in borders:
        inside = (sizes >= levels[lower]) & (sizes <= levels[border])
        out.append(np.nonzero(inside)[0])
        lower = border + 1
    return out


def _widen(neighbors: NeighborList, capacity: int) -> NeighborList:
    """The same list with more padded slots."""
    extra = int(capacity - neighbors.index.shape[1])
    return neighbors._replace(
        index=append_zeros(neighbors.index, extra, axis=1),
        shift=append_zeros(neighbors.shift, extra, axis=1),
        mask=append_zeros(neighbors.mask, extra, axis=1),
    )
