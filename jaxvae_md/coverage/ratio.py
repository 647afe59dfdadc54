"""The score: how far an environment is from the data, relative to how densely the data lie there.

With a melt among the training data plain distances measure disorder, and fail. What works is a
ratio, always between different structures. For points y (one of the views of an environment):

    d_s(y) smallest distance from y to the reference atoms of training structure s
    l(y)   mean of log d_s over the 3 nearest structures; own(r): the same for a reference atom r
           without its own structure, and without that of y where y is of the training set
    LR(y)  log(exp l(y) + g) - mean over r of log(exp own(r) + g), r the nearest atom of each of
           the 20 nearest structures, g = 0.1 exp(mean own)

and for an atom that differs from all around it, a vacancy's neighbor say, with the mean m and the
deviation s of x over its region,

    c(y)   1/2 log(1 + mean over columns of (x - m)^2 / (s^2 + 0.1^2))

The score is LR(region) + 1/2 LR(near) + c. In `LatentRatio` the region is seen through the encoder
of a VAE that was trained on regions, in units of the codes' posterior deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array, Params
from jaxvae_md.coverage.references import (
    PER_STRUCTURE,
    References,
    by_rows,
    choose,
    closest,
    gather,
    squared_distances,
)
from jaxvae_md.coverage.surroundings import Surroundings
from jaxvae_md.descriptors.standardize import Standardizer, fit_standardizer
from jaxvae_md.vae import VAE, train, vae

_NUM_NEAREST = 3
_NUM_DENSITY = 20
_FLATNESS = 0.1
"""standard deviation of standardised descriptors below which a region counts as uniform"""


class Density(NamedTuple):
    """The score LR of one view, as a pytree."""

    references: References
    own: Float[Array, "s r k"]
    """log distance of each reference atom to the nearest four of the other structures"""
    other: Int[Array, "s r k"]
    """and which structures these are"""
    floor: Float[Array, ""]

    def log_ratio(self, y: Float[Array, "m d"], own: Int[Array, " m"]) -> Float[Array, " m"]:
        """LR of each point, with a structure left out (-1: none)."""
        square, structure = closest(squared_distances(self.references, y, own), _NUM_DENSITY)
        atom = jnp.argmin(square, axis=2)
        left = self.other[structure, atom] != own[:, None, None]
        around = _mean_of_first(self.own[structure, atom], left)
        floored = lambda log: jnp.log(jnp.exp(log) + self.floor)
        return floored(_log_distance(square)) - jnp.mean(floored(around), axis=1)


class LocalRatio(NamedTuple):
    """The score on pooled descriptors as they are."""

    region: Density
    near: Density

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Higher is less covered."""
        total = self.region.log_ratio(y.region, own) + 0.5 * self.near.log_ratio(y.near, own)
        return total + contrast(y)


class LatentRatio(NamedTuple):
    """The score with the region in the latent space of a VAE."""

    region: Density
    """in codes"""
    near: Density
    encoder: RegionEncoder

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Higher is less covered."""
        region = self.region.log_ratio(self.encoder.code(y.region), own)
        return region + 0.5 * self.near.log_ratio(y.near, own) + contrast(y)


class RegionEncoder(NamedTuple):
    """From a region to its code in units of the posterior's deviation; a pytree."""

    standardizer: Standardizer
    params: Params
    spread: Float[Array, " latent"]
    """mean posterior standard deviation of each dimension on the training data"""

    def code(self, region: Float[Array, "m d"]) -> Float[Array, "m latent"]:
        """Codes of pooled descriptors."""
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, region.dtype), self.params)
        model = _region_vae(region.shape[-1], len(self.spread))
        mean, _ = model.encode(params, self.standardizer.apply(region))
        return mean / jnp.asarray(self.spread, region.dtype)


def contrast(y: Surroundings) -> Float[Array, " m"]:
    """c(y): how much an atom differs from the region around it."""
    mean, deviation = jnp.split(y.region, 2, axis=-1)
    square = (y.own - mean) ** 2 / (deviation**2 + _FLATNESS**2)
    return 0.5 * jnp.log1p(jnp.mean(square, axis=-1))


