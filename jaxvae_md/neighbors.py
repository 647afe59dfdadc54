"""Padded neighbor lists with image shifts: allocated on the host, updated under jit.

Every periodic image within the cutoff is its own neighbor, so small and skewed cells are right by
construction, and stress is a plain gradient with respect to strain.
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
from jaxvae_md.cell_grid import Grid, as_rows, fill, plan, search, spread, window
from jaxvae_md.errors import OptionError, RunError
from jaxvae_md.structure import (
    Structure,
    check_geometry,
    inverse_cell,
    perpendicular_widths,
    unstack,
)

_MANY = 500
"""atoms from which on a grid of cells is worth its compilation"""

_FEW = (4, 8)
"""slots of an atom for which `by_fewest_slots` has a program of its own"""

FAR = 1e3
"""Distance (angstrom) at which padded slots are put: beyond every cutoff, and not singular."""


class NeighborList(NamedTuple):
    """The neighbors of each atom, padded; capacity is static in the shapes."""

    index: Int[Array, "*b n k"]
    """neighbor j of each atom"""
    shift: Int[Array, "*b n k 3"]
    """lattice image of j: r_ij = x_j + shift @ cell - x_i, for unwrapped positions"""
    mask: Bool[Array, "*b n k"]
    reference_position: Float[Array, "*b n 3"]
    """where the list was built; an atom further than half the skin from here makes it stale"""
    reference_cell: Float[Array, "*b 3 3"]
    images: Int[Array, "*b m 3"]
    """lattice translations that `update` searches"""
    overflow: Bool[Array, "*b"]
    """sticky: once set, pairs may be missing; allocate again on the host"""
    most: Int[Array, "*b"]
    """largest number of neighbors that any atom had since the list was allocated"""
    window: Float[Array, "*b 2 3"]
    """what the grid spans, where there is one"""
    grid: Grid | None = None
    """of many atoms: `update` then takes a time that is linear in their number"""


class NeighborFns(NamedTuple):
    """`allocate` on the host, `update` under jit, as in jax-md."""

    allocate: Callable[..., NeighborList]
    update: Callable[[Structure, NeighborList], NeighborList]
    cutoff: float
    skin: float


def displacements(
    structure: Structure, neighbors: NeighborList, atoms: Int[Array, " a"] | None = None
) -> Float[Array, "n k 3"]:
    """Vectors r_ij (angstrom) to every neighbor, differentiable in position and cell.

    Padded slots hold a constant vector of length `FAR`: finite, beyond every cutoff, without
    gradient. Whatever vanishes beyond its cutoff needs no further mask.

    **Arguments:** `atoms` picks some centres, by default all.

    ```python
    distance = jnp.linalg.norm(displacements(structure, neighbors), axis=-1)
    ```
    """
    position = center = jnp.asarray(structure.position)
    index, lattice, mask = map(jnp.asarray, (neighbors.index, neighbors.shift, neighbors.mask))
    if atoms is not None:
        index, lattice, mask, center = index[atoms], lattice[atoms], mask[atoms], center[atoms]
    shift = lattice.astype(position.dtype) @ structure.cell
    vector = position[index] + shift - center[:, None]
    far = jnp.array([FAR, 0.0, 0.0], position.dtype)
    return jnp.where(mask[..., None], vector, far)


def neighbor_species(
    structure: Structure, neighbors: NeighborList, atoms: Int[Array, " a"] | None = None
) -> Int[Array, "n k"]:
    """Species of every neighbor, beside `displacements`; padded slots hold some valid species."""
    index = jnp.asarray(neighbors.index)
    return jnp.asarray(structure.species)[index if atoms is None else index[atoms]]


def by_fewest_slots(
    function: Callable[[NeighborList], Any], neighbors: NeighborList, keep: Bool[Array, "n k"]
) -> Any:
    """`function` of the list of the neighbors to `keep`, with no more slots than they need.

    For sums over pairs of neighbors, where every slot costs: a list with a skin has many that
    are empty or out of reach. There is a program of its own for 4, for 8 and for all slots; which
    one runs is decided under jit. The function uses index, shift and mask.

    ```python
    energy = by_fewest_slots(lambda n: three_body(structure, n), neighbors, distance < 3.0)
    ```
    """
    keep = lax.stop_gradient(keep)
    levels = [size for size in _FEW if size < keep.shape[1]]
    shorter = [lambda size=size: function(_shortened(neighbors, keep, size)) for size in levels]
    kept = neighbors._replace(mask=neighbors.mask & keep)
    branches = [*shorter, lambda: function(kept)]
    level = jnp.sum(jnp.max(jnp.sum(keep, axis=1)) > jnp.array(levels, int))
    # recomputed for a derivative: what all branches would keep for it is more than they use
    return lax.switch(level, [jax.checkpoint(branch) for branch in branches])


def _shortened(neighbors: NeighborList, keep, capacity: int) -> NeighborList:
    """The list of the first `capacity` neighbors to keep."""
    num, size = keep.shape
    place = jnp.arange(capacity, dtype=jnp.int32)[:, None]

    # all atoms at once, a slot after the other: several times faster than sorting
    def next_slot(k, carry):
        found, slot = carry
        return found + keep[:, k], jnp.where((found == place) & keep[:, k], k, slot)

    start = jnp.zeros(num, jnp.int32), jnp.zeros((capacity, num), jnp.int32)
    found, slot = lax.fori_loop(0, size, next_slot, start)
    pick = lambda leaf: jnp.take_along_axis(jnp.asarray(leaf), slot.T, axis=1)
    return neighbors._replace(
        index=pick(neighbors.index),
        shift=jnp.take_along_axis(jnp.asarray(neighbors.shift), slot.T[..., None], axis=1),
        mask=pick(neighbors.mask) & (found[:, None] > place.T),
    )


def neighbor_list(cutoff: float, skin: float = 0.0) -> NeighborFns:
    """A neighbor list of all pairs within `cutoff + skin` (angstrom).

    `allocate(structure, extra=1.0, capacity=1)` runs on the host and decides the capacity (the
    largest count times `extra`, at least `capacity`, rounded up to a `multiple` so that similar
    structures share what is compiled); `update(structure, neighbors)` builds the
    list again for new positions in the same shapes and sets `overflow` when they do not suffice;
    `is_stale` tells when an atom moved more than half the skin. **Raises:** `OptionError`.

    ```python
    fns = neighbor_list(cutoff=6.0, skin=0.5)
    neighbors = fns.allocate(structure)
    neighbors = jax.jit(fns.update)(moved, neighbors)
    check_complete(neighbors)
    ```
    """
    if not (np.isfinite(cutoff) and cutoff >= 0 and np.isfinite(skin) and skin >= 0):
        raise OptionError(
            f"cutoff is {cutoff}, skin is {skin}", remedy="give lengths in angstrom, 0 or more"
        )
    radius = cutoff + skin

    def allocate(
        structure: Structure, extra: float = 1.0, capacity: int = 1, multiple: int = 1
    ) -> NeighborList:
        real = np.asarray(structure.mask)
        i, j, shift = host_pairs(structure, radius)
        count = np.bincount(i, minlength=len(real))
        capacity = max(capacity, int(np.ceil(count.max(initial=0) * extra)))
        capacity = multiple * -(-capacity // multiple)
        slot = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
        index = np.zeros((len(real), capacity), np.int32)
        shifts = np.zeros((len(real), capacity, 3), np.int32)
        mask = np.zeros((len(real), capacity), bool)
        index[i, slot], shifts[i, slot], mask[i, slot] = j, shift, True
        return NeighborList(
            index=index,
            shift=shifts,
            mask=mask,
            reference_position=np.array(structure.position),
            reference_cell=np.array(structure.cell),
            images=image_grid(_extent(structure, radius)),
            overflow=np.zeros((), bool),
            most=np.array(count.max(initial=0), np.int32),
            window=np.asarray(window(structure), np.asarray(structure.position).dtype),
            grid=plan(structure, radius, max(1.05, extra)) if real.sum() >= _MANY else None,
        )

    def update(structure: Structure, neighbors: NeighborList) -> NeighborList:
        structure, neighbors = jax.tree.map(jnp.asarray, (structure, neighbors))
        structure = lax.stop_gradient(structure)
        if neighbors.grid is not None:
            return with_grid(structure, neighbors, neighbors.grid)
        position, cell, pbc = structure.position, structure.cell, structure.pbc
        num, capacity = neighbors.index.shape
        images = neighbors.images
        inverse = jnp.linalg.inv(cell)
        # a batch shares its images; a direction that is not periodic has none
        allowed = jnp.all((images == 0) | pbc, axis=-1)
        # pairs are searched between atoms wrapped into the cell; the shift undoes the wrapping
        wrap = jnp.where(pbc, jnp.floor(position @ inverse), 0).astype(jnp.int32)
        wrapped = position - wrap @ cell
        real = structure.mask

        def chosen(near, j, shift):
            (pair,) = jnp.nonzero(near.reshape(-1), size=capacity, fill_value=0)
            found = jnp.sum(near)
            return j(pair), shift(pair), jnp.arange(capacity) < found, found

        def of_all_images(i):
            vector = wrapped[:, None] + images @ cell - wrapped[i]
            # not a number counts as near, so that it shows in whatever uses the list
            near = ~(jnp.sum(vector**2, axis=-1) >= radius**2) & allowed
            near &= ~(jnp.all(images == 0, axis=-1) & (jnp.arange(num) == i)[:, None])
            near &= real[:, None] & real[i]
            atom = lambda pair: pair // len(images)
            lattice = lambda pair: images[pair % len(images)] - wrap[atom(pair)] + wrap[i]
            return chosen(near, atom, lattice)

        def of_nearest_images(i):
            vector = wrapped - wrapped[i]
            nearest = jnp.where(pbc, -jnp.round(vector @ inverse), 0).astype(jnp.int32)
            near = ~(jnp.sum((vector + nearest @ cell) ** 2, axis=-1) >= radius**2)
            near &= (jnp.arange(num) != i) & real & real[i]
            return chosen(near, lambda j: j, lambda j: nearest[j] - wrap[j] + wrap[i])

        def rows(row):
            return lambda: lax.map(row, jnp.arange(num), batch_size=min(num, 64))

        widths = perpendicular_widths(cell)
        wide = jnp.all(~pbc | (2 * radius < widths))
        index, shift, mask, found = lax.cond(wide, rows(of_nearest_images), rows(of_all_images))
        needed = jnp.where(pbc, jnp.ceil(radius / widths), 0)
        too_thin = jnp.any(needed > jnp.max(images, axis=0))
        return neighbors._replace(
            index=index.astype(neighbors.index.dtype),
            shift=jnp.where(mask[..., None], shift, 0).astype(neighbors.shift.dtype),
            mask=mask,
            reference_position=position,
            reference_cell=cell,
            overflow=neighbors.overflow | jnp.any(found > capacity) | too_thin,
            most=jnp.maximum(neighbors.most, jnp.max(found, initial=0)).astype(jnp.int32),
        )

    def with_grid(structure: Structure, neighbors: NeighborList, grid: Grid) -> NeighborList:
        capacity = neighbors.index.shape[1]
        cells = fill(grid, structure, neighbors.window, radius)
        coordinates = spread(grid, cells, structure.position, structure.cell)
        places, found = search(grid, cells, coordinates, radius, capacity)
        index, shift, mask = as_rows(grid, cells, places)
        return neighbors._replace(
            index=index.astype(neighbors.index.dtype),
            shift=shift.astype(neighbors.shift.dtype),
            mask=mask,
            reference_position=structure.position,
            reference_cell=structure.cell,
            overflow=neighbors.overflow | cells.overflow | (found > capacity),
            most=jnp.maximum(neighbors.most, found),
        )

    return NeighborFns(allocate, update, cutoff, skin)


def allocate_systems(
    fns: NeighborFns,
    structure: Structure,
    *,
    extra: float = 1.0,
    grid_room: float = 1.05,
    capacity: int = 1,
    thinnest: float = 1.0,
    multiple: int = 1,
) -> NeighborList:
    """The list of a structure, or of several along a leading axis in shapes that they share.

    **Arguments:** `extra`, `capacity` and `multiple` as in `allocate`; `grid_room` for `extra` in
    the cells of a grid; the list serves until a cell has shrunk to `thinnest` of its widths.

    ```python
    neighbors = allocate_systems(neighbor_list(6.0), stack([one, other]), extra=1.2)
    ```
    """
    systems = unstack(structure)
    options = {"capacity": capacity, "multiple": multiple}
    lists = [fns.allocate(system, extra=extra, **options) for system in systems]
    if len(systems) > 1:
        capacity = max(one.index.shape[1] for one in lists)
        lists = [fns.allocate(system, capacity=capacity) for system in systems]
    radius = fns.cutoff + fns.skin
    extents = [_extent(system, radius, thinnest) for system in systems]
    images = image_grid(np.max(extents, axis=0))
    grid = plan(structure, radius, grid_room, thinnest) if lists[0].grid else None
    lists = [one._replace(images=images, grid=grid) for one in lists]
    if np.ndim(structure.position) == 2:
        return lists[0]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *lists)


def check_complete(neighbors: NeighborList) -> None:
    """Raises `RunError` on the host when pairs may be missing: `update` cannot raise under jit.

    ```python
    check_complete(jax.jit(fns.update)(moved, neighbors))
    ```
    """
    if not np.any(neighbors.overflow):
        return
    capacity, most = neighbors.index.shape[-1], int(np.max(neighbors.most))
    reach = np.max(np.asarray(neighbors.images).reshape(-1, 3), axis=0, initial=0).tolist()
    raise RunError(
        f"an atom has {most} neighbors, and the list has room for {capacity}"
        if most > capacity
        else f"the cell became too thin for the {reach} images that the list searches",
        remedy=f"allocate it again from these positions, with capacity={most} or more",
    )


def is_stale(
    structure: Structure, neighbors: NeighborList, skin: float, cutoff: float | None = None
) -> Bool[Array, ""]:
    """Whether a list that was built with `skin` (angstrom) may miss a pair.

    That is once an atom moved more than half the skin since, or the cell changed at all. With
    `cutoff` (angstrom) a change of the cell only uses up its share of the skin, so that a list
    serves a cell that breathes.

    ```python
    neighbors = lax.cond(is_stale(s, neighbors, 0.5), fns.update, lambda s, n: n, s, neighbors)
    ```
    """
    position, cell, origin, old_cell = lax.stop_gradient(
        (structure.position, structure.cell, neighbors.reference_position, neighbors.reference_cell)
    )
    moved, slack = position - origin, skin
    if cutoff is None:
        strained = jnp.any(cell != old_cell)
    else:
        # cell = old_cell @ (1 + strain); a pair beyond cutoff + skin then keeps a distance of at
        # least (1 - |strain|) (cutoff + skin) - 2 max |moved|, which must reach the cutoff
        strain = inverse_cell(old_cell) @ (cell - old_cell)
        moved = moved - origin @ strain
        slack = skin - jnp.sqrt(jnp.sum(strain**2)) * (cutoff + skin)
        strained = ~(slack >= 0)
    square = jnp.sum(moved**2, axis=-1)
    # written so that a position that is not a number counts as moved
    within = jnp.max(jnp.where(structure.mask, square, 0)) <= (0.5 * slack) ** 2
    return ~within | strained


def host_pairs(structure: Structure, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs within `radius` (angstrom) as (i, j, shift), sorted by i; computed by vesin.

    **Raises:** `GeometryError` for a singular cell or positions that are not finite.

    ```python
    i, j, shift = host_pairs(from_atoms(atoms, ("Si",)), radius=3.0)
    ```
    """
    from vesin import NeighborList as Vesin

    check_geometry(structure)
    real = np.asarray(structure.mask)
    position = np.asarray(structure.position, np.float64)[real]
    cell, pbc = np.asarray(structure.cell, np.float64), np.asarray(structure.pbc)
    if radius <= 0:
        return np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), np.int32)
    search = Vesin(cutoff=radius, full_list=True, sorted=True)
    i, j, shift = search.compute(position, cell, pbc, "ijS")
    atoms = np.nonzero(real)[0]
    return atoms[i], atoms[j], shift.astype(np.int32)


def joined(
    structure: Structure, start: Bool[np.ndarray, " n"], radius: float
) -> Int[np.ndarray, " n"]:
    """The group of each atom by chains of pairs within `radius` (angstrom); 0 with those of start.

    ```python
    gas = joined(structure, fixed, radius=3.5) > 0
    ```
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num = len(structure.mask)
    i, j, _ = host_pairs(structure, radius)
    _, group = connected_components(coo_array((np.ones(len(i), bool), (i, j)), (num, num)))
    return np.where(np.isin(group, group[start]), 0, 1 + group)


def image_grid(extent: np.ndarray) -> np.ndarray:
    """All lattice translations up to `extent` along each axis, as `[m, 3]`."""
    axes = [np.arange(-n, n + 1) for n in extent]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int32)


def _extent(structure: Structure, radius: float, thinnest: float = 1.0) -> np.ndarray:
    """How many cells away a neighbor of an atom wrapped into the cell can be."""
    widths = thinnest * perpendicular_widths(np.asarray(structure.cell, np.float64))
    return np.where(structure.pbc, np.ceil(radius / widths), 0).astype(int)
