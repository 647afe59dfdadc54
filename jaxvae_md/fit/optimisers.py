"""Optimisers of optax: steps relative to the size of each parameter, and line searches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from jaxvae_md._typing import Array, Params


class RelativeState(NamedTuple):
    """Of `relative`: the sizes, and what the optimiser within it keeps."""

    size: Params
    inner: Any


def relative(
    optimiser: optax.GradientTransformation, unit: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The optimiser in units of the parameters' absolute values at the start, 1 where one is 0.

    One learning rate then suits sigma in angstrom and epsilon in eV. **Arguments:** `unit`, a
    share of these values: L-BFGS begins with a step of 1.

    ```python
    optimiser = relative(optax.adam(2e-3))
    searching = relative(optax.lbfgs(), unit=0.02)
    ```
    """

    inner_optimiser = optax.with_extra_args_support(optimiser)

    def init(params):
        size = jax.tree.map(lambda p: unit * jnp.where(p == 0, 1.0, jnp.abs(p)), params)
        return RelativeState(size, inner_optimiser.init(jax.tree.map(jnp.divide, params, size)))

    def update(updates, state, params=None, **extra):
        up, down = (partial(jax.tree.map, op, state.size) for op in (jnp.multiply, _divided))
        if "grad" in extra:
            extra["grad"] = up(extra["grad"])
        if "value_fn" in extra:
            value_fn = extra["value_fn"]
            extra["value_fn"] = lambda params: value_fn(up(params))
        params = None if params is None else down(params)
        change, inner = inner_optimiser.update(up(updates), state.inner, params, **extra)
        return up(change), RelativeState(state.size, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def change_by(
    optimiser: optax.GradientTransformation,
    loss_fn: Callable[[Params], Float[Array, ""]],
    params: Params,
    loss: Float[Array, ""],
    gradient: Params,
    state: Any,
) -> tuple[Params, Any]:
    """The change of parameters by any optimiser, with what a line search asks for; and its state.

    ```python
    change, state = change_by(optax.lbfgs(), loss_fn, params, loss, gradient, state)
    ```
    """
    searching = optax.with_extra_args_support(optimiser)
    found: Any = searching.update(
        gradient, state, params, value=loss, grad=gradient, value_fn=loss_fn
    )
    return found


def _divided(size, value):
    return value / size
