"""What a VAE can reconstruct, with PCA of the same dimension beside it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.vae.loss import elbo
from jaxvae_md.vae.model import VAE


class ReconstructionReport(NamedTuple):
    """Held-out descriptors and what comes back of them."""

    r2: Float[np.ndarray, " f"]
    """of every component, by the encoder's mean"""
    r2_pca: Float[np.ndarray, " f"]
    """by PCA of the same dimension"""
    kl: Float[np.ndarray, " latent"]
    """mean divergence of each latent dimension, nats"""
    by_vae: Float[np.ndarray, "t f"]
    by_pca: Float[np.ndarray, "t f"]


def reconstruction_report(
    model: VAE,
    params: Params,
    x: Float[Array, "m f"],
    x_test: Float[Array, "t f"],
    num_refinements: int = 0,
) -> ReconstructionReport:
    """Reconstruction of held-out descriptors, component by component.

    **Arguments:** `x` the standardised descriptors that PCA is fitted on; `x_test` held-out ones;
    `num_refinements` of the code, see `refine`.

    ```python
    report = reconstruction_report(model, params, z_train, z_test)
    report.r2.mean(), report.r2.min(), report.r2_pca.mean(), active_dims(report.kl[None])
    ```
    """
    single = jnp.asarray(x_test, jnp.float32)
    code, _ = model.encode(params, single)
    by_vae = model.decode(params, refine(model, params, single, code, num_refinements))
    by_pca, _ = pca_reconstruction(x, x_test, model.latent_dim)
    return ReconstructionReport(
        r2=reconstruction_r2(x_test, by_vae),
        r2_pca=reconstruction_r2(x_test, by_pca),
        kl=np.mean(np.asarray(elbo(model, params, single).kl), axis=0),
        by_vae=np.asarray(by_vae),
        by_pca=by_pca,
    )


def refine(
    model: VAE,
    params: Params,
    x: Float[Array, "m f"],
    code: Float[Array, "m latent"],
    num_steps: int = 1,
    damping: float = 1e-3,
) -> Float[Array, "m latent"]:
    """The encoder's codes brought closer to what the decoder reproduces x best from.

    Damped Gauss-Newton steps on |x - decode(code)|^2; one of them closes most of the gap that an
    encoder leaves, since it answers for all environments at once. Differentiable.

    **Source:** the amortisation gap: Cremer, Li and Duvenaud, arXiv:1801.03558; iterative
    inference: Marino, Yue and Mandt, arXiv:1807.09356.

    ```python
    code = refine(model, params, z, model.encode(params, z)[0])
    ```
    """
    unit = damping * jnp.eye(code.shape[-1], dtype=code.dtype)

    def improved(pair):
        x, code = pair
        decode = lambda code: model.decode(params, code)
        for _ in range(num_steps):
            slope, missing = jax.jacfwd(decode)(code), x - decode(code)
            code = code + jnp.linalg.solve(slope.T @ slope + unit, slope.T @ missing)
        return code

    return lax.map(improved, (x, code), batch_size=256) if num_steps else code


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
