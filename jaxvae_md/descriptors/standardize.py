"""Standardisation of descriptors as a pytree fitted on data."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.errors import InputError


class Standardizer(NamedTuple):
    """Mean and scale of each column."""

    mean: Float[Array, " f"]
    scale: Float[Array, " f"]

    def apply(self, x: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
        """Descriptors to standardised ones."""
        return (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.scale, x.dtype)

    def invert(self, z: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
        """Standardised descriptors back to descriptors."""
        return z * jnp.asarray(self.scale, z.dtype) + jnp.asarray(self.mean, z.dtype)


def fit_standardizer(x: Float[Array, "n f"], floor: float = 1e-3) -> Standardizer:
    """Mean and standard deviation of each column over the training environments.

    A column's scale is at least `floor` times the largest one, so that a column without variance
    (a weighted column of a one-species set, say) is not divided by zero. **Raises:** `InputError`
    without environments, or for what is not finite.

    ```python
    standardizer = fit_standardizer(x_train)
    z = standardizer.apply(x)
    ```
    """
    if not len(x) or not np.isfinite(x).all():
        raise InputError(
            f"descriptors of {len(x)} environments, not all of them finite"
            if len(x)
            else "no environments to standardise",
            remedy="look at the frames that they are from",
        )
    scale = np.std(x, axis=0)
    largest = np.max(scale, initial=0.0)
    return Standardizer(
        mean=np.mean(x, axis=0),
        scale=np.maximum(scale, floor * largest if largest > 0 else 1.0),
    )


class Span(NamedTuple):
    """The directions of standardised descriptors in which the data vary."""

    direction: Float[Array, "d f"]
    """orthonormal rows, the largest variance first"""

    def coordinates(self, z: Float[Array, "*b f"]) -> Float[Array, "*b d"]:
        """Standardised descriptors along the directions."""
        return z @ jnp.asarray(self.direction, z.dtype).T

    def residual(self, z: Float[Array, "*b f"]) -> Float[Array, "*b f"]:
        """What lies outside the span: z - residual(z) is within it."""
        return z - self.coordinates(z) @ jnp.asarray(self.direction, z.dtype)


def fit_span(z: Float[Array, "n f"], floor: float = 1e-3) -> Span:
    """The span of standardised training descriptors: principal directions above `floor`.

    `floor` is a standard deviation in units of the largest direction's. Columns may be collinear
    (a one-species set in a two-species basis has many) or without variance: the span has fewer
    directions then, and a descriptor that leaves it is seen by its residual, of whatever size.

    ```python
    z = standardizer.apply(x_train)
    jnp.linalg.norm(fit_span(z).residual(standardizer.apply(x_new)), axis=-1)
    ```
    """
    z = np.asarray(z)
    _, deviation, direction = np.linalg.svd(z / np.sqrt(len(z)), full_matrices=False)
    return Span(direction[deviation > floor * np.max(deviation, initial=0.0)])