def local_ratio(num_references: int = PER_STRUCTURE):
    """The score on pooled descriptors as they are, as a method of `coverage.fit`.

    ```python
    model = coverage.fit(training, kinds, method=coverage.local_ratio())
    ```
    """

    def fit(training: Sequence[Surroundings], seed: int) -> LocalRatio:
        rows = choose([len(y.own) for y in training], num_references, seed)
        return LocalRatio(
            _density([y.region for y in training], rows), _density([y.near for y in training], rows)
        )

    return fit


def latent_ratio(latent_dim: int = 8, num_steps: int = 1000, num_references: int = PER_STRUCTURE):
    """The score with regions in the latent space of a VAE, as a method of `coverage.fit`.

    The VAE is trained on the regions of the training structures, a tenth of which decide when
    to stop; it never sees labels. More steps draw the training structures apart from each other,
    and the thresholds become too high.

    ```python
    model = coverage.fit(training, kinds, method=coverage.latent_ratio(latent_dim=8))
    ```
    """

    def fit(training: Sequence[Surroundings], seed: int) -> LatentRatio:
        rows = choose([len(y.own) for y in training], num_references, seed)
        encoder = _fit_encoder([y.region for y in training], latent_dim, num_steps, seed)
        code = jax.jit(RegionEncoder.code)
        cuts = np.cumsum([len(y.own) for y in training])[:-1]
        codes = np.asarray(code(encoder, np.concatenate([y.region for y in training])))
        region = _density(np.split(codes, cuts), rows)
        return LatentRatio(region, _density([y.near for y in training], rows), encoder)

    return fit


def _fit_encoder(
    regions: Sequence[Float[Array, "n d"]], latent_dim: int, num_steps: int, seed: int
) -> RegionEncoder:
    standardizer = fit_standardizer(np.concatenate(regions), floor=1e-6)
    order = np.random.default_rng(seed).permutation(len(regions))
    num = max(1, len(regions) // 10)
    z = lambda rows: np.concatenate([np.asarray(standardizer.apply(regions[i])) for i in rows])
    model = _region_vae(regions[0].shape[1], latent_dim)
    params, _ = train(
        model, z(order[num:]), key=jax.random.key(seed), x_test=z(order[:num]),
        num_steps=num_steps, learning_rate=2e-3,
    )  # fmt: skip
    _, log_variance = model.encode(params, jnp.asarray(z(order), jnp.float32))
    return RegionEncoder(standardizer, params, jnp.mean(jnp.exp(0.5 * log_variance), axis=0))


def _region_vae(num_features: int, latent_dim: int) -> VAE:
    return vae(num_features, latent_dim, hidden=(128, 128))


def _density(points: Sequence[Float[Array, "n d"]], rows: Int[np.ndarray, "s r"]) -> Density:
    references = gather(points, rows)
    own, other = _own_distances(references)
    mean = jnp.mean(_mean_of_first(own, jnp.ones(own.shape, bool)), where=references.valid)
    return Density(references, own, other, 0.1 * jnp.exp(mean))


@jax.jit
def _own_distances(references: References) -> tuple[Array, Array]:
    s, r, width = references.point.shape
    structure = jnp.repeat(jnp.arange(s), r)

    def nearest(y, own):
        # one more than are needed: a structure may be left out
        near, other = closest(squared_distances(references, y, own), _NUM_NEAREST + 1)
        return 0.5 * jnp.log(jnp.min(near, axis=2)), other

    found = by_rows(nearest, references.point.reshape(s * r, width), structure)
    own, other = (part.reshape(s, r, -1) for part in found)
    return own, other


def _mean_of_first(values: Float[Array, "*b k"], left: Bool[Array, "*b k"]) -> Float[Array, "*b"]:
    """Mean of the first three that are left."""
    chosen = left & (jnp.cumsum(left, axis=-1) <= _NUM_NEAREST)
    total = jnp.sum(jnp.where(chosen, values, 0), axis=-1)
    return total / jnp.maximum(jnp.sum(chosen, axis=-1), 1)


def _log_distance(near: Float[Array, "m k r"]) -> Float[Array, " m"]:
    """l(y): mean log distance to the nearest structures."""
    return jnp.mean(0.5 * jnp.log(jnp.min(near[:, :_NUM_NEAREST], axis=2)), axis=1)
