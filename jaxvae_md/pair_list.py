"""Sums over pairs of many atoms: the neighbor list of the fast path, for radial potentials.

As in `neighbors`, `allocate` runs on the host and `update` under jit; what differs is the layout.
Atoms are sorted by grid cell, neighbors are places in an array of coordinates that holds the
periodic copies too, and the list runs over neighbors first: a sum over pairs is then the same
few lines for all atoms at once, without images, and without a gather that misses the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.all_pairs import (
    UNROLLED,
    AllPairs,
    add_reduced,
    all_pair_sums,
    choose_images,
    is_strained,
    unrolled,
)
from jaxvae_md.cell_grid import (
    FAR,
    Cells,
    Grid,
    fill,
    most_neighbors,
    plan,
    search,
    spread,
    take,
    window,
)
from jaxvae_md.structure import Structure, check_geometry, unstack


class PairList(NamedTuple):
    """The neighbors of every atom as places of a grid; a pytree."""

    places: Int[Array, "k n"]
    """place of the k-th neighbor of each atom, atoms in the order of the grid's cells"""
    rank: Int[Array, " n"]
    """where each atom is in that order"""
    cells: Cells
    window: Float[Array, "2 3"]
    reference_position: Float[Array, "n 3"]
    reference_cell: Float[Array, "3 3"]
    overflow: Bool[Array, ""]
    """sticky: once set, pairs may be missing; allocate again on the host"""
    most: Int[Array, ""]
    """largest number of neighbors that any atom had since the list was allocated"""
    grid: Grid


class PairFns(NamedTuple):
    """`allocate` on the host, `update` under jit."""

    allocate: Callable[..., PairList | AllPairs | None]
    update: Callable[[Structure, Any], Any]
    cutoff: float
    skin: float


