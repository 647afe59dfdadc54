"""Smooth switches shared by descriptors and potentials."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array


def cosine(distance: Float[Array, ...], cutoff: float) -> Float[Array, ...]:
    """Cosine cutoff: (cos(pi r / Rc) + 1) / 2 within the cutoff, 0 beyond.

    **Arguments:** distances and cutoff, both in angstrom. **Returns:** dimensionless.
    **Source:** Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007).

    ```python
    cosine(jnp.array([0.0, 2.0, 5.0]), cutoff=4.0)  # [1, 0.5, 0]
    ```
    """
    # clipped before the cosine, so that padded distances cost no accuracy in range reduction
    inside = 0.5 * (jnp.cos(jnp.pi / cutoff * jnp.minimum(distance, cutoff)) + 1)
    return jnp.where(distance < cutoff, inside, 0.0)
