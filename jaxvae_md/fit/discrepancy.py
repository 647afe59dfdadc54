"""Distances between sets of points, for losses that compare environments with reference ones.

They vanish only where two distributions are the same, and are differentiable by the points: by
way of the encoder, the descriptor and a simulation also by the parameters of the potential.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
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


def fisher_discrepancy(
    x: Float[Array, "n d"], y: Float[Array, "m d"], num_features: int = 64, ridge: float = 1e-4
) -> Float[Array, ""]:
    """Squared difference of mean features in units of their fluctuations within `y`.

        (mean f(x) - mean f(y))^T (cov f(y) + ridge)^-1 (mean f(x) - mean f(y))

    The features f are cosines and sines along `num_features` random directions, of wavelengths
    from the reference's spread to eight times as much. Of linear cost, so for tens of thousands
    of points; and since each difference counts by how well it is known, the sharpest for a fit.
    `ridge` is in units of a feature's mean variance.

    **Source:** Harchaoui, Bach and Moulines, Adv. Neural Inf. Process. Syst. 20, 609 (2007), with
    the features of Rahimi and Recht, ibid., 1177.

    ```python
    loss = fisher_discrepancy(codes, reference_codes)
    ```
    """
    draw, spread = jax.random.split(jax.random.key(0))
    directions = jax.random.normal(draw, (y.shape[1], num_features), y.dtype)
    waves = directions * 2.0 ** -jax.random.uniform(spread, (num_features,), y.dtype, 0, 3)
    mean, scale = jnp.mean(y, axis=0), jnp.std(y, axis=0)

    def features(points):
        phase = (points - mean) / jnp.where(scale > 0, scale, 1) @ waves
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=1)

    reference = features(y)
    covariance = jnp.cov(reference, rowvar=False)
    covariance += ridge * jnp.trace(covariance) / len(covariance) * jnp.eye(len(covariance))
    off = jnp.mean(features(x), axis=0) - jnp.mean(reference, axis=0)
    return off @ jnp.linalg.solve(covariance, off)


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
