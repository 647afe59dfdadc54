"""Plain novelty of single descriptors: what generated structures are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md._typing import Array


class Novelty(NamedTuple):
    """Plain novelty of single descriptors: distance to the training data over their own d95."""

    reference: Float[Array, "m f"]
    d95: Float[Array, ""]
    """95th percentile of the data's own nearest distance, its own structure left out"""


def fit_novelty(
    training: Sequence[Float[np.ndarray, "n f"]], max_references: int = 4000, seed: int = 0
) -> Novelty:
    """Novelty of standardised descriptors, from those of each training structure.

    ```python
    model = fit_novelty(z_of_frames)
    n = novelty(model, z_new)  # above 1: further than 95 % of the data are from each other
    ```
    """
    x = np.concatenate(training)
    structure = np.repeat(np.arange(len(training)), [len(t) for t in training])
    if len(x) > max_references:
        rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:max_references])
        x, structure = x[rows], structure[rows]
    x, structure = jnp.asarray(x), jnp.asarray(structure)

    def left_out(args):
        y, own = args
        return jnp.min(jnp.where(structure == own, jnp.inf, jnp.sum((x - y) ** 2, axis=-1)))

    d2 = jax.jit(partial(lax.map, left_out, batch_size=256))((x, structure))
    return Novelty(x, jnp.sqrt(jnp.quantile(d2, 0.95)))


@jax.jit
def novelty(model: Novelty, x: Float[Array, "m f"]) -> Float[Array, " m"]:
    """Distance to the nearest training descriptor over d95."""
    one = lambda y: jnp.sqrt(jnp.min(jnp.sum((model.reference - y) ** 2, axis=-1)) + 1e-10)
    return lax.map(one, x, batch_size=256) / model.d95
