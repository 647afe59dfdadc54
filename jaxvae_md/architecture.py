"""What a learned model is made of, beside its parameters: descriptor, VAE and potential."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from jaxvae_md.descriptors import Chebyshev, Standardizer, chebyshev
from jaxvae_md.errors import OptionError
from jaxvae_md.potentials import (
    Committee,
    Potential,
    atomic_energy,
    chebyshev_nn,
    committee,
    compose,
    lennard_jones,
)
from jaxvae_md.vae import VAE, vae

Terms = Literal["lj", "nn", "lj+nn"]
TERMS = get_args(Terms)
"""Lennard-Jones, a network on the descriptors, or the network on a Lennard-Jones core; atomic
energies belong to each."""


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the shapes and functions of a model.

    The models that follow from it are the same objects for equal architectures, so they share
    what is compiled.
    """

    species: tuple[str, ...]
    cutoff: float
    """angstrom, of descriptor, Lennard-Jones and network"""
    nearest_distance: float
    """angstrom; minimum of the unlearned Lennard-Jones, unit of the coverage radii"""
    radial_order: int = 12
    angular_order: int = 12
    latent_dim: int = 8
    hidden: tuple[int, ...] = (64, 64)
    potential: Terms = "lj+nn"
    num_members: int = 1
    """networks of the potential; more than one are a committee, and the potential their mean"""

    def __post_init__(self):
        if self.potential not in TERMS:
            raise OptionError(
                f"potential is {self.potential!r}", remedy=f"give one of {', '.join(TERMS)}"
            )

    @property
    def descriptor(self) -> Chebyshev:
        """The Chebyshev descriptor, for the VAE, the coverage score and the network alike."""
        return _descriptor(self)

    @property
    def autoencoder(self) -> VAE:
        """The VAE of standardised descriptors."""
        return _autoencoder(self)

    @property
    def core(self) -> Potential:
        """Atomic energies and, where it is a term, Lennard-Jones."""
        return compose(**_core_terms(self))

    def trained(self, standardizer: Standardizer) -> Potential:
        """The network alone, which learns what the core leaves; of a committee all members."""
        network = _network(self, *_hashable(standardizer))
        return network.members if isinstance(network, Committee) else network

    def committee(self, standardizer: Standardizer) -> Committee | None:
        """The networks of the potential, where they are two or more."""
        if "nn" not in self.potential:
            return None
        network = _network(self, *_hashable(standardizer))
        return network if isinstance(network, Committee) else None

    def full(self, standardizer: Standardizer) -> Potential:
        """The whole potential.

        Parameters: {"reference", "lennard_jones", "network"} as far as they are terms; sigma is
        `params["lennard_jones"]["sigma"]`.
        """
        return _full(self, *_hashable(standardizer))


@lru_cache
def _descriptor(architecture: Architecture) -> Chebyshev:
    cutoff = architecture.cutoff
    orders = (architecture.radial_order, architecture.angular_order)
    return chebyshev(architecture.species, cutoff, orders[0], cutoff, orders[1])


@lru_cache
def _autoencoder(architecture: Architecture) -> VAE:
    return vae(architecture.descriptor.num_features, architecture.latent_dim)


@lru_cache
def _core_terms(architecture: Architecture) -> dict[str, Potential]:
    terms = {"reference": atomic_energy(architecture.species)}
    if "lj" in architecture.potential:
        # the unlearned sigma puts the minimum at the data's nearest-neighbor distance
        sigma = architecture.nearest_distance * 2 ** (-1 / 6)
        lj = lennard_jones(architecture.species, architecture.cutoff, sigma, 0.3)
        terms["lennard_jones"] = lj
    return terms


def _hashable(standardizer: Standardizer) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(map(float, standardizer.mean)), tuple(map(float, standardizer.scale))


@lru_cache
def _network(
    architecture: Architecture, mean: tuple[float, ...], scale: tuple[float, ...]
) -> Potential | Committee:
    standardizer = Standardizer(np.array(mean), np.array(scale))
    one = chebyshev_nn(architecture.descriptor, standardizer, architecture.hidden)
    return one if architecture.num_members == 1 else committee(one, architecture.num_members)


@lru_cache
def _full(
    architecture: Architecture, mean: tuple[float, ...], scale: tuple[float, ...]
) -> Potential:
    terms = dict(_core_terms(architecture))
    if "nn" in architecture.potential:
        network = _network(architecture, mean, scale)
        terms["network"] = network.mean if isinstance(network, Committee) else network
    return compose(**terms)
