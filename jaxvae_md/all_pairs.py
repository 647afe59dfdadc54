"""Sums over all pairs of few atoms: no neighbor list, and every periodic image that may matter.

Of two atoms the nearest image along each lattice vector comes first, by rounding the difference
of their fractions; the others that can be within the cutoff are few, and known from the cell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.structure import Structure, inverse_cell, perpendicular_widths, unstack

UNROLLED = 4
"""pairs of an atom summed in one pass: few enough for the compiler to unroll, so that it
vectorises over atoms"""

_MOST_TERMS = {4: 300, 8: 190}
"""images of all atoms, by the bytes of a number; more are slower than a list, as measured on a
CPU"""

STRAIN = 0.05
"""by which the cell may differ from the one that the images were chosen for"""

_FAR = 1e6


@jax.tree_util.register_static
@dataclass(frozen=True)
class Images:
    """Lattice steps from the nearest image, counted against its side: (1, 0, 0) is the next one
    along the first vector on the other side of the atom."""

    steps: tuple[tuple[int, int, int], ...]
    """the first is (0, 0, 0)"""
    extent: tuple[int, int, int]
    """lattice vectors that the cutoff reaches over"""
    along_axes: bool
    """whether lattice vectors are along x, y and z: less to compute"""


class AllPairs(NamedTuple):
    """In place of a neighbor list; a pytree."""

    reference_position: Float[Array, "n 3"]
    reference_cell: Float[Array, "3 3"]
    """the cell that the images were chosen for"""
    overflow: Bool[Array, ""]
    """sticky: the cell became another one, and images may be missing"""
    most: Int[Array, ""]
    grid: Images


def choose_images(structure: Structure, cutoff: float) -> Images | None:
    """The images within the cutoff (angstrom) of any two atoms; on the host.

    None where there are so many atoms and images that a list is faster. A leading axis of systems
    gets the same images for all.
    """
    steps: set[tuple[int, int, int]] = set()
    extent, along_axes = np.zeros(3, int), True
    for system in unstack(structure):
        cell, pbc = np.asarray(system.cell, np.float64), system.pbc
        widths = (1 - STRAIN) * perpendicular_widths(cell)
        needed = np.where(pbc, np.ceil(cutoff / widths), 0).astype(int)
        if np.prod(2 * needed + 1) * len(pbc) > 1e4:
            return None
        extent = np.maximum(extent, needed)
        along_axes &= not (cell * (1 - np.eye(3))).any()
        gram = cell @ cell.T
        right_angles = np.allclose(gram, np.diag(np.diag(gram)), atol=1e-9 * np.max(gram))
        for index in np.ndindex(*(2 * needed + 1)):
            step = np.array(index) - needed
            # the fraction of the nearest image is between 0 and 1/2 on its side
            apart = np.maximum(np.maximum(step - 0.5, -step), 0) * widths
            nearest = np.linalg.norm(apart) if right_angles else apart.max()
            if nearest < cutoff:
                steps.add(tuple(int(s) for s in step))  # pyright: ignore
    num, width = np.shape(structure.position)[-2], np.dtype(structure.position.dtype).itemsize
    if num * len(steps) > _MOST_TERMS[max(4, width)]:
        return None
    ordered = sorted(steps, key=lambda step: (np.abs(step).sum(), step))
    return Images(tuple(ordered), tuple(int(n) for n in extent), bool(along_axes))  # pyright: ignore


def is_strained(structure: Structure, pairs: AllPairs) -> Bool[Array, ""]:
    """Whether the cell differs so much from the reference that images may be missing."""
    change = lax.stop_gradient(structure.cell) - pairs.reference_cell
    strain = inverse_cell(pairs.reference_cell) @ change
    # written so that what is not a number counts as strained
    strained = ~(jnp.sqrt(jnp.sum(strain**2)) <= STRAIN)
    if not pairs.grid.along_axes:
        return strained
    return strained | jnp.any((structure.cell != 0) & ~np.eye(3, dtype=bool))


def unrolled(num_terms: int, lean: bool = True) -> int:
    """`UNROLLED`, or fewer where a pair has so much code that the compiler would not.

    ```python
    unrolled(3)  # 4
    ```
    """
    return UNROLLED if num_terms <= 4 and lean else UNROLLED - 1


def add(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
    """The sums of two tuples' items."""
    return tuple(a + b for a, b in zip(left, right, strict=True))


def add_reduced(total: tuple[Array, ...], terms: tuple[Array, ...]) -> tuple[Array, ...]:
    """The total and the sums of the terms over their first axis.

    One reduction of all terms: XLA makes a single loop of it, while for each sum apart it computes
    the pair anew or keeps it in memory.
    """
    zeros = (np.zeros((), terms[0].dtype),) * len(terms)
    return add(total, lax.reduce(terms, zeros, add, (0,)))


def all_pair_sums(
    structure: Structure,
    pairs: AllPairs,
    term: Callable[..., tuple[Array, ...]],
    num_terms: int,
    of_atom: Any = (),
    of_neighbor: Any = (),
    common: Any = (),
) -> tuple[Float[Array, " n"], ...]:
    """As `pair_list.pair_sums`, over all pairs."""
    num = structure.position.shape[0]
    dtype = structure.position.dtype
    cell = structure.cell
    fraction = structure.position @ inverse_cell(cell)
    here = [fraction[:, k] for k in range(3)]
    itself = jnp.arange(num, dtype=jnp.int32)

    def images_of(apart, side, steps):
        """The components of x_i - x_j for each of some images."""
        if pairs.grid.along_axes:
            # what images have in common along an axis is computed once
            along = functools.cache(
                lambda d, n: (apart[d] - n * side[d] if n else apart[d]) * cell[d, d]
            )
            return [[along(d, step[d]) for d in range(3)] for step in steps]
        there = [[f - n * s for f, n, s in zip(apart, step, side, strict=True)] for step in steps]
        return [[sum(f[d] * cell[d, k] for d in range(3)) for k in range(3)] for f in there]

    def some(steps, total, others):
        there, other, mask, atom = others
        other = jax.tree.map(lambda leaf: leaf[:, None], other)
        apart = [f - t[:, None] for f, t in zip(here, there, strict=True)]
        turns = [jnp.where(structure.pbc[d], jnp.round(f), 0) for d, f in enumerate(apart)]
        apart = [f - t for f, t in zip(apart, turns, strict=True)]
        side = [jnp.where(f < 0, -1, 1).astype(dtype) for f in apart]
        # an atom meets its images, and not itself
        hidden = {False: ~mask[:, None], True: ~mask[:, None] | (itself == atom[:, None])}
        images = []
        for step, (x, y, z) in zip(steps, images_of(apart, side, steps), strict=True):
            x = jnp.where(hidden[not any(step)], jnp.asarray(_FAR, dtype), x)
            images.append(term((x, y, z), of_atom, other, common))
        return add_reduced(total, functools.reduce(add, images)), None

    total = (jnp.zeros(num, dtype),) * num_terms
    most = unrolled(num_terms)
    for first in range(0, len(pairs.grid.steps), most):
        steps = pairs.grid.steps[first : first + most]
        # the fewer images, the more atoms in one pass
        size = max(2, most // len(steps))
        padded = lambda values, size=size: jnp.pad(values, (0, -num % size)).reshape(-1, size)
        others = jax.tree.map(padded, (here, of_neighbor, structure.mask, itself))
        total, _ = lax.scan(functools.partial(some, steps), total, others)
    return tuple(jnp.where(structure.mask, t, 0) for t in total)
