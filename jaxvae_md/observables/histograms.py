"""Distributions of distances and angles by exact counting, over many frames on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import GeometryError
from jaxvae_md.observables.frames import checked_edges, frames, pairs_within
from jaxvae_md.observables.inputs import check_periodic, check_positive, check_species
from jaxvae_md.structure import Structure


class Histogram(NamedTuple):
    """A distribution in bins."""

    center: Float[np.ndarray, " bins"]
    """middles of the bins, in the unit of the edges"""
    value: Float[np.ndarray, " bins"]
    """g(r), dimensionless, or the density of angles, 1/radian; mean over each bin"""
    count: Int[np.ndarray, " bins"]
    """pairs (every one from both ends) or angles (once) in all frames"""


def rdf_histogram(
    structure: Structure, edges: Float[Array, " edges"], pair: tuple[int, int] | None = None
) -> Histogram:
    """Radial distribution function of many frames: exact counts over the volume of each shell.

    Not differentiable, and on the host: `radial_distribution` is the soft one. The frames share
    what they have in common, so that a trajectory of fixed or of variable cell is
    `structure._replace(position=trajectory.position, cell=trajectory.cell)`. Counts of all frames
    are divided by those of ideal gases in the same cells, N_a N_b / V per volume, so that a cell
    and its supercell have the same function. Every periodic image counts: r may exceed the cell.

    **Arguments:** `edges` of the bins in angstrom, ascending; `pair` (a, b) of species: only of
    atoms b around atoms a. **Raises:** `GeometryError` for a cell that is not periodic, which has
    no density; `OptionError`, `SpeciesError`, `InputError`.

    ```python
    r, g, count = rdf_histogram(structure, np.linspace(0, 8, 161))
    ```
    """
    edges = checked_edges(edges, 0.0)
    check_periodic(structure)
    count, ideal = np.zeros(len(edges) - 1, int), 0.0
    for frame in _frames(structure, pair, 2):
        i, j, vector = pairs_within(frame, edges[-1])
        center = end = frame.mask
        if pair is not None:
            center, end = (frame.mask & (frame.species == kind) for kind in pair)
            both = center[i] & end[j]
            vector = vector[both]
        count += np.histogram(np.linalg.norm(vector, axis=-1), edges)[0]
        ideal += center.sum() * end.sum() / abs(np.linalg.det(frame.cell))
    shell = 4 * np.pi / 3 * np.diff(edges**3)
    return Histogram(0.5 * (edges[1:] + edges[:-1]), count / (ideal * shell), count)


def adf_histogram(
    structure: Structure,
    edges: Float[Array, " edges"],
    cutoff: float,
    triple: tuple[int, int, int] | None = None,
) -> Histogram:
    """Distribution of the bond angles of many frames: every angle counts 1.

    Not differentiable, and on the host: `angular_distribution` is the soft one. Frames are given
    as in `rdf_histogram`; the cell need not be periodic.

    **Arguments:** `edges` of the bins in radian within [0, pi], ascending; `cutoff` of a bond in
    angstrom; `triple` of species: the centre, and the two ends in any order.
    **Returns:** a density that integrates to 1 when the bins cover [0, pi].
    **Raises:** `GeometryError` when no atom has two bonds; `OptionError`, `SpeciesError`,
    `InputError`.

    ```python
    theta, p, count = adf_histogram(structure, np.linspace(0, np.pi, 181), cutoff=3.0)
    ```
    """
    edges = checked_edges(edges, 0.0, np.pi * (1 + 1e-6))
    check_positive("cutoff", cutoff)
    count, total = np.zeros(len(edges) - 1, int), 0
    for frame in _frames(structure, triple, 3):
        angle = _angles(frame, cutoff, triple)
        count += np.histogram(angle, edges)[0]
        total += len(angle)
    if total == 0:
        raise GeometryError(
            f"no atom has two such bonds within {cutoff} angstrom", remedy="take a larger cutoff"
        )
    value = count / (total * np.diff(edges))
    return Histogram(0.5 * (edges[1:] + edges[:-1]), value, count)


def _angles(frame: Structure, cutoff: float, triple) -> Float[np.ndarray, " angles"]:
    i, j, vector = pairs_within(frame, cutoff)
    degree = np.bincount(i, minlength=len(frame.mask))
    # bonds are sorted by their centre: pair each with those that follow it at the same one
    after = np.cumsum(degree)[i] - 1 - np.arange(len(i))
    one = np.repeat(np.arange(len(i)), after)
    other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(after) - after, after)
    if triple is not None:
        center, *ends = triple
        a, b = frame.species[j[one]], frame.species[j[other]]
        wanted = (np.minimum(a, b) == min(ends)) & (np.maximum(a, b) == max(ends))
        wanted &= frame.species[i[one]] == center
        one, other = one[wanted], other[wanted]
    u, v = vector[one], vector[other]
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), np.sum(u * v, axis=-1))


def _frames(structure: Structure, kinds, num_kinds: int) -> Iterator[Structure]:
    """The frames, checked before the first one comes."""
    whole = frames(structure, remedy="take radial_distribution or angular_distribution there")
    check_species(kinds, num_kinds, whole.species, whole.mask)
    return map(Structure, *whole)
