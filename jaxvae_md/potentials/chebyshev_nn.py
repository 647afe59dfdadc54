"""A small network per species on standardised Chebyshev descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.neighbors import displacements
from jaxvae_md.perceptron import Perceptron
from jaxvae_md.potentials.potential import Atomic, Evaluation, Potential, potential


class Features(NamedTuple):
    """What a fit keeps of a frame: descriptors and their derivatives, standardised."""

    descriptor: Float[Array, "n f"]
    derivative: Float[Array, "n f k 3"]
    """by the displacement vectors of the neighbors, 1/angstrom"""
    displacement: Float[Array, "n k 3"]
    """to the neighbors, angstrom"""
    volume: Float[Array, ""]
    """of the cell, angstrom^3"""
    neighbor: Int[Array, "n k"]
    species: Int[Array, " n"]
    mask: Bool[Array, " n"]


def chebyshev_nn(
    descriptor: Chebyshev, standardizer: Standardizer, hidden: Sequence[int] = (64, 64)
) -> Potential:
    """Sum over atoms of a network of the atom's own species on its standardised descriptor.

    Parameters: {symbol: network parameters}, float32. Its fit never evaluates the descriptor
    again: `prepare` keeps descriptors and derivatives of every frame, in float32.

    **Source:** Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007), with the descriptors
    of Artrith, Urban and Ceder (2017).

    ```python
    network = chebyshev_nn(descriptor, fit_standardizer(x_train))
    params = network.init(jax.random.key(0))
    ```
    """
    species = descriptor.species
    # small at first: the fit starts from what the other terms say
    small = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")

    def network_of(rngs: nnx.Rngs) -> Perceptron:
        return Perceptron(descriptor.num_features, hidden, 1, rngs, small)

    graph, _ = nnx.split(nnx.eval_shape(lambda: network_of(nnx.Rngs(params=0))))

    def init(key):
        def one(key):
            return nnx.to_pure_dict(nnx.state(network_of(nnx.Rngs(params=key)), nnx.Param))

        keys = jax.random.split(key, len(species))
        return {symbol: one(k) for symbol, k in zip(species, keys, strict=True)}

    def of_atoms(params, z, of_species):
        energy = jnp.zeros(z.shape[0], z.dtype)
        for number, symbol in enumerate(species):
            network = nnx.merge(graph, nnx.State(params[symbol]))
            energy = jnp.where(of_species == number, network(z)[:, 0], energy)
        return energy

    def total(params, z, of_species, mask):
        return jnp.sum(jnp.where(mask, of_atoms(params, z, of_species), 0))

    def atomic(params, x, of_species):
        return of_atoms(params, standardizer.apply(x), of_species)

    def energy(params, structure, neighbors):
        return descriptor.total(atomic, params, structure, neighbors)

    def prepare(structure, neighbors):
        x, derivative = descriptor.linearise(structure, neighbors)
        scale = jnp.asarray(standardizer.scale, x.dtype)[:, None, None]
        return Features(
            descriptor=standardizer.apply(x).astype(jnp.float32),
            derivative=(derivative / scale).astype(jnp.float32),
            displacement=displacements(structure, neighbors).astype(jnp.float32),
            volume=jnp.abs(jnp.linalg.det(structure.cell)).astype(jnp.float32),
            neighbor=jnp.asarray(neighbors.index),
            species=jnp.asarray(structure.species),
            mask=jnp.asarray(structure.mask),
        )

    def predict(params, features: Features) -> Evaluation:
        value, slope = jax.value_and_grad(total, argnums=1)(
            params, features.descriptor, features.species, features.mask
        )
        # dE / dr_ij acts on i with its own sign and on j with the opposite one
        pair = jnp.einsum("nf,nfkc->nkc", slope, features.derivative)
        forces = jnp.sum(pair, axis=1)
        virial = jnp.einsum("nkc,nkd->cd", pair, features.displacement)
        stress = 0.5 * (virial + virial.T) / features.volume
        return Evaluation(value, forces.at[features.neighbor].add(-pair), stress)

    return potential(
        species,
        descriptor.cutoff,
        init,
        energy,
        prepare,
        predict,
        atomic=Atomic(descriptor, atomic),
    )
