"""Structures in which the novelty of one atom is raised by gradient ascent."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.coverage import Novelty
from jaxvae_md.descriptors import Chebyshev, Standardizer
from jaxvae_md.generate.candidate import BATCH, Candidate, Setting, rng_of
from jaxvae_md.generate.guard import Guard, overlap
from jaxvae_md.neighbors import (
    NeighborList,
    allocate_systems,
    neighbor_list,
)
from jaxvae_md.potentials import Potential
from jaxvae_md.structure import Structure, stack

_SKIN, _ROOM = 1.0, 1.3
"""angstrom, and room for neighbors that come nearer"""
_NUM_STEPS, _STEPS_PER_LIST = 200, 20
_STEP = 0.02
"""angstrom, Adam's first"""
_SHARPNESS = 20.0
"""of the minimum over references, per d95"""
_NOISE = 0.05
"""angstrom: on a training environment itself the gradient vanishes"""
_MOST_STRAIN = 0.1


class Raised(NamedTuple):
    """Where an ascent ended."""

    structure: Structure
    novelty: Float[Array, ""]
    """of the center, in units of d95"""
    error: Int[Array, ""]
    """error bits: NOT_FINITE, NEIGHBOR_OVERFLOW"""


def soft_novelty(known: Novelty, z: Float[Array, " f"]) -> Float[Array, ""]:
    """Distance to the nearest references over d95, with a gradient by all that are near.

    The weights of the references carry no gradient: a logarithm of summed exponentials over
    thousands of them becomes negative, and its gradient vanishes.

    ```python
    slope = jax.grad(soft_novelty, argnums=1)(known, z)
    ```
    """
    distance = jnp.sqrt(jnp.sum((known.reference - z) ** 2, axis=-1) + 1e-10) / known.d95
    weight = jax.nn.softmax(-_SHARPNESS * lax.stop_gradient(distance))
    return jnp.sum(weight * distance)


def raise_novelty(
    descriptor: Chebyshev,
    standardizer: Standardizer,
    known: Novelty,
    potential: Potential,
    params: Params,
    guard: Guard,
    structure: Structure,
    neighbors: NeighborList,
    center: Int[Array, ""],
    band: tuple[float, float],
) -> Raised:
    """Adam on positions and strain of one structure until its center is novel, under jit.

    Minimises, with n the novelty of the center within `band` (a, b), E the energy in eV and c
    the ceiling,

        10 max(a - n, 0)^2 + 10 max(n - b, 0)^2 + max(E - c, 0) + 20 sum max(dmin - r, 0)^2

    **Arguments:** a list of `neighbors_cutoff`, allocated with a skin of 1 angstrom and room for
    neighbors that come nearer; `guard` limits of distance and energy.

    ```python
    raised = raise_novelty(descriptor, standardizer, known, potential, params, guard,
                           structure, neighbors, center=0, band=(1.6, 2.5))
    ```
    """
    fns = neighbor_list(neighbors_cutoff(descriptor, potential), _SKIN)
    num = jnp.sum(structure.mask)
    mask = structure.mask[:, None]

    def moved(change):
        move, strain = change
        deformation = jnp.eye(3) + _MOST_STRAIN * jnp.tanh((strain + strain.T) / 2)
        position = (structure.position + jnp.where(mask, move, 0)) @ deformation
        return structure._replace(position=position, cell=structure.cell @ deformation)

    def novelty_of(now, neighbors):
        x = descriptor.at(now, neighbors, center[None])[0]
        return soft_novelty(known, standardizer.apply(x))

    def loss(change, neighbors):
        now = moved(change)
        n = novelty_of(now, neighbors)
        energy = potential.energy(params, now, neighbors)
        below, above = jnp.maximum(band[0] - n, 0), jnp.maximum(n - band[1], 0)
        excess = jnp.maximum(energy - num * guard.ceiling, 0)
        close = overlap(now, neighbors, 1.02 * guard.min_distance)
        return 10 * below**2 + 10 * above**2 + excess + 20 * close

    optimiser = optax.adam(_STEP)

    def with_one_list(carry, _):
        change, state, neighbors = carry
        neighbors = fns.update(moved(change), neighbors)

        def step(carry, _):
            change, state = carry
            updates, state = optimiser.update(jax.grad(loss)(change, neighbors), state)
            return (optax.apply_updates(change, updates), state), None

        (change, state), _ = lax.scan(step, (change, state), length=_STEPS_PER_LIST)
        return (change, state, neighbors), None

    change = jnp.zeros_like(structure.position), jnp.zeros((3, 3), structure.position.dtype)
    start = change, optimiser.init(change), neighbors
    (change, _, neighbors), _ = lax.scan(with_one_list, start, length=_NUM_STEPS // _STEPS_PER_LIST)
    end = moved(change)
    neighbors = fns.update(end, neighbors)
    finite = jnp.all(jnp.isfinite(end.position))
    error = jnp.where(finite, 0, errors.NOT_FINITE) | jnp.where(
        neighbors.overflow, errors.NEIGHBOR_OVERFLOW, 0
    )
    return Raised(end, novelty_of(end, neighbors), error)


def neighbors_cutoff(descriptor: Chebyshev, potential: Potential) -> float:
    """Angstrom: what the list of an ascent must cover."""
    return max(descriptor.cutoff, potential.cutoff)


def ascend(setting: Setting, key: Array, num: int, band: tuple[float, float]) -> list[Candidate]:
    """Training structures of which one atom was made novel, side by side.

    The target lies well within `band`, since novelty is measured again with all references.

    ```python
    candidates = ascend(setting, jax.random.key(0), num=10, band=(1.5, 4.5))
    ```
    """
    rng = rng_of(key)
    start = rng.integers(len(setting.training), size=num)
    center = np.array([rng.integers(len(setting.training[int(i)].position)) for i in start])
    target = band[0] + 0.1, max(band[0] + 0.1, 0.5 * (band[0] + band[1]))
    fns = neighbor_list(neighbors_cutoff(setting.descriptor, setting.potential), _SKIN)
    raise_ = _compiled(setting.descriptor, setting.potential, target)
    known = setting.standardizer, setting.known, setting.params, setting.guard
    known = jax.tree.map(jnp.asarray, known)
    out = []
    for first in range(0, num, BATCH):
        # the last batch is filled up, so that one shape is compiled
        rows = np.resize(np.arange(first, min(first + BATCH, num)), BATCH)
        batch = stack([setting.training[int(i)] for i in start[rows]])
        noise = rng.normal(0, _NOISE, batch.position.shape) * batch.mask[..., None]
        batch = batch._replace(position=batch.position + noise)
        neighbors = allocate_systems(fns, batch, extra=_ROOM)
        raised = raise_(known, batch, neighbors, jnp.asarray(center[rows]))
        for slot, i in enumerate(rows[: num - first]):
            size = len(setting.training[int(start[i])].position)
            structure = setting.training[int(start[i])]._replace(
                position=np.asarray(raised.structure.position[slot, :size]),
                cell=np.asarray(raised.structure.cell[slot]),
            )
            origin = int(center[i]), int(start[i]), "ascent", "novelty", None
            out.append(Candidate(structure, *origin, error=int(raised.error[slot])))
    return out


@lru_cache(maxsize=16)
def _compiled(descriptor: Chebyshev, potential: Potential, band: tuple[float, float]):
    def function(known, structure, neighbors, center):
        standardizer, references, params, guard = known
        one = lambda s, n, c: raise_novelty(
            descriptor, standardizer, references, potential, params, guard, s, n, c, band
        )
        return jax.vmap(one)(structure, neighbors, center)

    return jax.jit(function)
