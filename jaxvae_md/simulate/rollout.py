"""Simulations that are differentiated: one scan, and ways to go back through it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList, image_grid
from jaxvae_md.pair_list import PairList
from jaxvae_md.potentials import evaluate
from jaxvae_md.simulate.advance import over_systems
from jaxvae_md.simulate.engine import Simulator, State, Trajectory, temperature
from jaxvae_md.simulate.reversible import verlet

_STORED_STEPS = 50
"""that fit into memory as they are: blocks would compute them once more"""

Adjoint = Literal["stored", "checkpointed", "reversible"]


def rollout(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    record_every: int = 1,
    adjoint: Adjoint = "stored",
) -> tuple[State, Trajectory]:
    """`num_steps` steps as one scan: to be jitted, vmapped and differentiated.

    Neighbor lists are built again inside when an atom has moved far enough; `error` has the
    overflow bit when they ran out of capacity.

    | adjoint | gradient | when |
    |---|---|---|
    | stored | reverse and forward mode; memory for every step | tens of steps, or a few parameters by `jax.jvp` or `jax.jacfwd`, whose memory does not grow |
    | checkpointed | reverse mode; computes each step twice or thrice, memory for the root of their number | every ensemble |
    | reversible | reverse mode; runs backwards, memory for the frames alone | `nve`, and the fastest for radial potentials; not by the cell |

    A gradient through more steps than the horizon of chaos says nothing: see `horizon`. A
    potential whose force jumps at the cutoff (Lennard-Jones by scheme "cut" or "shift") has
    jumps that no gradient sees.

    **Arguments:** frames are recorded every `record_every` steps. **Raises:** `OptionError`.

    ```python
    def loss(params):
        final, _ = rollout(simulator, params, state, 50, record_every=50, adjoint="reversible")
        return jnp.sum(final.structure.position**2)

    jax.grad(loss)(params)
    ```
    """  # noqa: E501
    if record_every < 1 or num_steps % record_every:
        raise OptionError(
            f"{num_steps} steps are no multiple of record_every = {record_every}",
            remedy="choose one that divides the number of steps",
        )
    if adjoint not in get_args(Adjoint):
        raise OptionError(
            f"adjoint is {adjoint!r}", remedy=f"choose one of {', '.join(get_args(Adjoint))}"
        )
    num_records = num_steps // record_every
    if adjoint == "reversible":
        return _reversible(simulator, params, state, num_records, record_every)
    if not isinstance(state.neighbors, NeighborList):
        listed = over_systems(partial(_listed, simulator), state)(state)
        state = state._replace(neighbors=listed)
    one = over_systems(lambda s: simulator.step(params, s), state)
    scan = _checkpointed_scan if adjoint == "checkpointed" else _scan

    def steps(state, num):
        return scan(lambda s, _: (one(s), None), state, num)[0]

    record = record_of(simulator, params, state, record_every, steps)
    state, frames = scan(record, state, num_records)
    return state, frames._replace(error=_any_bits(frames.error))


def record_of(
    simulator: Simulator,
    params: Params,
    state: State,
    record_every: int,
    steps_fn: Callable[[State, int], State],
) -> Callable[[State, Any], tuple[State, Trajectory]]:
    """What a scan does for each frame: steps, and a record that keeps the error bits of its own.

    **Arguments:** `steps_fn(state, num)` takes that many steps. Where the state has a leading
    axis of systems, so has the record.
    """

    def of_system(state):
        return Trajectory(
            position=state.structure.position,
            momentum=state.dynamics.momentum,
            cell=state.structure.cell,
            potential_energy=evaluate.energy(
                simulator.potential, params, state.structure, state.neighbors
            ),
            temperature=temperature(state, simulator.num_conserved),
            error=_bits(state.structure.position, state.neighbors.overflow),
        )

    each = over_systems(of_system, state)

    def record(state, _):
        state = steps_fn(state, record_every)
        return state, each(state)

    return record


def _reversible(simulator, params, state, num_records, record_every):
    def of_system(state):
        last, frames = verlet(simulator, params, state, num_records, record_every)

        def kelvin(momentum):
            dynamics = last.dynamics.set(momentum=momentum)
            return temperature(last._replace(dynamics=dynamics), simulator.num_conserved)

        return last, Trajectory(
            position=frames.position,
            momentum=frames.momentum,
            cell=jnp.broadcast_to(last.structure.cell, (num_records, 3, 3)),
            potential_energy=frames.energy,
            temperature=jax.vmap(kelvin)(frames.momentum),
            error=jax.vmap(_bits)(frames.position, frames.overflow),
        )

    if state.structure.position.ndim == 3:
        last, frames = jax.vmap(of_system)(state)
        frames = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), frames)
    else:
        last, frames = of_system(state)
    return last, frames._replace(error=_any_bits(frames.error))


def _bits(position, overflow):
    bits = jnp.where(overflow, errors.NEIGHBOR_OVERFLOW, 0)
    return bits | jnp.where(jnp.all(jnp.isfinite(position)), 0, errors.NOT_FINITE)


def _any_bits(bits: Array) -> Array:
    """Of all frames."""
    return lax.reduce(bits, np.zeros((), bits.dtype), lax.bitwise_or, (0,))


def _scan(body, carry, length: int):
    return lax.scan(body, carry, length=length)


def _checkpointed_scan(body, carry, length: int):
    """A scan in blocks, of which the reverse pass stores one at a time."""
    body = jax.checkpoint(body)
    if length <= _STORED_STEPS:
        return lax.scan(body, carry, length=length)
    size = isqrt(length)
    block = jax.checkpoint(lambda carry, _: lax.scan(body, carry, length=size))
    num_blocks = length // size
    carry, frames = lax.scan(block, carry, length=num_blocks)
    frames = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), frames)
    rest = length - num_blocks * size
    if rest:
        carry, more = lax.scan(body, carry, length=rest)
        frames = jax.tree.map(lambda *parts: jnp.concatenate(parts), frames, more)
    return carry, frames


def _listed(simulator: Simulator, state: State) -> NeighborList:
    """The list of a state of the fast path in the layout that has gradients."""
    structure, pairs = state.structure, state.neighbors
    num = structure.position.shape[0]
    if isinstance(pairs, AllPairs):
        images = image_grid(np.array(pairs.grid.extent))
        # the images are those within the cutoff; the list holds the skin too
        capacity = 2 * num * len(pairs.grid.steps) + len(images)
        span, grid = jnp.zeros((2, 3), structure.position.dtype), None
    else:
        assert isinstance(pairs, PairList)
        images, capacity = np.zeros((0, 3), np.int32), pairs.places.shape[0]
        span, grid = pairs.window, pairs.grid
    empty = NeighborList(
        index=jnp.zeros((num, capacity), jnp.int32),
        shift=jnp.zeros((num, capacity, 3), jnp.int32),
        mask=jnp.zeros((num, capacity), bool),
        reference_position=structure.position,
        reference_cell=structure.cell,
        images=jnp.asarray(images),
        overflow=pairs.overflow,
        most=pairs.most,
        window=span,
        grid=grid,
    )
    return simulator.neighbor_fns.update(structure, empty)
