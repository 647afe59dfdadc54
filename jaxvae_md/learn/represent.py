"""Stages: descriptors of all frames, and the VAE trained on them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md._typing import Array
from jaxvae_md.descriptors import describe as describe_frames
from jaxvae_md.descriptors import fit_standardizer, perturbed
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.state import State, atoms_of, frames_of, validation_split
from jaxvae_md.vae import ReconstructionReport, active_dims, reconstruction_report, train


def describe(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """Descriptors of all frames; the standardisation is fitted on the training frames."""
    del key
    frames = frames_of(state.data.structure, config.species)
    x = np.concatenate(describe_frames(frames, config.architecture.descriptor, progress))
    standardizer = fit_standardizer(x[atoms_of(state, state.train)])
    return state._replace(x=x, standardizer=standardizer), {
        "num_frames": len(frames),
        "num_environments": len(x),
        "num_features": x.shape[1],
    }


def train_vae(state: State, config: Config, key: Array, progress: bool) -> tuple[State, dict]:
    """The VAE on the environments of the training frames, judged on the held-out ones.

    When to stop is decided by some of the training frames, which are then not trained on.
    """
    assert state.x is not None and state.standardizer is not None
    z = np.asarray(state.standardizer.apply(jnp.asarray(state.x)))
    fit, validation = validation_split(state, 1 / 12, config.seed)
    params, history = train(
        config.architecture.autoencoder,
        np.concatenate([z[atoms_of(state, fit)], _perturbed(state, config, fit)]),
        key=key,
        x_test=z[atoms_of(state, validation)],
        num_steps=config.vae_steps,
        beta=_BETA,
        progress=progress,
    )
    curves = {"vae_train": history.elbo_train, "vae_validation": history.elbo_test}
    state = state._replace(vae_params=params, history={**state.history, **curves})
    return state, {**reconstruction(state, config)[0], "num_epochs": len(history.elbo_test)}


_BETA, _RATTLE = 0.3, 0.05
"""weight of the divergence; displacements in nearest-neighbor distances"""


def _perturbed(state: State, config: Config, rows: np.ndarray) -> np.ndarray:
    """Standardised descriptors of strained and rattled copies of the frames."""
    assert state.standardizer is not None and config.nearest_distance is not None
    descriptor = config.architecture.descriptor
    if not config.vae_copies:
        return np.empty((0, descriptor.num_features))
    frames = frames_of(state.data.structure, config.species)
    rattle = _RATTLE * config.nearest_distance
    copies = perturbed(
        [frames[i] for i in rows], config.vae_copies, rattle=rattle, seed=config.seed
    )
    x = np.concatenate(describe_frames(copies, descriptor))
    return np.asarray(state.standardizer.apply(jnp.asarray(x)))


def standardized(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Standardised descriptors of the training and of the held-out environments."""
    assert state.x is not None and state.standardizer is not None
    z = np.asarray(state.standardizer.apply(jnp.asarray(state.x)))
    return z[atoms_of(state, state.train)], z[atoms_of(state, state.test)]


def reconstruction(state: State, config: Config) -> tuple[dict[str, Any], ReconstructionReport]:
    """Figures of the VAE on held-out frames, and the report that they are from."""
    vae = config.architecture.autoencoder
    report = reconstruction_report(vae, state.vae_params, *standardized(state))
    return {
        "vae_r2": float(report.r2.mean()),
        "vae_r2_worst": float(report.r2.min()),
        "pca_r2": float(report.r2_pca.mean()),
        "active_dims": active_dims(report.kl[None]),
        "kl_per_dim": report.kl.round(3).tolist(),
    }, report


def latent_codes(state: State, config: Config, x: np.ndarray) -> np.ndarray:
    """Latent means of descriptors, `[atoms, latent]`."""
    assert state.standardizer is not None
    vae = config.architecture.autoencoder
    z = jnp.asarray(state.standardizer.apply(jnp.asarray(x)), jnp.float32)
    return np.asarray(jax.jit(vae.encode)(state.vae_params, z)[0])
