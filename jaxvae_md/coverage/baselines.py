"""Scores to compare with, as methods of `coverage.fit`: what others use.

All see single standardised descriptors x, and none of them knows how dense the data are where an
environment lies; with a melt among the training data they mostly measure disorder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.coverage.references import (
    PER_STRUCTURE,
    References,
    by_rows,
    choose,
    gather,
    squared_distances,
)
from jaxvae_md.coverage.surroundings import Surroundings
from jaxvae_md.vae import VAE, elbo, train, vae

_HIDDEN = (128, 128)


class NearestNeighbors(NamedTuple):
    """Mean distance to the nearest reference atoms."""

    references: References

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Mean distance to the three nearest reference atoms of other structures."""
        square = squared_distances(self.references, y.own, own)
        closest, _ = lax.top_k(-square.reshape(len(square), -1), 3)
        return jnp.mean(jnp.sqrt(-closest), axis=1)


class DeltaEntropy(NamedTuple):
    """QUESTS' delta-H with a Gaussian kernel."""

    references: References
    bandwidth: Float[Array, ""]

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """-log of the sum of kernels on the reference atoms of other structures."""
        return _minus_log_kernels(squared_distances(self.references, y.own, own), self.bandwidth)


class Mahalanobis(NamedTuple):
    """Distance from the mean in units of the covariance."""

    mean: Float[Array, " f"]
    precision: Float[Array, "f f"]

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """The Mahalanobis distance; nothing is left out."""
        del own
        apart = y.own - self.mean
        return jnp.sqrt(jnp.einsum("mf,fg,mg->m", apart, self.precision, apart) + 1e-10)


class Reconstruction(NamedTuple):
    """How badly a VAE of single descriptors reconstructs."""

    params: Params

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Root mean square of x - decode(encode(x)); nothing is left out."""
        del own
        model, params = _autoencoder(self.params, y)
        missing = y.own - model.decode(params, model.encode(params, y.own)[0])
        return jnp.sqrt(jnp.mean(missing**2, axis=-1) + 1e-10)


class NegativeElbo(NamedTuple):
    """How unlikely a VAE of single descriptors finds an environment."""

    params: Params

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Minus the evidence lower bound at the code's mean, nats; nothing is left out."""
        del own
        model, params = _autoencoder(self.params, y)
        parts = elbo(model, params, y.own)
        return jnp.sum(parts.kl, axis=-1) - parts.log_likelihood


def nearest_neighbors(num_references: int = PER_STRUCTURE):
    """Mean distance to the three nearest reference atoms.

    ```python
    model = coverage.fit(training, kinds, method=coverage.nearest_neighbors())
    ```
    """
    return lambda training, seed: NearestNeighbors(_references(training, num_references, seed))


def quests(bandwidth: float | None = None, num_references: int = PER_STRUCTURE):
    """QUESTS' delta-H(y) = -log sum_r exp(-|y - r|^2 / (2 bandwidth^2)).

    **Arguments:** `bandwidth` in units of the descriptor; by default the median distance of the
    reference atoms to the nearest one of another structure. On QUESTS' own descriptors (no part
    of this package) its authors use 0.015.

    **Source:** Schwalbe-Koda et al., Nature Communications 16, 4014 (2025).

    ```python
    model = coverage.fit(training, kinds, method=coverage.quests())
    ```
    """

    def fit(training: Sequence[Surroundings], seed: int) -> DeltaEntropy:
        references = _references(training, num_references, seed)
        if bandwidth is not None:
            return DeltaEntropy(references, jnp.asarray(bandwidth))
        s, r, width = references.point.shape
        nearest = lambda y, own: jnp.min(squared_distances(references, y, own), axis=(1, 2))
        every = (references.point.reshape(s * r, width), jnp.repeat(jnp.arange(s), r))
        square = jax.jit(lambda *rows: by_rows(nearest, *rows))(*every)
        return DeltaEntropy(references, jnp.sqrt(jnp.median(square[references.valid.ravel()])))

    return fit


def delta_entropy(
    y: Float[Array, "m d"], reference: Float[Array, "r d"], bandwidth: float = 0.015
) -> Float[Array, " m"]:
    """QUESTS' delta-H of any descriptors against any reference points.

    ```python
    delta_entropy(quests_descriptors_new, quests_descriptors_train)
    ```
    """
    every = References(reference[None], jnp.ones((1, len(reference)), bool))

    def score(y, own):
        return _minus_log_kernels(squared_distances(every, y, own), jnp.asarray(bandwidth))

    return by_rows(score, y, jnp.full(len(y), -1))


def mahalanobis():
    """The Mahalanobis distance from all training environments.

    ```python
    model = coverage.fit(training, kinds, method=coverage.mahalanobis())
    ```
    """

    def fit(training: Sequence[Surroundings], seed: int) -> Mahalanobis:
        del seed
        x = np.concatenate([y.own for y in training])
        covariance = np.atleast_2d(np.cov(x.T)) + 1e-6 * np.eye(x.shape[1])
        return Mahalanobis(jnp.asarray(x.mean(axis=0)), jnp.asarray(np.linalg.inv(covariance)))

    return fit


def reconstruction(latent_dim: int = 8, num_steps: int = 3000):
    """The reconstruction error of a VAE of single descriptors.

    ```python
    model = coverage.fit(training, kinds, method=coverage.reconstruction())
    ```
    """
    return lambda training, seed: Reconstruction(_trained(training, latent_dim, num_steps, seed))


def negative_elbo(latent_dim: int = 8, num_steps: int = 3000):
    """Minus the evidence lower bound of a VAE of single descriptors.

    ```python
    model = coverage.fit(training, kinds, method=coverage.negative_elbo())
    ```
    """
    return lambda training, seed: NegativeElbo(_trained(training, latent_dim, num_steps, seed))


def _trained(training, latent_dim: int, num_steps: int, seed: int) -> Params:
    x = np.concatenate([y.own for y in training])
    model = vae(x.shape[1], latent_dim, _HIDDEN)
    return train(model, x, key=jax.random.key(seed), num_steps=num_steps, learning_rate=2e-3)[0]


def _autoencoder(params: Params, y: Surroundings) -> tuple[VAE, Params]:
    """The VAE that parameters are of, and these in the precision of y."""
    latent_dim = params["decoder"]["linear"]["kernel"].shape[0]
    same = jax.tree.map(lambda leaf: jnp.asarray(leaf, y.own.dtype), params)
    return vae(y.own.shape[-1], latent_dim, _HIDDEN), same


def _references(training: Sequence[Surroundings], num: int, seed: int) -> References:
    return gather([y.own for y in training], choose([len(y.own) for y in training], num, seed))


def _minus_log_kernels(
    square: Float[Array, "m s r"], bandwidth: Float[Array, ""]
) -> Float[Array, " m"]:
    exponent = -square / (2 * bandwidth**2)
    return -jax.nn.logsumexp(exponent, axis=(1, 2))
