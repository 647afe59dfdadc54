"""Fits through a simulation: gradients of what it measures, within the horizon of chaos."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import optax
from jaxtyping import Float, Int
from tqdm import tqdm

from jaxvae_md._typing import Array, Params
from jaxvae_md.fit.optimisers import change_by
from jaxvae_md.fit.result import FitResult, all_finite


def through_trajectory(
    loss_fn: Callable[[Params, Array], tuple[Float[Array, ""], Int[Array, "*b"]]],
    params: Params,
    *,
    key: Array,
    num_updates: int = 10,
    learning_rate: float = 1e-3,
    optimiser: optax.GradientTransformation | None = None,
    project: Callable[[Params], Params] = lambda params: params,
    progress: bool = False,
    label: str = "refine",
) -> FitResult:
    """Adam on a loss that contains a simulation; returns the best parameters met.

    `loss_fn(params, key)` runs the simulation (`simulate.rollout`), compares what it measures, and
    returns the loss and the simulation's error bits; its gradient goes through every step, so keep
    the window short of the horizon of chaos, some hundred steps. The key is the same for every
    update: the loss is one function, and its decrease is not noise. An update with an error bit,
    or whose loss or gradient is not finite, ends the fit.

    **Arguments:** `optimiser` in the place of Adam with `learning_rate`, say
    `relative(optax.adam(2e-3))` where parameters are of very different size, or
    `relative(optax.lbfgs(), unit=0.02)`, which needs few updates where the loss is smooth;
    `project` keeps them where they make sense.

    ```python
    result = through_trajectory(loss_fn, params, key=jax.random.key(0), num_updates=10)
    ```
    """
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    if optimiser is None:
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    @jax.jit
    def update(params, state, loss, gradient):
        of_params = lambda params: loss_fn(params, key)[0]
        change, state = change_by(optimiser, of_params, params, loss, gradient, state)
        return project(optax.apply_updates(params, change)), state

    state = optimiser.init(params)
    best, history = params, []
    with tqdm(range(num_updates + 1), desc=label, unit="update", disable=not progress) as bar:
        for _ in bar:
            (loss, error), gradient = value_and_grad(params, key)
            if np.any(error) or not all_finite((loss, gradient)):
                break
            if not history or loss < min(history):
                best = params
            history.append(float(loss))
            bar.set_postfix(loss=f"{float(loss):.4f}")
            params, state = update(params, state, loss, gradient)
    return FitResult(best, np.array(history))
