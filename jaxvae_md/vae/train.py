"""Training of the VAE, and what it can reconstruct."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import RunError
from jaxvae_md.vae.loss import elbo
from jaxvae_md.vae.model import VAE


class History(NamedTuple):
    """Evidence lower bound (nats per environment) after each epoch."""

    elbo_train: Float[np.ndarray, " epochs"]
    elbo_test: Float[np.ndarray, " epochs"]


def train(
    model: VAE,
    x: Float[Array, "m f"],
    *,
    key: Array,
    x_test: Float[Array, "t f"] | None = None,
    num_steps: int = 7000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    progress: bool = False,
) -> tuple[Params, History]:
    """Maximises the evidence lower bound with Adam; returns the parameters of the best epoch.

    Each epoch is one jitted scan. The divergence's weight grows to 1 over the first tenth of the
    epochs, so that no dimension collapses before it is used. Deterministic per key.

    **Arguments:** `x` standardised descriptors of the training environments; `x_test` of frames
    that are kept out: training stops when their bound has not risen for a quarter of the
    epochs, and the epoch is chosen by it. Everyday arguments end here; the rest are rarely needed.
    **Raises:** `RunError` when the bound is not finite.

    ```python
    params, history = train(vae(26, 8), z_train, key=jax.random.key(0), x_test=z_test)
    ```
    """
    x = jnp.asarray(x, jnp.float32)
    x_test = x if x_test is None else jnp.asarray(x_test, jnp.float32)
    batch_size = min(batch_size, len(x))
    steps_per_epoch = len(x) // batch_size
    num_epochs = max(1, round(num_steps / steps_per_epoch))
    optimiser = _optimiser(learning_rate, num_epochs * steps_per_epoch)

    params = model.init(jax.random.fold_in(key, 0))
    state = optimiser.init(params)
    best, best_elbo, since_best = params, -np.inf, 0
    history = []
    with tqdm(range(num_epochs), desc="train VAE", unit="epoch", disable=not progress) as bar:
        for epoch in bar:
            warm = min(1.0, (epoch + 1) / max(1, num_epochs // 10))
            params, state, on_train = _epoch(
                model,
                optimiser,
                batch_size,
                params,
                state,
                x,
                warm,
                jax.random.fold_in(key, epoch + 1),
            )
            on_test = float(_mean_elbo(model, params, x_test, jax.random.fold_in(key, 0)))
            history.append((float(on_train), on_test))
            if not np.isfinite(on_test):
                raise RunError(f"the VAE's bound is not finite after epoch {epoch}")
            since_best += 1
            if on_test > best_elbo:
                best, best_elbo, since_best = params, on_test, 0
            if since_best > max(10, num_epochs // 4) and warm == 1.0:
                break
            bar.set_postfix(elbo=f"{on_test:.2f}")
    return best, History(*(np.array(column) for column in zip(*history, strict=True)))


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
def _mean_elbo(model, params, x, key):
    parts = elbo(model, params, x, key)
    return jnp.mean(parts.log_likelihood - jnp.sum(parts.kl, axis=-1))


def reconstruction_r2(
    x: Float[Array, "m f"], reconstruction: Float[Array, "m f"]
) -> Float[np.ndarray, " f"]:
    """Coefficient of determination R2 of every column.

    ```python
    r2 = reconstruction_r2(z, model.decode(params, model.encode(params, z)[0])).mean()
    ```
    """
    x, reconstruction = np.asarray(x, float), np.asarray(reconstruction, float)
    residual = np.sum((x - reconstruction) ** 2, axis=0)
    total = np.sum((x - x.mean(axis=0)) ** 2, axis=0)
    return 1 - residual / np.where(total > 0, total, 1)


def active_dims(kl: Float[Array, "m latent"], threshold: float = 0.05) -> int:
    """Number of latent dimensions whose mean divergence exceeds `threshold` nats.

    ```python
    active_dims(elbo(model, params, z).kl)
    ```
    """
    return int(np.sum(np.mean(np.asarray(kl), axis=0) > threshold))


def pca_reconstruction(
    x: Float[Array, "m f"], x_new: Float[Array, "t f"], num_components: int
) -> tuple[Float[np.ndarray, "t f"], Float[np.ndarray, "t c"]]:
    """Principal component analysis fitted on `x`: reconstruction and scores of `x_new`.

    The yardstick of every VAE of the same latent dimension.

    ```python
    reconstruction, scores = pca_reconstruction(z_train, z_test, num_components=8)
    ```
    """
    x, x_new = np.asarray(x, float), np.asarray(x_new, float)
    mean = x.mean(axis=0)
    _, _, directions = np.linalg.svd(x - mean, full_matrices=False)
    directions = directions[:num_components]
    scores = (x_new - mean) @ directions.T
    return scores @ directions + mean, scores
