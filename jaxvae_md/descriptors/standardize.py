"""Standardisation of descriptors as a pytree fitted on data."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array


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
    (a weighted column of a one-species set, say) is not divided by zero.

    ```python
    standardizer = fit_standardizer(x_train)
    z = standardizer.apply(x)
    ```
    """
    scale = np.std(x, axis=0)
    largest = np.max(scale, initial=0.0)
    return Standardizer(
        mean=np.mean(x, axis=0),
        scale=np.maximum(scale, floor * largest if largest > 0 else 1.0),
    )
