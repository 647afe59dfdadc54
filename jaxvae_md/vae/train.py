"""Training of the VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md._typing import Array, Params
from jaxvae_md.continuation import Continuation, Row
from jaxvae_md.errors import InputError, RunError
from jaxvae_md.vae.loss import elbo
from jaxvae_md.vae.model import VAE


class History(NamedTuple):
    """What was measured after each epoch."""

    elbo_train: Float[np.ndarray, " epochs"]
    """evidence lower bound, nats per environment, with the epoch's weight of the divergence"""
    elbo_test: Float[np.ndarray, " epochs"]
    """that of `x_test`, with the full weight `beta`"""
    kl: Float[np.ndarray, "epochs latent"]
    """divergence of `x_test` from the standard normal, nats per latent dimension"""


def train(
    model: VAE,
    x: Float[Array, "m f"],
    *,
    key: Array,
    x_test: Float[Array, "t f"] | None = None,
    num_steps: int = 6000,
    batch_size: int = 256,
    learning_rate: float = 4e-3,
    beta: float | Callable[[float], float] = 1.0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> tuple[Params, History]:
    """Maximises the evidence lower bound with Adam; returns the parameters of the best epoch.

    Each epoch is one jitted scan. Deterministic per key.

    **Arguments:** `x` standardised descriptors of the training environments; `x_test` of frames
    that are kept out: training stops when their bound has not risen for a quarter of the
    epochs, and the epoch is chosen by it. `beta` weighs the divergence (Higgins et al., ICLR
    2017): a number, to which the weight grows over the first tenth of the epochs, so that no
    dimension collapses before it is used; or a schedule of your own, a function of the share of
    the epochs that are done, 0 to 1. `checkpoint` a folder, written every ten epochs and removed
    at the end: a training that was interrupted continues from it, and ends with the same bits.
    **Raises:** `InputError` for data that are not finite or of another number of columns;
    `OptionError` for a checkpoint of another training; `RunError` when the bound is not finite.

    ```python
    params, history = train(vae(26, 8), z_train, key=jax.random.key(0), x_test=z_test)
    history.kl[-1]  # nats per latent dimension
    ```
    """
    x = _checked(model, x, "x")
    x_test = x if x_test is None else _checked(model, x_test, "x_test")
    batch_size = min(batch_size, len(x))
    steps_per_epoch = len(x) // batch_size
    num_epochs = max(1, round(num_steps / steps_per_epoch))
    optimiser = _optimiser(learning_rate, num_epochs * steps_per_epoch)
    weight_of = beta if callable(beta) else lambda done: beta * min(1.0, 10 * done)
    drawn = jax.random.fold_in(key, 0)

    first = model.init(drawn)
    settings = [num_epochs, batch_size, learning_rate, [weight_of(t) for t in (0.05, 0.5, 1)]]
    continuation = Continuation(checkpoint, settings, key, (x, x_test))
    (params, state, best), history = continuation.restored((first, optimiser.init(first), first))
    with tqdm(
        range(len(history), num_epochs), desc="train VAE", unit="epoch", disable=not progress
    ) as bar:
        for epoch in bar:
            if _is_past(history, num_epochs):
                break
            weight = weight_of((epoch + 1) / num_epochs)
            on_epoch = jax.random.fold_in(key, epoch + 1)
            params, state, on_train = _epoch(
                model, optimiser, batch_size, params, state, x, weight, on_epoch
            )
            likelihood, kl = _mean_parts(model, params, x_test, drawn)
            on_test = float(likelihood - weight_of(1.0) * np.sum(kl))
            if not np.isfinite(on_test):
                raise RunError(
                    f"the VAE's bound is not finite after epoch {epoch}",
                    remedy="lower the learning rate",
                )
            history.append((float(on_train), on_test, np.asarray(kl)))
            if on_test == max(bound for _, bound, _ in history):
                best = params
            continuation.keep((params, state, best), history)
            bar.set_postfix(elbo=f"{on_test:.2f}")
    continuation.remove()
    return best, History(*(np.array(column) for column in zip(*history, strict=True)))


def _is_past(history: Sequence[Row], num_epochs: int) -> bool:
    """Whether the bound of `x_test` has not risen for a quarter of the epochs."""
    bounds = [bound for _, bound, _ in history]
    warm = len(bounds) >= num_epochs // 10
    return warm and len(bounds) - 1 - int(np.argmax(bounds or [0])) > max(10, num_epochs // 4)


def _checked(model: VAE, x: Float[Array, "m f"], name: str) -> Float[Array, "m f"]:
    if np.ndim(x) != 2 or np.shape(x)[1] != model.num_features or not len(x):
        raise InputError(
            f"{name} is of shape {np.shape(x)}, and the VAE takes {model.num_features} columns",
            remedy="give descriptors as the VAE was made for, [environments, columns]",
        )
    finite = np.isfinite(np.asarray(x)).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{name} is not finite in {np.sum(~finite)} of {len(x)} environments",
            atom=int(np.argmin(finite)),
            remedy="look at the structure that it is from",
        )
    return jnp.asarray(x, jnp.float32)


@lru_cache(maxsize=8)
def _optimiser(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """One object for the same settings, so that a second training compiles nothing."""
    schedule = optax.cosine_onecycle_schedule(num_steps, learning_rate, 0.1)
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _epoch(model, optimiser, batch_size, params, state, x, kl_weight, key):
    """One pass over the data in random order."""
    num_steps = len(x) // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, 0), len(x))
    order = order[: num_steps * batch_size].reshape(num_steps, batch_size)
    keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)

    def loss_fn(params, rows, key):
        parts = elbo(model, params, x[rows], key)
        return -jnp.mean(parts.log_likelihood - kl_weight * jnp.sum(parts.kl, axis=-1))

    def step(carry, batch):
        params, state = carry
        loss, gradient = jax.value_and_grad(loss_fn)(params, *batch)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), -loss

    (params, state), bound = lax.scan(step, (params, state), (order, keys))
    return params, state, jnp.mean(bound)


@partial(jax.jit, static_argnums=0)
def _mean_parts(model, params, x, key):
    parts = elbo(model, params, x, key)
    return jnp.mean(parts.log_likelihood), jnp.mean(parts.kl, axis=0)
