"""A grid of cells with periodic copies around it: finds the pairs of large systems in linear time.

The unit cell is cut into `shape` grid cells of up to `capacity` atoms each, and surrounded by
`reach` layers of periodic copies. An atom then finds all its neighbors, images included, at plain
coordinates within the block of (2 reach + 1) grid cells around it, whatever the cell's form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int, UInt

from jaxvae_md._typing import Array
from jaxvae_md.structure import Structure, inverse_cell, perpendicular_widths, unstack

FAR = 1e6
"""Coordinate (angstrom) of places without an atom: beyond every cutoff of an atom in the cell."""

_VECTOR = 8
"""places of a grid cell come in multiples of this, which fills vector registers"""

_MOST_CELLS = 256
"""grid cells that an atom looks into; more need bits of a word that its atoms need"""

_BLOCK = 4096
"""atoms whose neighbors are found together: what that takes fits into a cache"""


@jax.tree_util.register_static
@dataclass(frozen=True)
class Grid:
    """The sizes of a grid: all that is compiled into what uses it."""

    shape: tuple[int, int, int]
    """grid cells along each lattice vector"""
    reach: tuple[int, int, int]
    """layers of grid cells around an atom's own that are searched"""
    capacity: int
    """places of a grid cell"""

    @property
    def extended(self) -> tuple[int, int, int]:
        """Grid cells along each lattice vector with the periodic copies."""
        return tuple(n + 2 * r for n, r in zip(self.shape, self.reach, strict=True))  # pyright: ignore

    @property
    def mask_bits(self) -> int:
        """Bits of a 32-bit word that stand for atoms; the others number the words of a block."""
        return 32 - (int(np.prod(2 * np.array(self.reach) + 1)) - 1).bit_length()

    @property
    def num_places(self) -> int:
        """Places for atoms and their copies; the first place beyond stays empty."""
        return int(np.prod(self.extended)) * self.capacity


class Cells(NamedTuple):
    """Which atom is in which place of a grid."""

    atom: Int[Array, " places"]
    """atom whose copy is in each place; n where there is none"""
    order: Int[Array, " n"]
    """atoms sorted by grid cell; the padding atoms are last"""
    row: Int[Array, " n"]
    """place of each atom among those that are not copies, in that order"""
    place: Int[Array, " n"]
    """place of each atom itself, in that order"""
    turns: Int[Array, "n 3"]
    """lattice vectors to subtract from each atom to bring it into the cell; not sorted"""
    overflow: Bool[Array, ""]
    """a grid cell has more atoms than room, or became too thin for its reach"""