def pair_list(cutoff: float, skin: float) -> PairFns:
    """A list for sums over all pairs within `cutoff`, valid while atoms move within the `skin`.

    `allocate(structure, extra=1.05, capacity=1, thinnest=1.0)` returns `AllPairs` for few atoms,
    for which they are faster than a list, and None where no grid of cells serves the structure.
    `extra` is the room for more neighbors than there are, `thinnest` the share of its widths to
    which the cell may shrink. Lengths in angstrom.

    ```python
    fns = pair_list(cutoff=8.5, skin=1.0)
    pairs = fns.allocate(structure)
    pairs = jax.jit(fns.update)(moved, pairs)
    ```
    """
    radius = cutoff + skin

    def build(structure: Structure, grid: Grid, span, capacity: int):
        cells = fill(grid, structure, span, radius)
        coordinates = spread(grid, cells, structure.position, structure.cell)
        places, found = search(grid, cells, coordinates, radius, capacity)
        ranks = jnp.arange(len(cells.order), dtype=cells.order.dtype)
        rank = jnp.zeros_like(cells.order).at[cells.order].set(ranks)
        return cells, places, rank, found

    def count(structure: Structure, grid: Grid, span):
        """Neighbors of the atom that has most."""
        cells = fill(grid, structure, span, radius)
        coordinates = spread(grid, cells, structure.position, structure.cell)
        return most_neighbors(grid, cells, coordinates, radius)

    jit_build = jax.jit(build, static_argnums=(1, 3))
    jit_count = jax.jit(count, static_argnums=1)
    jit_build_each = jax.jit(jax.vmap(build, (0, None, 0, None)), static_argnums=(1, 3))
    jit_count_each = jax.jit(jax.vmap(count, (0, None, 0)), static_argnums=1)

    def allocate(
        structure: Structure, extra: float = 1.05, capacity: int = 1, thinnest: float = 1.0
    ) -> PairList | AllPairs | None:
        for system in unstack(structure):
            check_geometry(system)
        batched = np.ndim(structure.position) == 3
        # a cell on the move would outrun the images that were chosen for it
        images = choose_images(structure, cutoff) if thinnest == 1 else None
        on_device = jax.tree.map(jnp.asarray, structure)
        if images is not None:
            none = jnp.zeros(len(structure.position) if batched else (), bool)
            return AllPairs(
                reference_position=on_device.position,
                reference_cell=on_device.cell,
                overflow=none,
                most=none.astype(jnp.int32),
                grid=images,
            )
        grid = plan(structure, radius, room=extra, thinnest=thinnest)
        if grid is None:
            return None
        spans = np.stack([window(system) for system in unstack(structure)])
        span = jnp.asarray(spans if batched else spans[0], on_device.position.dtype)
        most = int(np.max((jit_count_each if batched else jit_count)(on_device, grid, span)))
        capacity = max(capacity, int(np.ceil(most * extra)), 1)
        capacity = UNROLLED * -(-capacity // UNROLLED)
        built = (jit_build_each if batched else jit_build)(on_device, grid, span, capacity)
        cells, places, rank, found = built
        return PairList(
            places=places,
            rank=rank,
            cells=cells,
            window=span,
            reference_position=on_device.position,
            reference_cell=on_device.cell,
            overflow=cells.overflow | (found > capacity),
            most=found,
            grid=grid,
        )

    def update(structure: Structure, pairs):
        structure = lax.stop_gradient(jax.tree.map(jnp.asarray, structure))
        if isinstance(pairs, AllPairs):
            return pairs._replace(overflow=pairs.overflow | is_strained(structure, pairs))
        capacity = pairs.places.shape[0]
        cells, places, rank, found = build(structure, pairs.grid, pairs.window, capacity)
        return pairs._replace(
            places=places,
            rank=rank,
            cells=cells,
            reference_position=structure.position,
            reference_cell=structure.cell,
            overflow=pairs.overflow | cells.overflow | (found > capacity),
            most=jnp.maximum(pairs.most, found),
        )

    return PairFns(allocate, update, cutoff, skin)


def pair_sums(
    structure: Structure,
    pairs: PairList | AllPairs,
    term: Callable[..., tuple[Array, ...]],
    num_terms: int,
    of_atom: Any = (),
    of_neighbor: Any = (),
    common: Any = (),
    lean: bool = True,
) -> tuple[Float[Array, " n"], ...]:
    """For every atom the sums over its neighbors of the terms of a pair; the core of the engine.

    **Arguments:** `term((dx, dy, dz), own, other, common)` returns `num_terms` arrays. It gets
    the components of x_i - x_j (angstrom), and of the pytrees of arrays `[n]`, in the order of the
    atoms, `of_atom` the atom's own and `of_neighbor` the neighbor's; `common` is what is the same
    for all. A term of much arithmetic is not `lean`: as `unrolled` has it.
    """
    if isinstance(pairs, AllPairs):
        return all_pair_sums(structure, pairs, term, num_terms, of_atom, of_neighbor, common)
    grid, cells = pairs.grid, pairs.cells
    coordinates = spread(grid, cells, structure.position, structure.cell)
    # an atom without a place is as far from the atoms as from the places that are empty
    absent = cells.place == grid.num_places
    here = tuple(jnp.where(absent, -FAR, take(c, cells.place)) for c in coordinates)
    own = jax.tree.map(lambda leaf: take(leaf, cells.order), of_atom)
    others = jax.tree.map(lambda leaf: take(jnp.append(leaf, 0), cells.atom), of_neighbor)
    dtype = structure.position.dtype

    @jax.custom_batching.custom_vmap
    def sums(coordinates, here, places, own, others, common):
        def some(total, places):
            vector = tuple(x - take(c, places) for x, c in zip(here, coordinates, strict=True))
            other = jax.tree.map(lambda leaf: take(leaf, places), others)
            return add_reduced(total, term(vector, own, other, common))

        def pass_over(number, total):
            return some(total, lax.dynamic_slice_in_dim(places, number * size, size))

        size, total = unrolled(num_terms, lean), (jnp.zeros(here[0].shape, dtype),) * num_terms
        num_passes, rest = divmod(len(places), size)
        total = lax.fori_loop(0, num_passes, pass_over, total)
        return some(total, places[-rest:]) if rest else total

    @sums.def_vmap
    def _(axis_size, in_batched, *arguments):
        """All systems end to end, as one."""
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        if any(jax.tree.leaves(in_batched[-1])):
            return jax.vmap(sums.fun, axes)(*arguments), (True,) * num_terms
        *systems, common = jax.tree.map(
            lambda leaf, batched: leaf if batched else jnp.stack([leaf] * axis_size),
            arguments,
            tuple(in_batched),
        )
        coordinates, here, places, own, others = systems
        first = coordinates[0].shape[1] * jnp.arange(axis_size, dtype=places.dtype)
        places = jnp.moveaxis(places + first[:, None, None], 0, 1).reshape(places.shape[1], -1)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1), (coordinates, here, own, others))
        total = sums(*flat[:2], places, *flat[2:], common)
        return tuple(t.reshape(axis_size, -1) for t in total), (True,) * num_terms

    total = sums(coordinates, here, pairs.places, own, others, common)
    return tuple(take(t, pairs.rank) for t in total)
