"""Requests for new environments: gaps of the latent space, decoded."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.coverage import Novelty, novelty
from jaxvae_md.vae.model import VAE


class Targets(NamedTuple):
    """Requested environments."""

    z: Float[Array, "num latent"]
    """latent points"""
    x: Float[Array, "num f"]
    """their decoded, standardised descriptors"""
    novelty: Float[Array, " num"]
    """distance of x to the training data over the data's own d95"""
    cycle: Float[Array, " num"]
    """rms |encode(decode z) - z|: how well the decoder knows this point"""
    start: Int[Array, " num"]
    """training environment nearest to x: where realising begins"""


def propose(
    model: VAE,
    params: Params,
    known: Novelty,
    x_train: Float[Array, "m f"],
    key: Array,
    num: int,
    *,
    band: tuple[float, float] = (1.5, 3.0),
    max_cycle: float = 0.3,
    num_candidates: int = 20000,
) -> Targets:
    """Latent points whose decoded descriptors are missing from the training data.

    Distance in latent space is not novelty after decoding, so candidates (beyond and between the
    codes of training environments) are judged by the novelty of what they decode to, and must
    come back to themselves through the encoder. From those within `band` the `num` most different
    ones are taken greedily. `max_cycle` is widened up to fourfold when too few come back so well;
    fewer than `num` are returned when fewer qualify even then.

    **Arguments:** `known` from `coverage.fit_novelty`; `x_train` standardised descriptors of the
    training environments, whose rows `start` refers to.

    ```python
    targets = propose(model, params, known, z_train, jax.random.key(0), num=12)
    ```
    """
    dtype = params["decoder"]["linear"]["kernel"].dtype
    x_train = jnp.asarray(x_train, dtype)
    codes, _ = model.encode(params, x_train)
    z = _candidates(codes, key, num_candidates)
    x, cycle, n = _judge(model, params, known, z)
    novel = np.asarray((n > band[0]) & (n < band[1]))
    good = np.zeros(0, int)
    for widening in (1, 2, 4):
        good = np.nonzero(novel & (np.asarray(cycle) < widening * max_cycle))[0]
        if len(good) >= num:
            break
    picks = good[np.asarray(_most_different(x[good], num))] if len(good) > num else good
    start = lax.map(lambda y: jnp.argmin(jnp.sum((x_train - y) ** 2, axis=-1)), x[picks])
    return Targets(*(np.asarray(v) for v in (z[picks], x[picks], n[picks], cycle[picks], start)))


def _candidates(codes: Float[Array, "m l"], key: Array, num: int) -> Float[Array, "num l"]:
    """Points on lines through two training codes, from half a length before to behind."""
    pair, along, noise = jax.random.split(key, 3)
    rows = jax.random.randint(pair, (2, num), 0, len(codes))
    a, b = codes[rows[0]], codes[rows[1]]
    t = jax.random.uniform(along, (num, 1), codes.dtype, -0.5, 1.5)
    spread = 0.1 * jnp.std(codes, axis=0)
    return a + t * (b - a) + spread * jax.random.normal(noise, a.shape, codes.dtype)


@partial(jax.jit, static_argnums=0)
def _judge(model, params, known, z):
    x = model.decode(params, z)
    back, _ = model.encode(params, x)
    return x, jnp.sqrt(jnp.mean((back - z) ** 2, axis=-1)), novelty(known, x)


@partial(jax.jit, static_argnums=1)
def _most_different(x: Float[Array, "m f"], num: int) -> Int[Array, " num"]:
    """Greedy farthest-point selection, from the row nearest to the mean."""

    def step(distance, _):
        pick = jnp.argmax(distance)
        return jnp.minimum(distance, jnp.sum((x - x[pick]) ** 2, axis=-1)), pick

    from_mean = jnp.sum((x - jnp.mean(x, axis=0)) ** 2, axis=-1)
    return lax.scan(step, 1.0 / (1.0 + from_mean) + 1e6, None, length=num)[1]
