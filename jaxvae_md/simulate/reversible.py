"""Velocity Verlet and its adjoint, which runs the simulation backwards in constant memory.

The positions on the way back are computed again from the end, so that none is stored. One pass
over the pairs gives the force that this takes and the product with the Hessian that the adjoint
takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float

from jaxvae_md import units
from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs, is_strained
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import is_stale
from jaxvae_md.potentials import evaluate
from jaxvae_md.simulate.advance import advance, steps_with_lists
from jaxvae_md.simulate.engine import Simulator, State

_ANOTHER_WAY = 1e-3
"""angstrom: the way back is another one where it misses the way there by more"""


_MOST_STEPS = {4: 200, 8: 1000}
"""between two starts of the way back, by the bytes of a number"""
_FEWEST_STEPS = 50


class Frames(NamedTuple):
    """What is recorded; the time axis leads."""

    position: Float[Array, "t n 3"]
    momentum: Float[Array, "t n 3"]
    energy: Float[Array, " t"]
    overflow: Bool[Array, " t"]


class _Backward(NamedTuple):
    """On the way back: a position, the momentum half a step after it, and derivatives by both."""

    position: Float[Array, "n 3"]
    momentum: Float[Array, "n 3"]
    by_position: Float[Array, "n 3"]
    by_momentum: Float[Array, "n 3"]
    by_mass: Float[Array, "n 1"]
    by_params: Params


def verlet(
    simulator: Simulator, params: Params, state: State, num_records: int, record_every: int
) -> tuple[State, Frames]:
    """The last state and the frames of an NVE simulation, with an adjoint that stores no steps.

    Chaos makes of rounding errors another way back. It starts anew from every frame, and where
    there are fewer from what is stored for that (two arrays `[n, 3]`) every 1,000 steps or less,
    200 in single precision. The gradient is not a number where the way back missed a start by
    more than 0.001 angstrom all the same, or a neighbor list overflowed.
    **Raises:** `OptionError` for other ensembles, and for a derivative by the cell.
    """
    if simulator.verlet is None:
        raise OptionError("only nve runs backwards", remedy='use nve, or adjoint="checkpointed"')
    limit = _MOST_STEPS[state.structure.position.dtype.itemsize]
    parts = next(
        (
            n
            for n in range(1, record_every // _FEWEST_STEPS + 1)
            if record_every % n == 0 and record_every // n <= limit
        ),
        1,
    )
    static = simulator, num_records * parts, record_every // parts
    found: Any = _verlet(static, params, state)
    last, frames = found
    return last, jax.tree.map(lambda leaf: leaf[parts - 1 :: parts], frames)


def _steps(static, params: Params, state: State) -> tuple[State, Frames]:
    simulator, num_records, record_every = static

    def record(state, _):
        state = advance(simulator, params, state, record_every)
        energy = evaluate.energy(simulator.potential, params, state.structure, state.neighbors)
        dynamics = state.dynamics
        return state, Frames(dynamics.position, dynamics.momentum, energy, state.neighbors.overflow)

    return lax.scan(record, state, length=num_records)


_verlet = jax.custom_vjp(_steps, nondiff_argnums=(0,))


def _there(static, params, state):
    if state.structure.cell.perturbed:
        raise OptionError(
            "the reversible adjoint has no derivative by the cell",
            remedy='adjoint="checkpointed"',
        )
    params, state = jax.tree.map(lambda leaf: leaf.value, (params, state))
    last, frames = _steps(static, params, state)
    return (last, frames), (params, state.dynamics.position, last, frames)


def _back(static, residuals, cotangents):
    simulator, _, record_every = static
    potential = simulator.potential
    # jax_md takes its time step in single precision, whatever that of the atoms
    dt = float(np.float32(simulator.verlet * units.FEMTOSECOND))
    params, start, last, frames = residuals
    mass = last.dynamics.mass
    with_energy = not isinstance(cotangents[1].energy, SymbolicZero)
    by_last, by_frames = jax.tree.map(_made, cotangents)
    at = lambda position: last.structure._replace(position=position)
    update = simulator.update_fn(last.neighbors)

    def is_stale_at(position, neighbors):
        if isinstance(neighbors, AllPairs):
            return is_strained(at(position), neighbors)
        return is_stale(at(position), neighbors, simulator.neighbor_fns.skin, potential.cutoff)

    def drift(back: _Backward) -> _Backward:
        """To the position before."""
        velocity = back.momentum / mass
        moved = dt * back.by_position / mass
        return back._replace(
            position=back.position - dt * velocity,
            by_momentum=back.by_momentum + moved,
            by_mass=back.by_mass - jnp.sum(moved * velocity, axis=1, keepdims=True),
        )

    def kick(back: _Backward, neighbors, by_force, time) -> _Backward:
        """To the momentum before the force of this position acted for some time."""
        force, by_params, by_position = evaluate.pull_back_forces(
            potential, params, at(back.position), neighbors, by_force
        )
        return back._replace(
            momentum=back.momentum - time * force,
            by_position=back.by_position + by_position,
            by_params=jax.tree.map(jnp.add, back.by_params, by_params),
        )

    def step(back: _Backward, neighbors) -> _Backward:
        return drift(kick(back, neighbors, dt * back.by_momentum, dt))

    def moves(back: _Backward, neighbors, num_steps):
        return steps_with_lists(
            step,
            lambda back, neighbors: is_stale_at(back.position, neighbors),
            lambda back, neighbors: update(at(back.position), neighbors),
            back,
            neighbors,
            num_steps,
        )

    def to_record_before(carry, recorded):
        back, by_force, neighbors, missed = carry
        frame, by_frame, before = recorded
        keep = lambda _, neighbors: neighbors
        stale = is_stale_at(frame.position, neighbors)
        neighbors = lax.cond(stale, update, keep, at(frame.position), neighbors)
        back = back._replace(
            position=frame.position,
            momentum=frame.momentum,
            by_position=back.by_position + by_frame.position,
            by_momentum=back.by_momentum + by_frame.momentum,
        )
        if with_energy:
            _, by_params, by_position = evaluate.pull_back_energy(
                potential, params, at(frame.position), neighbors
            )
            scaled = lambda total, one: total + by_frame.energy.astype(one.dtype) * one
            back = back._replace(
                by_position=scaled(back.by_position, by_position),
                by_params=jax.tree.map(scaled, back.by_params, by_params),
            )
        by_force = by_force + 0.5 * dt * back.by_momentum
        back = drift(kick(back, neighbors, by_force, 0.5 * dt))
        back, neighbors = moves(back, neighbors, record_every - 1)
        missed |= ~(jnp.max(jnp.abs(back.position - before)) < _ANOTHER_WAY)
        return (back, 0.5 * dt * back.by_momentum, neighbors, missed), None

    end = _Backward(
        position=last.dynamics.position,
        momentum=last.dynamics.momentum,
        by_position=by_last.dynamics.position + by_last.structure.position,
        by_momentum=by_last.dynamics.momentum,
        by_mass=by_last.dynamics.mass,
        by_params=jax.tree.map(jnp.zeros_like, params),
    )
    before = jnp.concatenate([start[None], frames.position[:-1]])
    carry = end, by_last.dynamics.force, last.neighbors, jnp.array(False)
    recorded = frames, by_frames, before
    (back, by_force, neighbors, missed), _ = lax.scan(
        to_record_before, carry, recorded, reverse=True
    )
    wrong = jnp.where(missed | neighbors.overflow, jnp.nan, 0)
    by_params, position, momentum, force, mass = jax.tree.map(
        lambda leaf: leaf + wrong.astype(leaf.dtype),
        (back.by_params, back.by_position, back.by_momentum, by_force, back.by_mass),
    )
    by_dynamics = last.dynamics.set(position=position, momentum=momentum, force=force, mass=mass)
    nothing: Any = None
    return by_params, State(by_dynamics, nothing, nothing)


_verlet.defvjp(_there, _back, symbolic_zeros=True)


def _made(cotangent):
    """An array where no output depends on it too."""
    if isinstance(cotangent, SymbolicZero):
        aval: Any = cotangent.aval
        return jnp.zeros(aval.shape, aval.dtype)
    return cotangent
