"""The one network of the package: a multilayer perceptron with a linear path beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from jaxvae_md._typing import Array


class Perceptron(nnx.Module):
    """Hidden layers with SiLU, plus a linear map of the input.

    The linear path puts PCA within the reach of an autoencoder, and a linear potential within
    that of a network potential.

    ```python
    network = Perceptron(26, (64, 64), 1, nnx.Rngs(params=0))
    network(jnp.ones((10, 26)))  # [10, 1]
    ```
    """

    def __init__(
        self,
        num_in: int,
        hidden: Sequence[int],
        num_out: int,
        rngs: nnx.Rngs,
        out_init: Callable = nnx.initializers.lecun_normal(),  # noqa: B008
    ):
        shapes = enumerate(pairwise([num_in, *hidden]))
        self.hidden = nnx.Dict({f"layer_{i}": nnx.Linear(*shape, rngs=rngs) for i, shape in shapes})
        width = [num_in, *hidden][-1]
        self.out = nnx.Linear(width, num_out, kernel_init=out_init, rngs=rngs)
        self.linear = nnx.Linear(num_in, num_out, use_bias=False, kernel_init=out_init, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """`[*b, num_in]` to `[*b, num_out]`."""
        h = x = jnp.asarray(x)
        for layer in self.hidden.values():
            h = jax.nn.silu(layer(h))
        return self.out(h) + self.linear(x)
