"""The variational autoencoder of descriptors: a Flax model behind pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.perceptron import Perceptron


class VAE(NamedTuple):
    """Pure functions of a variational autoencoder. Make one by `vae`."""

    num_features: int
    latent_dim: int
    init: Callable[[Array], Params]
    """key -> {"encoder", "decoder", "log_noise": scalar}, float32"""
    encode: Callable[[Params, Float[Array, "*b f"]], tuple[Array, Array]]
    """standardised descriptors -> mean and log variance of the latent code, `[*b, latent]` each"""
    decode: Callable[[Params, Float[Array, "*b latent"]], Float[Array, "*b f"]]
    """latent codes -> mean of the standardised descriptors"""


def vae(num_features: int, latent_dim: int = 8, hidden: Sequence[int] = (256, 256)) -> VAE:
    """A VAE with Gaussian encoder and Gaussian decoder of one learned noise scale.

    A learned noise scale lets every latent dimension stay active; a fixed scale of 1 makes some
    collapse, and a scale per column makes the decoder give up on the columns that are hardest to
    reconstruct (silicon, latent 8: worst held-out R2 .48 instead of .89).

    **Source:** Kingma and Welling, arXiv:1312.6114 (2013); learned decoder noise: Rybkin,
    Daniilidis and Levine, ICML (2021).

    **Arguments:** the decoder mirrors the encoder's `hidden` widths.

    ```python
    model = vae(num_features=26, latent_dim=8)
    params = model.init(jax.random.key(0))
    mean, log_variance = model.encode(params, z)
    reconstruction = model.decode(params, mean)
    ```
    """

    def networks(rngs: nnx.Rngs) -> tuple[Perceptron, Perceptron]:
        return (
            Perceptron(num_features, hidden, 2 * latent_dim, rngs),
            Perceptron(latent_dim, tuple(reversed(tuple(hidden))), num_features, rngs),
        )

    encoder_graph, decoder_graph = (
        nnx.split(network)[0] for network in nnx.eval_shape(lambda: networks(nnx.Rngs(params=0)))
    )

    def init(key):
        states = (nnx.state(network, nnx.Param) for network in networks(nnx.Rngs(params=key)))
        encoder, decoder = (nnx.to_pure_dict(state) for state in states)
        noise = jnp.zeros((), jnp.float32)
        return {"encoder": encoder, "decoder": decoder, "log_noise": noise}

    def encode(params, x):
        out = nnx.merge(encoder_graph, nnx.State(params["encoder"]))(x)
        return out[..., :latent_dim], out[..., latent_dim:]

    def decode(params, z):
        return nnx.merge(decoder_graph, nnx.State(params["decoder"]))(z)

    return VAE(num_features, latent_dim, init, encode, decode)
