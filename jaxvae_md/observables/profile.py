"""Profiles of density across a film, and how thick it is, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import GeometryError, OptionError
from jaxvae_md.neighbors import joined
from jaxvae_md.observables.frames import checked_edges, frames, one_frame
from jaxvae_md.observables.inputs import check_positive, check_species
from jaxvae_md.observables.local_structure import count_species
from jaxvae_md.structure import Structure


class Film(NamedTuple):
    """What has grown on a base."""

    thickness: float
    """angstrom above the base"""
    num_atoms: Int[np.ndarray, " s"]
    """atoms of each species in the film"""
    num_gas: Int[np.ndarray, " s"]
    """atoms of each species that touch neither the film nor what is below"""


def density_profile(
    structure: Structure,
    edges: Float[Array, " edges"],
    axis: int = 2,
    species: int | None = None,
) -> Float[np.ndarray, " slices"]:
    """Number density in slices across the cell, of one structure or the mean of many frames.

    Not differentiable. Frames are given as in `rdf_histogram`: each has its own area when its cell
    varies. Where the axis is periodic every image counts, so that the edges may lie anywhere; where
    it is not, what is outside the edges is not counted. An atom at an edge is in the slice above.

    **Arguments:** `edges` of the slices in angstrom, ascending, along the Cartesian `axis`
    (0, 1, 2); `species` counts its atoms only.
    **Returns:** atoms per cubic angstrom. **Raises:** `GeometryError` when the cell's two other
    vectors are not periodic or not perpendicular to the axis; `OptionError`, `SpeciesError`,
    `InputError`.

    ```python
    density = density_profile(structure, np.linspace(0, 20, 41))
    ```
    """
    edges = checked_edges(edges)
    whole = frames(structure, remedy="call it outside, on the host")
    check_species(None if species is None else (species,), 1, whole.species, whole.mask)
    density = np.zeros(len(edges) - 1)
    for frame in map(Structure, *whole):
        area, height = _area(frame, axis), abs(frame.cell[axis, axis])
        wanted = frame.mask if species is None else frame.mask & (frame.species == species)
        z = frame.position[wanted, axis]
        if frame.pbc[axis]:
            # one image more at both ends: rounding may wrap an atom to the other one
            images = np.arange(-1, np.ceil((edges[-1] - edges[0]) / height) + 1)
            z = edges[0] + (z - edges[0]) % height + height * images[:, None]
        below = np.searchsorted(np.sort(z, axis=None), edges)
        density += np.diff(below) / (area * np.diff(edges))
    return density / len(whole.mask)


def film(
    structure: Structure, base: float, axis: int = 2, cutoff: float = 3.5, width: float = 1.0
) -> Film:
    """Thickness and composition of what has grown above a base, in one structure.

    Gas is told from film by contact: an atom is gas when no chain of steps shorter than `cutoff`
    leads from it to the base or to anything below. Whatever else is above the base is film,
    adsorbed atoms too.

    The film's top is where the laterally averaged density of its atoms, smoothed by a Gaussian,
    falls to half of its interior value for the last time: Gibbs's dividing surface wherever it
    falls symmetrically, and half a layer above the last one of a crystal. The interior value is
    the median over all heights at which the density is more than half of its maximum. Smoothing
    joins layers that are up to 3.7 widths apart. A single layer is taken to end 1.4 widths above
    its atoms, however few they are: look at `num_atoms` until there are two layers or so.

    Heights are positions as they are, never wrapped: a film must not be cut by the cell's face.

    **Arguments:** `base` in angstrom along the Cartesian `axis` (0, 1, 2): the top of the
    substrate; for full layers put it half a layer below the film's first. `cutoff` of a contact
    and `width`, the Gaussian's standard deviation, in angstrom.
    **Returns:** a `Film`; thickness 0 when nothing is on the base. **Raises:** `GeometryError` when
    the cell's two other vectors are not periodic or not perpendicular to the axis; `OptionError`,
    `InputError`.

    ```python
    thickness, num_atoms, num_gas = film(structure, base=4.5)
    ```
    """
    frame = one_frame(structure)
    _area(frame, axis)
    check_positive("cutoff", cutoff)
    check_positive("width", width)
    if not np.isfinite(base):
        raise OptionError(f"base is {base}", remedy="give a height in angstrom")
    # what leaves through the top is not on the lower side
    frame = frame._replace(pbc=np.where(np.arange(3) == axis, False, frame.pbc))
    height, real = np.asarray(frame.position)[:, axis] - base, np.asarray(frame.mask)
    above = real & (height > 0)
    reach = float(np.nextafter(cutoff, np.inf))
    touching = joined(frame, real & (height <= cutoff), reach) == 0
    num = count_species(frame)
    counts = (
        np.bincount(frame.species[some], minlength=num)
        for some in (above & touching, above & ~touching)
    )
    return Film(_thickness(frame, above & touching, base, axis, width), *counts)


def _thickness(
    frame: Structure, atoms: Bool[np.ndarray, " n"], base: float, axis: int, width: float
) -> float:
    if not atoms.any():
        return 0.0
    step = width / 20
    # the Gaussian ends at 5 widths, and so does the profile, at both ends
    reach = 5 * width
    highest = float(np.asarray(frame.position)[atoms, axis].max())
    edges = np.arange(base - reach, highest + reach + 2 * step, step)
    density = density_profile(frame._replace(mask=atoms), edges, axis)
    kernel = np.exp(-0.5 * (np.arange(-100, 101) / 20) ** 2)
    density = np.convolve(density, kernel / kernel.sum(), mode="same")
    interior = np.median(density[density > 0.5 * density.max()])
    last = np.flatnonzero(density >= 0.5 * interior)[-1]
    here, after = density[last : last + 2]
    part = (here - 0.5 * interior) / (here - after)
    return float(edges[last] + (0.5 + part) * step - base)


def _area(frame: Structure, axis: int) -> float:
    """Square angstrom across the axis."""
    if axis not in (0, 1, 2):
        raise OptionError(f"axis is {axis!r}", remedy="give 0, 1 or 2 for x, y or z")
    others = [k for k in range(3) if k != axis]
    one, other = frame.cell[others]
    if not frame.pbc[others].all():
        raise GeometryError(
            f"pbc is {frame.pbc.tolist()}, so that no area is across {'xyz'[axis]}",
            remedy="give a cell that is periodic in the two other directions",
        )
    lengths = np.linalg.norm(frame.cell[others], axis=-1)
    if (np.abs(frame.cell[others, axis]) > 1e-6 * lengths).any():
        raise GeometryError(
            f"the cell's vectors {one.tolist()} and {other.tolist()} are not across {'xyz'[axis]}",
            remedy="turn the structure, or take another axis",
        )
    return float(np.linalg.norm(np.cross(one, other)))
