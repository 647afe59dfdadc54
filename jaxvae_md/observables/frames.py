"""Frames on the host, in double precision: what is counted atom by atom comes from here."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import InputError, OptionError
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.observables.inputs import check_grid, check_single, known
from jaxvae_md.structure import Structure


def frames(structure: Structure, remedy: str) -> Structure:
    """All frames of a structure along one leading axis; a field without it serves all of them.

    **Arguments:** `remedy` for who asks under jit. **Raises:** `InputError` there, and for shapes
    that do not fit.

    ```python
    for frame in map(Structure, *frames(structure, remedy="call it outside")):
        ...
    ```
    """
    if not known(*structure):
        raise InputError(
            "what is counted on the host was asked for inside jit, grad or vmap", remedy=remedy
        )
    leaves = [np.asarray(leaf) for leaf in structure]
    shape = leaves[0].shape
    if len(shape) < 2 or shape[-1] != 3 or 0 in shape:
        raise InputError(f"positions have the shape {shape}", remedy="give frames, (t, n, 3)")
    num = shape[-2]
    trailing = ((num, 3), (3, 3), (3,), (num,), (num,))
    pairs = list(zip(leaves, trailing, strict=True))
    try:
        leading = np.broadcast_shapes(*(leaf.shape[: leaf.ndim - len(t)] for leaf, t in pairs))
        leaves = [np.broadcast_to(leaf, leading + t).reshape(-1, *t) for leaf, t in pairs]
    except ValueError:
        named = zip(Structure._fields, leaves, strict=True)
        shapes = ", ".join(f"{name} {leaf.shape}" for name, leaf in named)
        raise InputError(
            f"shapes do not fit together: {shapes}", remedy="give all frames the same atoms"
        ) from None
    leaves[:2] = [leaf.astype(np.float64) for leaf in leaves[:2]]
    return Structure(*leaves)


def one_frame(structure: Structure) -> Structure:
    """The structure itself as numpy arrays. **Raises:** `InputError` for several, or under jit.

    ```python
    frame = one_frame(structure)
    ```
    """
    check_single(structure)
    whole = frames(structure, remedy="call it outside, on the host")
    return Structure(*(leaf[0] for leaf in whole))


def pairs_within(
    frame: Structure, radius: float
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    """All pairs within `radius` (angstrom), those at its very edge included, sorted by i.

    **Returns:** i, j, and the vector from i to j in angstrom; every periodic image is a pair.

    ```python
    i, j, vector = pairs_within(frame, 3.0)
    ```
    """
    i, j, shift = host_pairs(frame, float(np.nextafter(radius, np.inf)))
    position, cell = np.asarray(frame.position), np.asarray(frame.cell)
    return i, j, position[j] + shift @ cell - position[i]


def checked_edges(
    edges: Array, low: float = -np.inf, high: float = np.inf
) -> Float[np.ndarray, " edges"]:
    """The edges of bins as numpy's. **Raises:** `OptionError` unless they ascend in the range.

    ```python
    edges = checked_edges([0.0, 1.0, 2.0], low=0.0)
    ```
    """
    edges = np.asarray(edges, np.float64)
    check_grid("edges", edges, low, high)
    if len(edges) < 2 or not (np.diff(edges) > 0).all() or not np.isfinite(edges).all():
        raise OptionError("edges do not ascend", remedy="give two or more, each larger")
    return edges