def plan(
    structure: Structure, radius: float, room: float = 1.05, thinnest: float = 1.0
) -> Grid | None:
    """The grid that costs least for pairs within `radius` (angstrom); on the host.

    It has room for `room` times the fullest grid cell's atoms, and serves until the cell has
    shrunk to `thinnest` of its widths. None where no grid serves: an atom would meet too many
    grid cells. A leading axis of systems gets one grid for all.

    ```python
    grid = plan(structure, radius=9.0)
    ```
    """
    fractions, widths = [], []
    for system in unstack(structure):
        span = window(system)
        fractions.append(_fractions(system, span)[0][system.mask])
        cell = np.asarray(system.cell, np.float64)
        # a little less, so that what `fill` rounds is not too thin at once
        width = (1 - 1e-5) * np.ptp(span, axis=0) * perpendicular_widths(cell)
        widths.append(thinnest * width)
    widths = np.minimum(np.min(widths, axis=0), 1e4 * radius)
    periodic = np.any(np.reshape(structure.pbc, (-1, 3)), axis=0)
    # for some layers the most grid cells that they reach over, and the whole as one grid cell
    choices = [
        {(max(1, int(layers * width / radius)), layers) for layers in range(1, 5)}
        | {(1, int(np.ceil(radius / width)) if repeats else 0)}
        for width, repeats in zip(widths, periodic, strict=True)
    ]
    best = None
    for along in product(*choices):
        shape, reach = zip(*along, strict=True)
        if any(0 < r * w / n < radius for n, r, w in zip(shape, reach, widths, strict=True)):
            continue
        num, block = int(np.prod(shape)), int(np.prod(2 * np.array(reach) + 1))
        if block > _MOST_CELLS or num > 2**20:
            continue
        needed = int(np.ceil(room * max(_fullest(fraction, shape) for fraction in fractions)))
        bits = Grid(shape, reach, 0).mask_bits
        if needed > bits:
            continue
        # a crystal fills its grid cells alike only until its atoms cross their borders
        mean = max(map(len, fractions)) / num
        if num > 1:
            needed = max(needed, min(bits, int(np.ceil(mean + 2 * mean**0.5))))
        grid = Grid(shape, reach, _VECTOR * -(-needed // _VECTOR))
        # measured: in a test of two atoms' time, a word of an atom costs 10, and a place 80 in the
        # steps that share a list
        cost = block * (num * grid.capacity**2 + 10 * len(fractions[0])) + 80 * grid.num_places
        if best is None or cost < best[0]:
            best = cost, grid
    return None if best is None else best[1]


def _fullest(fraction: np.ndarray, shape: tuple[int, ...]) -> int:
    """Atoms of the grid cell that has most."""
    index = np.minimum((fraction * shape).astype(int), np.array(shape) - 1)
    return int(np.bincount(np.ravel_multi_index(tuple(index.T), shape)).max(initial=1))


def window(structure: Structure) -> Float[np.ndarray, "2 3"]:
    """The fractions of each lattice vector that the grid spans; on the host.

    The whole vector where it is periodic; where it is not, what the atoms take up now. An atom
    that leaves it counts to the outermost grid cells, which loses no pair.
    """
    position, cell, pbc, _, mask = map(np.asarray, structure)
    fraction = (position @ inverse_cell(cell))[mask]
    if len(fraction) == 0:
        return np.array([[0.0] * 3, [1.0] * 3])
    low, high = fraction.min(axis=0), fraction.max(axis=0)
    high = np.maximum(high, low + 1e-3)
    return np.stack([np.where(pbc, 0.0, low), np.where(pbc, 1.0, high)])


def _fractions(structure: Structure, span: Array) -> tuple[Array, Array]:
    """Position within the window, from 0 to 1, and the lattice vectors that were taken off."""
    xp = np if isinstance(structure.position, np.ndarray) else jnp
    fraction = structure.position @ inverse_cell(structure.cell)
    turns = xp.where(structure.pbc, xp.floor(fraction), 0)
    inside = (fraction - turns - span[0]) / (span[1] - span[0])
    return xp.clip(inside, 0, 1), turns.astype(xp.int32)


def fill(grid: Grid, structure: Structure, span: Float[Array, "2 3"], radius: float) -> Cells:
    """Sorts the atoms into the grid; jits.

    **Arguments:** `span` is the `window` that the grid was planned with, `radius` in angstrom.

    ```python
    cells = fill(grid, structure, window(structure), radius=9.0)
    ```
    """
    structure = jax.tree.map(jnp.asarray, structure)
    num = structure.position.shape[0]
    num_cells, room = int(np.prod(grid.shape)), grid.capacity
    most = min(room, grid.mask_bits)
    span = jnp.asarray(span, structure.position.dtype)
    fraction, turns = _fractions(structure, span)
    shape = jnp.array(grid.shape, jnp.int32)
    index = jnp.clip((fraction * shape).astype(jnp.int32), 0, shape - 1)
    cell = (index[:, 0] * grid.shape[1] + index[:, 1]) * grid.shape[2] + index[:, 2]
    cell = jnp.where(structure.mask, cell, num_cells)
    if (num_cells + 1) * num < 2**31:
        # cell and atom in one key: sorting one array is several times faster than sorting two
        order = jnp.sort(cell * num + jnp.arange(num, dtype=jnp.int32)) % num
    else:
        order = jnp.argsort(cell, stable=True).astype(jnp.int32)
    cell = cell[order]
    count = jnp.zeros(num_cells + 1, jnp.int32).at[cell].add(1)
    start = jnp.cumsum(count, dtype=jnp.int32) - count
    lane = jnp.arange(room, dtype=jnp.int32)
    member = order[jnp.minimum(start[:num_cells, None] + lane, num - 1)]
    member = jnp.where(lane < jnp.minimum(count[:num_cells, None], most), member, num)

    original, images = _copies(grid)
    copied = jnp.all((images == 0) | structure.pbc, axis=-1).at[-1].set(False)
    atom = jnp.where(copied[:, None], member[original], num).reshape(-1)

    slot = jnp.arange(num, dtype=jnp.int32) - start[cell]
    real = (cell < num_cells) & (slot < most)
    row = jnp.where(real, cell * room + slot, 0)
    x, y, z = np.unravel_index(np.arange(num_cells), grid.shape)
    middle = _place_step(grid, np.stack([x, y, z]) + np.array(grid.reach)[:, None])
    place = jnp.asarray(middle.astype(np.int32))[row // room] * room + row % room
    thickness = (span[1] - span[0]) * perpendicular_widths(structure.cell) / shape
    # atoms outside a window that is not periodic are in its outermost cells, of any thickness
    apart = structure.pbc | (shape > jnp.array(grid.reach) + 1)
    too_thin = (thickness * jnp.array(grid.reach) < radius) & apart
    return Cells(
        atom=atom.astype(jnp.int32),
        order=order,
        row=row,
        place=jnp.where(real, place, grid.num_places),
        turns=turns,
        overflow=(jnp.max(count[:num_cells]) > most) | jnp.any(too_thin),
    )


def spread(
    grid: Grid, cells: Cells, position: Float[Array, "n 3"], cell: Float[Array, "3 3"]
) -> tuple[Float[Array, " places"], ...]:
    """x, y and z (angstrom) in every place: atoms, their periodic copies, and `FAR` elsewhere.

    ```python
    x, y, z = spread(grid, cells, structure.position, structure.cell)
    ```
    """
    inside = position - cells.turns.astype(position.dtype) @ cell
    inside = jnp.append(inside, jnp.full((1, 3), FAR, position.dtype), axis=0)
    _, images = _copies(grid)
    shift = jnp.asarray(images, position.dtype) @ cell

    def along(k):
        here = take(inside[:, k], cells.atom).reshape(len(images), grid.capacity)
        return (here + shift[:, k, None]).reshape(-1)

    return tuple(along(k) for k in range(3))


def search(
    grid: Grid,
    cells: Cells,
    coordinates: tuple[Float[Array, " places"], ...],
    radius: float,
    capacity: int,
) -> tuple[Int[Array, "k n"], Int[Array, ""]]:
    """Places of all neighbors within `radius` (angstrom) of each atom, and the largest number.

    Atoms come in the order of `cells.order`; unused entries are the place of no atom. What does
    not fit into `capacity` is left out.

    ```python
    places, most = search(grid, cells, spread(grid, cells, position, cell), 9.0, capacity=120)
    ```
    """
    words = _words(grid, cells, coordinates, radius)
    # offsets of places are sums: from the atom's grid cell to the block's corner, and on from it
    corner = cells.place - cells.place % grid.capacity
    corner = corner - _place_step(grid, grid.reach) * grid.capacity
    num = len(corner)
    blocks = -(-num // _BLOCK)
    length = -(-num // blocks)

    def in_blocks(values):
        padded = jnp.pad(values, (*[(0, 0)] * (values.ndim - 1), (0, blocks * length - num)))
        return jnp.moveaxis(padded.reshape(*values.shape[:-1], blocks, length), -2, 0)

    places, found = lax.map(
        lambda block: _expand(grid, block[0], block[1], capacity),
        (in_blocks(words), in_blocks(corner)),
    )
    places = jnp.moveaxis(places, 0, 1).reshape(capacity, -1)[:, :num]
    return places, jnp.max(found, initial=0)


def _expand(grid, words: UInt[Array, "block n"], corner: Int[Array, " n"], capacity: int):
    """The places that the bits of the words stand for, and how many there are."""
    num = words.shape[1]
    found = _count(words)

    # each word gets the number of the next one that is not empty, so that a neighbor costs one
    # lookup however many words are empty
    def point(following, word_and_number):
        word, number = word_and_number
        pointed = word | (following << grid.mask_bits)
        return jnp.where(word != 0, number, following), pointed

    numbers = jnp.arange(len(words), dtype=jnp.uint32)
    none = jnp.full(num, len(words) - 1, jnp.uint32)
    first, words = lax.scan(point, none, (words, numbers), reverse=True)
    words = words.reshape(-1)
    lane = jnp.arange(num, dtype=jnp.uint32)
    word_at = lambda number: take(words, (number * num + lane).astype(jnp.int32))
    step = _block_steps(grid)

    def neighbor(carry, k):
        word, number = carry
        lowest = word & (~word + jnp.uint32(1))
        bit = lax.population_count(lowest - jnp.uint32(1)).astype(jnp.int32)
        place = jnp.where(k < found, corner + step(number.astype(jnp.int32)) + bit, grid.num_places)
        left = word ^ lowest
        spent = left & jnp.uint32(2**grid.mask_bits - 1) == 0
        number = jnp.where(spent, left >> grid.mask_bits, number)
        return (jnp.where(spent, word_at(number), left), number), place

    start = (word_at(first), first)
    places = lax.scan(neighbor, start, jnp.arange(capacity, dtype=jnp.int32))[1]
    return places, jnp.max(found)


def most_neighbors(
    grid: Grid, cells: Cells, coordinates: tuple[Float[Array, " places"], ...], radius: float
) -> Int[Array, ""]:
    """The capacity that `search` needs."""
    return jnp.max(_count(_words(grid, cells, coordinates, radius)), initial=0)


def _count(words: UInt[Array, "block n"]) -> Int[Array, " n"]:
    """Neighbors of each atom."""
    return jnp.sum(lax.population_count(words).astype(jnp.int32), axis=0, dtype=jnp.int32)


def as_rows(
    grid: Grid, cells: Cells, places: Int[Array, "k n"]
) -> tuple[Int[Array, "n k"], Int[Array, "n k 3"], Bool[Array, "n k"]]:
    """What `search` found as atoms, lattice shifts and mask; rows in the atoms' own order.

    r_ij = x_j + shift @ cell - x_i for the positions as they are, wrapped or not.
    """
    num = len(cells.order)
    rank = jnp.argsort(cells.order)
    places = places.T[rank]
    mask = places < grid.num_places
    index = jnp.where(mask, take(cells.atom, places), 0)
    image = jnp.asarray(_copies(grid)[1])
    shift = image[places // grid.capacity] - cells.turns[index] + cells.turns[:, None]
    return index, jnp.where(mask[..., None], shift, 0).reshape(num, -1, 3), mask


@jax.custom_batching.custom_vmap
def take(table: Float[Array, " m"], index: Int[Array, ...]) -> Float[Array, ...]:
    """`table[index]` for an index that is never negative nor too large: no check, no wrapping.

    ```python
    take(jnp.array([3.0, 4.0]), jnp.array([1, 1, 0]))  # 4, 4, 3
    ```
    """
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    return lax.gather(table, index[..., None], dimensions, (1,), mode="promise_in_bounds")


@take.def_vmap
def _(axis_size, in_batched, table, index):
    """One gather from all tables end to end; XLA is slow where a gather has a batch."""
    table_batched, index_batched = in_batched
    if table_batched:
        first = table.shape[1] * jnp.arange(axis_size, dtype=index.dtype)
        ndim = index.ndim - 1 if index_batched else index.ndim
        index, table = index + first.reshape(-1, *(1,) * ndim), table.reshape(-1)
    return take(table, index), True


def _words(grid, cells, coordinates, radius) -> UInt[Array, "block n"]:
    """For every grid cell of the block around each atom, a bit for each of its atoms in reach."""
    room, shape = grid.capacity, grid.shape
    num_cells = int(np.prod(shape))
    fields = [c[: grid.num_places].reshape(*grid.extended, room) for c in coordinates]
    limit = jnp.asarray(radius, coordinates[0].dtype) ** 2
    bits = jnp.left_shift(jnp.uint32(1), jnp.arange(room, dtype=jnp.uint32))

    def shifted(offset):
        """Coordinates of the atoms that are `offset` grid cells from the block's corner."""
        at = (*offset, jnp.int32(0))
        return [lax.dynamic_slice(f, at, (*shape, room)).reshape(num_cells, room) for f in fields]

    # what a loop carries is in memory: fused into the test of the pairs, the slices would make
    # it several times slower
    def word(carried, following):
        middle, there = carried
        square = sum(
            (one[:, :, None] - other[:, None, :]) ** 2
            for one, other in zip(middle, there, strict=True)
        )
        # not a number counts as near, so that it shows in whatever uses the list
        near = jnp.where(square >= limit, jnp.uint32(0), bits)
        return (middle, shifted(following)), jnp.sum(near, axis=-1, dtype=jnp.uint32).reshape(-1)

    block = np.array(list(np.ndindex(*(2 * np.array(grid.reach) + 1))), np.int32)
    start = shifted(jnp.array(grid.reach, jnp.int32)), shifted(jnp.asarray(block[0]))
    _, words = lax.scan(word, start, jnp.asarray(np.roll(block, -1, axis=0)))
    absent = cells.place == grid.num_places
    words = lax.map(lambda line: jnp.where(absent, jnp.uint32(0), take(line, cells.row)), words)
    own = len(block) // 2
    itself = jnp.left_shift(jnp.uint32(1), (cells.place % room).astype(jnp.uint32))
    return words.at[own].set(words[own] & ~itself)


def _copies(grid: Grid) -> tuple[Int[np.ndarray, " cells"], Int[np.ndarray, "cells 3"]]:
    """For each grid cell with the copies: the one that it copies, and by which lattice vectors."""
    index = np.array(list(np.ndindex(*grid.extended)), np.int32) - np.array(grid.reach)
    images = np.floor_divide(index, np.array(grid.shape))
    original = np.ravel_multi_index(tuple((index - images * np.array(grid.shape)).T), grid.shape)
    # one more for the place of no atom
    return np.append(original, 0).astype(np.int32), np.append(images, [[0] * 3], axis=0).astype(
        np.int32
    )


def _place_step(grid: Grid, offset) -> Any:
    """How many grid cells (copies counted) further the one is that is `offset` away."""
    _, y, z = grid.extended
    return (offset[0] * y + offset[1]) * z + offset[2]


def _block_steps(grid: Grid) -> Callable[[Array], Array]:
    """Places from the corner of a block to the grid cell that has a number in it."""
    _, y, z = (2 * reach + 1 for reach in grid.reach)
    offset = lambda number: (number // (y * z), number // z % y, number % z)
    return lambda number: _place_step(grid, offset(number)) * grid.capacity
