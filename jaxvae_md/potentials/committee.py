"""Several copies of a potential with parameters of their own: their mean, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.potentials.potential import Atomic, Potential, energy_and_forces, potential
from jaxvae_md.structure import Structure


class Spread(NamedTuple):
    """Standard deviations over the members, those of a sample."""

    energy: Float[Array, ""]
    """eV, of the cell"""
    forces: Float[Array, " n"]
    """eV / angstrom, root of the sum over the components' variances of each atom"""


class Committee(NamedTuple):
    """Parameters of all have the members as their leading axis."""

    mean: Potential
    """the members' mean energy, for everything that takes a potential"""
    members: Potential
    """for `fit.force_matching`: `predict` says what each member predicts, so that one fit trains
    all of them, each on its own loss"""
    spread: Callable[[Params, Structure, NeighborList], Spread]


def committee(one: Potential, num: int) -> Committee:
    """`num` copies of a potential, at first of random parameters that differ.

    **Raises:** `OptionError` for fewer than two. **Source:** Seung, Opper and Sompolinsky, Proc.
    COLT 1992, 287; for potentials Artrith and Behler, Phys. Rev. B 85, 045439 (2012).

    ```python
    group = committee(chebyshev_nn(descriptor, standardizer), 4)
    data = fit.prepare(group.members, batches(structures, group.mean.cutoff), energy, forces)
    params = fit.force_matching(group.members, group.mean.init(key), data, key=key).params
    uncertain = group.spread(params, structure, neighbors).forces
    ```
    """
    if num < 2:
        raise OptionError(f"a committee of {num}", remedy="take two or more")

    atomic = None
    if one.atomic is not None:
        # the mean of what members make of descriptors that are evaluated once
        of_member, descriptor = one.atomic.energy, one.atomic.descriptor
        of_mean = lambda params, *atoms: jnp.mean(
            jax.vmap(lambda member: of_member(member, *atoms))(params), axis=0
        )
        atomic = Atomic(descriptor, of_mean)

    def init(key):
        return jax.vmap(one.init)(jax.random.split(key, num))

    def energy(params, structure, neighbors):
        if atomic is not None:
            return atomic.descriptor.total(atomic.energy, params, structure, neighbors)
        each = jax.vmap(one.energy, (0, None, None))(params, structure, neighbors)
        return jnp.mean(each)

    def predict(params, features):
        return jax.vmap(one.predict, (0, None))(params, features)

    def predict_mean(params, features):
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), predict(params, features))

    def spread(params, structure, neighbors):
        of_member = lambda p: energy_and_forces(one.energy, p, structure, neighbors)
        energies, forces = jax.vmap(of_member)(params)
        return Spread(
            jnp.std(energies, ddof=1), jnp.sqrt(jnp.sum(jnp.var(forces, axis=0, ddof=1), axis=-1))
        )

    project = jax.vmap(one.project)
    common = (one.species, one.cutoff, init, energy, one.prepare)
    return Committee(
        mean=potential(*common, predict_mean, project, atomic=atomic),
        members=potential(*common, predict, project),
        spread=spread,
    )
