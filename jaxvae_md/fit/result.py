"""What every fit returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Params


class FitResult(NamedTuple):
    """Fitted parameters, and the loss on the way.

    ```python
    loss = {"fit": (np.arange(len(result.history)), result.history)}
    figure = plot.training_history(loss, ylabel="loss", xlabel="update")
    ```
    """

    params: Params
    history: Float[np.ndarray, " steps"]
    """loss of each epoch (force matching by batches), or of each update"""
    covariance: Float[np.ndarray, "p p"] | None = None
    """of the parameters, flattened as by `jax.flatten_util.ravel_pytree`; where it can be had"""
    held_out: Float[np.ndarray, " steps"] | None = None
    """loss of the held-out frames after each epoch, where there are any"""


def all_finite(tree: Any) -> bool:
    """Whether every number of a tree is finite.

    ```python
    all_finite({"sigma": jnp.array(3.4)})
    ```
    """
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))
