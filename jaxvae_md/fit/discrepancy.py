"""Distances between sets of points, for losses that compare environments with reference ones.

Both vanish only where two distributions are the same, and are differentiable by the points: by
way of the encoder, the descriptor and a simulation also by the parameters of the potential.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array


def maximum_mean_discrepancy(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    bandwidths: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
) -> Float[Array, ""]:
    """Squared maximum mean discrepancy of two sets of points, without bias.

    The kernel is the mean of Gaussians whose widths are the `bandwidths` times the root mean
    square distance within `y`, the reference. It may be a little below zero where the sets are of
    one distribution. **Source:** Gretton, Borgwardt, Rasch, Schoelkopf and Smola, J. Mach. Learn.
    Res. 13, 723 (2012), equation 3.

    ```python
    codes, _ = model.encode(vae_params, standardizer(descriptor(structure, neighbors)))
    loss = maximum_mean_discrepancy(codes, reference_codes)
    ```
    """
    square = _squares(y, y)
    unit = jnp.sum(square) / (len(y) * (len(y) - 1))

    def kernel(square):
        widths = 2 * jnp.asarray(bandwidths, square.dtype) ** 2 * unit
        return jnp.mean(jnp.exp(-square[..., None] / widths), axis=-1)

    within = _mean_of_pairs(kernel(_squares(x, x))) + _mean_of_pairs(kernel(square))
    return within - 2 * jnp.mean(kernel(_squares(x, y)))


def energy_distance(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, ""]:
    """Twice the mean distance between two sets of points less that within each, without bias.

    It needs no bandwidth, and sees differences of every size. **Source:** Szekely and Rizzo, J.
    Stat. Plan. Inference 143, 1249 (2013).

    ```python
    loss = energy_distance(codes, reference_codes)
    ```
    """
    between = jnp.mean(_distances(x, y))
    return 2 * between - _mean_of_pairs(_distances(x, x)) - _mean_of_pairs(_distances(y, y))


def _squares(x, y):
    return jnp.sum((x[:, None] - y) ** 2, axis=-1)


def _distances(x, y):
    square = _squares(x, y)
    # the root has no slope at zero, where a point meets itself
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _mean_of_pairs(values):
    """Over pairs of different points."""
    num = len(values)
    return (jnp.sum(values) - jnp.trace(values)) / (num * (num - 1))
