"""The atoms of a whole cell from their descriptors; `levenberg` tells how.

That it works says that descriptors of this order determine the structure, up to what they cannot
see: a common translation, and a mirror image where the cell allows one.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.errors import GeometryError, InputError, OptionError
from jaxvae_md.generate.levenberg import SKIN, Options, solve
from jaxvae_md.neighbors import image_grid, neighbor_list
from jaxvae_md.structure import (
    Structure,
    check_geometry,
    check_species,
    perpendicular_widths,
    stack,
    unstack,
)

_MULTIPLE = 16
"""of which the capacity of a neighbor list is one"""
_MAX_ALLOCATIONS = 4
_NARROWEST, _DENSEST = 1.0, 1.0
"""cells below are no cells of atoms: width in angstrom, volume an atom in cubic angstrom"""


class Inverted(NamedTuple):
    """A cell found for its descriptors; leading axes as those of the start."""

    structure: Structure
    residual: Float[Array, "*b"]
    """mean square difference of the standardised descriptors from the target"""
    num_steps: Int[Array, "*b"]
    """of all attempts together; each computes one Jacobian"""
    attempt: Int[Array, "*b"]
    """which one found it: 0 from the start itself, 1, 2, ... from restarts"""
    error: Int[Array, "*b"]
    """error bits: NOT_FINITE, NOT_CONVERGED, NEIGHBOR_OVERFLOW, STALE_NEIGHBORS"""


def invert(
    descriptor: Chebyshev,
    target: Float[Array, "*b n f"],
    start: Structure,
    standardizer: Standardizer,
    *,
    key: Array | None = None,
    tolerance: float = 1e-12,
    num_steps: int = 240,
    num_restarts: int = 2,
    noise: float = 0.2,
) -> Inverted:
    """The cell whose atoms have the given descriptors, atom by atom, near a start.

    Cells of a batch are solved one after the other by the same compiled program, each with as
    many steps as it needs. The cell itself and the mean position of the atoms stay what they are.

    **Arguments:** `target` standardised descriptors of every atom; `start` with the atoms in the
    same order, in the same cell, and with a leading axis where `target` has one; `key` of the
    restarts' noise; `tolerance` of the residual; `num_steps` an attempt, beyond which it has half
    as many to settle; `noise` in angstrom for each coordinate.

    **Errors:** exact within rounding where it converges; use float64. What does not converge has
    NOT_CONVERGED set and is the best of all attempts: no solution. Of cells with 64 atoms of
    silicon melt all converge from Gaussian noise of 0.4 angstrom in each coordinate, 98 % from
    0.5 and three quarters from 0.6 (benchmarks/generation.py). A target that no cell has, as a
    model decodes it atom by atom, does not converge.

    **Raises:** `InputError` for shapes that do not belong together or values that are not finite;
    `SpeciesError` for species outside the descriptor's table; `GeometryError` for a singular cell
    or one too small for its atoms; `OptionError`; each names the cell of a batch as the frame.

    ```python
    target = standardizer.apply(descriptor(structure, neighbors))
    result = invert(descriptor, target, rattled, standardizer)
    errors.check(result.error)
    ```
    """
    options = _checked(Options(tolerance, num_steps, num_restarts, noise))
    batched = np.ndim(start.position) == 3
    target = np.asarray(target, start.position.dtype)
    targets = list(target) if batched and target.ndim else [target]
    starts = unstack(start) if np.ndim(start.position) in (2, 3) else []
    if not starts or len(targets) != len(starts):
        raise InputError(
            f"a target of shape {target.shape} for positions of shape {np.shape(start.position)}",
            remedy="give [n, f] and [n, 3], or the same number of cells before both",
        )
    for number, (one, wanted) in enumerate(zip(starts, targets, strict=True)):
        try:
            _check(descriptor, wanted, one, standardizer)
        except InputError as error:
            raise error.at(frame=number if batched else None) from None
    key = jax.random.key(0) if key is None else key
    scale = jax.tree.map(jnp.asarray, standardizer)
    fns = neighbor_list(descriptor.cutoff, SKIN)
    lists = [fns.allocate(one, extra=1.1, multiple=_MULTIPLE) for one in starts]
    # one capacity and the same images for all, which is compiled once
    capacity = max((one.index.shape[1] for one in lists), default=1)
    reach = [np.max(one.images, axis=0) for one in lists]
    images = image_grid(np.max(reach, axis=0, initial=0))
    found = []
    for number, (one, wanted) in enumerate(zip(starts, targets, strict=True)):
        own_key = jax.random.fold_in(key, number)
        for _ in range(_MAX_ALLOCATIONS):
            neighbors = fns.allocate(one, capacity=capacity, multiple=_MULTIPLE)
            neighbors = neighbors._replace(images=images)
            solved = solve(descriptor, options, wanted, one, neighbors, scale, own_key)
            if not int(solved.error) & errors.NEIGHBOR_OVERFLOW:
                break
            capacity = max(int(1.2 * int(solved.most)), capacity + 1)
            capacity = _MULTIPLE * -(-capacity // _MULTIPLE)
        position, *rest, _ = (np.asarray(leaf) for leaf in solved)
        found.append(Inverted(one._replace(position=position), *rest))
    if not batched:
        return found[0]
    structures = stack([one.structure for one in found])
    rest = (np.stack(leaves) for leaves in zip(*(one[1:] for one in found), strict=True))
    return Inverted(structures, *rest)


def _check(descriptor: Chebyshev, target, start: Structure, standardizer: Standardizer) -> None:
    """Of one cell, on the host."""
    num, f = len(start.position), descriptor.num_features
    if target.shape != (num, f):
        raise InputError(
            f"a target of shape {target.shape} for {num} atoms and {f} columns",
            remedy="give the standardised descriptors of every atom of the start",
        )
    if any(np.shape(part) != (f,) for part in standardizer):
        raise InputError(
            f"the standardizer has {len(standardizer.scale)} columns, the descriptor has {f}",
            remedy="fit it on this descriptor",
        )
    if not (np.isfinite(standardizer.mean).all() and _positive(standardizer.scale).all()):
        raise InputError(
            "the standardizer's mean is not finite or its scale is not positive",
            remedy="fit it on descriptors that are finite",
        )
    real = start.mask
    if not real.any():
        raise GeometryError("no atoms", remedy="give a start with the atoms of the cell")
    finite = np.isfinite(target).all(axis=1)
    if not finite[real].all():
        atom = int(np.argmax(real & ~finite))
        raise InputError("the target is not finite", atom=atom, remedy="look at what made it")
    check_species(start, descriptor.species)
    check_geometry(start)
    width = np.min(perpendicular_widths(start.cell)[start.pbc], initial=np.inf)
    room = abs(np.linalg.det(start.cell)) / real.sum() if start.pbc.all() else np.inf
    if width < _NARROWEST or room < _DENSEST:
        raise GeometryError(
            f"the cell is too small: {width:.3g} angstrom wide, "
            f"{room:.3g} cubic angstrom for each of {real.sum()} atoms",
            remedy="look at the units; repeat the cell",
        )


def _checked(options: Options) -> Options:
    for name, value in options._asdict().items():
        whole = name in ("num_steps", "num_restarts")
        least = 1 if name == "num_steps" else 0
        right = _is_a(value, int | np.integer if whole else int | float | np.number)
        if not (right and isfinite(value) and value >= least):
            kind = "a whole number" if whole else "a number"
            raise OptionError(f"{name} is {value!r}", remedy=f"give {kind}, {least} or more")
    return Options(
        float(options.tolerance), int(options.num_steps), int(options.num_restarts),
        float(options.noise),
    )  # fmt: skip


def _is_a(value: Any, kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _positive(scale) -> Bool[np.ndarray, " f"]:
    return np.isfinite(scale) & (np.asarray(scale) > 0)
