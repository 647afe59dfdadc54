"""Reference atoms of the training structures, and distances to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array

PER_STRUCTURE = 16
"""reference atoms of each training structure; silicon loses .001 of AUROC against all of them"""


_AT_A_TIME = 256


class References(NamedTuple):
    """Points of the training structures, padded to the same number."""

    point: Float[Array, "s r d"]
    valid: Bool[Array, "s r"]


def choose(sizes: Sequence[int], num: int, seed: int) -> Int[np.ndarray, "s r"]:
    """Random atoms of each structure, `num` at most; -1 where a structure has no more.

    ```python
    rows = choose([len(y.own) for y in training], 16, seed=0)
    ```
    """
    rng = np.random.default_rng(seed)
    rows = np.full((len(sizes), min(num, max(sizes))), -1)
    for s, size in enumerate(sizes):
        chosen = rng.permutation(size)[: rows.shape[1]]
        rows[s, : len(chosen)] = chosen
    return rows


def gather(points: Sequence[Float[Array, "n d"]], rows: Int[np.ndarray, "s r"]) -> References:
    """The chosen atoms' points.

    ```python
    references = gather([y.near for y in training], rows)
    ```
    """
    point = np.zeros((*rows.shape, np.shape(points[0])[1]), np.asarray(points[0]).dtype)
    for s, chosen in enumerate(rows):
        point[s, chosen >= 0] = np.asarray(points[s])[chosen[chosen >= 0]]
    return References(jnp.asarray(point), jnp.asarray(rows >= 0))


def squared_distances(
    references: References, y: Float[Array, "m d"], own: Int[Array, " m"]
) -> Float[Array, "m s r"]:
    """Squared distances to every reference atom, infinite for padding and the own structure.

    A constant of 1e-10 keeps the gradient of the root finite on a reference atom.
    """
    s, r, _ = references.point.shape
    # one product of matrices; shifted, so that it does not cancel in single precision
    centre = jnp.mean(references.point, axis=(0, 1))
    flat, y = (references.point - centre).reshape(s * r, -1), y - centre
    square = jnp.sum(y**2, axis=-1)[:, None] + jnp.sum(flat**2, axis=-1) - 2 * y @ flat.T
    square = jnp.maximum(square, 0).reshape(len(y), s, r) + 1e-10
    foreign = jnp.arange(s) != own[:, None]
    return jnp.where(references.valid & foreign[:, :, None], square, jnp.inf)


def by_rows(function, *arrays):
    """A function of rows, applied to some at a time: what it makes of [m, s, r] stays small.

    ```python
    by_rows(lambda y, own: squared_distances(references, y, own).min(axis=(1, 2)), y, own)
    ```
    """
    one = lambda row: jax.tree.map(
        lambda leaf: leaf[0], function(*jax.tree.map(lambda leaf: leaf[None], row))
    )
    return lax.map(one, arrays, batch_size=_AT_A_TIME)


def closest(
    square: Float[Array, "m s r"], num: int
) -> tuple[Float[Array, "m k r"], Int[Array, "m k"]]:
    """Distances to the atoms of the nearest structures, the nearest first, and which these are.

    One structure less than there are at most, since one may be left out.
    """
    # in single precision, for which alone XLA has a top_k on CPUs that is no sort
    key = -jnp.min(square, axis=2).astype(jnp.float32)
    _, structure = lax.top_k(key, min(num, square.shape[1] - 1))
    return jnp.take_along_axis(square, structure[:, :, None], axis=1), structure
