"""The evidence lower bound and its parts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.vae.model import VAE


class ElboParts(NamedTuple):
    """Parts of the evidence lower bound in nats, one value per environment."""

    log_likelihood: Float[Array, "*b"]
    kl: Float[Array, "*b latent"]
    """divergence from the standard normal, per latent dimension"""


def elbo(
    model: VAE, params: Params, x: Float[Array, "*b f"], key: Array | None = None
) -> ElboParts:
    """Evidence lower bound of standardised descriptors: `log_likelihood - sum(kl)`.

    **Arguments:** `key` draws one sample of the latent code; without it the code's mean is used.
    **Source:** Kingma and Welling, arXiv:1312.6114, equations 7 and 10.

    ```python
    parts = elbo(model, params, z, key=jax.random.key(0))
    loss = -jnp.mean(parts.log_likelihood - jnp.sum(parts.kl, axis=-1))
    ```
    """
    mean, log_variance = model.encode(params, x)
    code = mean
    if key is not None:
        code = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)
    log_noise = params["log_noise"]
    scaled = (x - model.decode(params, code)) * jnp.exp(-log_noise)
    log_density = -0.5 * scaled**2 - log_noise - 0.5 * jnp.log(2 * jnp.pi)
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
    return ElboParts(jnp.sum(log_density, axis=-1), kl)
