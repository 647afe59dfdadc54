"""The models of a run: everything that config and standardizer decide."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float

from jaxvae_md.descriptors import Chebyshev, Standardizer, chebyshev
from jaxvae_md.learn.config import Config
from jaxvae_md.potentials import (
    Potential,
    atomic_energy,
    chebyshev_nn,
    compose,
    lennard_jones,
)
from jaxvae_md.vae import VAE, vae


@lru_cache
def descriptor(config: Config) -> Chebyshev:
    """The Chebyshev descriptor of the run, for the VAE and the network alike."""
    assert config.cutoff is not None
    orders = (config.radial_order, config.angular_order)
    return chebyshev(config.species, config.cutoff, orders[0], config.cutoff, orders[1])


@lru_cache
def autoencoder(config: Config) -> VAE:
    """The VAE of the run."""
    return vae(descriptor(config).num_features, config.latent_dim)


@lru_cache
def lj_model(config: Config) -> Potential:
    """Atomic energies and Lennard-Jones: the first potential, and the core of the full one."""
    return compose(**_lj_terms(config))


def network_model(config: Config, standardizer: Standardizer) -> Potential:
    """The network alone: it learns what the core leaves."""
    mean, scale = (tuple(map(float, values)) for values in standardizer)
    return _network(config, mean, scale)


def full_model(config: Config, standardizer: Standardizer) -> Potential:
    """Atomic energies, Lennard-Jones core and network.

    Parameters: {"reference", "lennard_jones", "network"}; sigma is
    `params["lennard_jones"]["sigma"]`.
    """
    mean, scale = (tuple(map(float, values)) for values in standardizer)
    return _full(config, mean, scale)


@lru_cache
def _network(config: Config, mean: tuple[float, ...], scale: tuple[float, ...]) -> Potential:
    standardizer = Standardizer(np.array(mean), np.array(scale))
    return chebyshev_nn(descriptor(config), standardizer, config.hidden)


@lru_cache
def _full(config: Config, mean: tuple[float, ...], scale: tuple[float, ...]) -> Potential:
    network = _network(config, mean, scale)
    return compose(**_lj_terms(config), network=network)


def _lj_terms(config: Config) -> dict[str, Potential]:
    """The unlearned sigma puts the minimum at the data's nearest-neighbor distance."""
    assert config.cutoff is not None and config.nearest_distance is not None
    sigma = config.nearest_distance * 2 ** (-1 / 6)
    return {
        "reference": atomic_energy(config.species),
        "lennard_jones": lennard_jones(config.species, config.cutoff, sigma, 0.3),
    }


def min_distance(
    config: Config, shortest: Float[np.ndarray, "s s"], margin: float = 0.95
) -> Float[np.ndarray, "s s"]:
    """Lower limits (angstrom) of pair distances in generated structures.

    The shortest distance in the training data less a margin; for pairs that never meet there,
    0.7 times the sum of covalent radii.
    """
    from ase.data import atomic_numbers, covalent_radii

    radius = np.array([covalent_radii[atomic_numbers[symbol]] for symbol in config.species])
    fallback = 0.7 * (radius[:, None] + radius)
    return np.where(np.isfinite(shortest), margin * shortest, fallback)
