"""Many steps that share neighbor lists, under jit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool

from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.potentials.evaluate import Neighbors
from jaxvae_md.simulate.engine import Simulator, State

_CACHED_ATOMS = 2048
"""atoms of small systems that are simulated together where a cache is small"""

Moving = TypeVar("Moving")


def advance(simulator: Simulator, params: Params, state: State, num_steps: int) -> State:
    """`num_steps` steps without a record: the fast way, which has no reverse-mode derivative.

    The neighbor list stays outside the loop of the steps that share it. With a leading axis of
    systems, those that are simulated together get a new list when one of them needs it: on a
    CPU as many as its cache holds, and else all.

    ```python
    state = jax.jit(partial(advance, simulator, num_steps=1000))(params, state)
    ```
    """
    together = partial(_advance_together, simulator, params, num_steps=num_steps)
    if state.structure.position.ndim == 2 or isinstance(state.neighbors, AllPairs):
        return together(state)
    num_systems, num_atoms, _ = state.structure.position.shape
    size = min(num_systems, max(1, _CACHED_ATOMS // num_atoms))
    num_grouped = num_systems // size * size

    def in_groups(state):
        grouped = lambda leaf: leaf[:num_grouped].reshape(-1, size, *leaf.shape[1:])
        done = lax.map(together, jax.tree.map(grouped, state))
        done = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), done)
        if num_grouped == num_systems:
            return done
        rest = together(jax.tree.map(lambda leaf: leaf[num_grouped:], state))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), done, rest)

    return lax.platform_dependent(state, cpu=in_groups, default=together)


def _advance_together(simulator: Simulator, params: Params, state: State, num_steps: int) -> State:
    move_one = over_systems(lambda s: simulator.move(params, s), state)
    is_stale_one = over_systems(simulator.is_stale, state)
    update_one = over_systems(simulator.update_fn(state.neighbors), state)

    def move(moving, neighbors):
        state = move_one(State(moving[0], moving[1], neighbors))
        return state.dynamics, state.structure

    def is_stale(moving, neighbors):
        return jnp.any(is_stale_one(State(moving[0], moving[1], neighbors)))

    def update(moving, neighbors):
        return update_one(moving[1], neighbors)

    start = state.dynamics, state.structure
    moving, neighbors = steps_with_lists(move, is_stale, update, start, state.neighbors, num_steps)
    return State(moving[0], moving[1], neighbors)


def steps_with_lists(
    move: Callable[[Moving, Any], Moving],
    is_stale: Callable[[Moving, Any], Bool[Array, ""]],
    update: Callable[[Moving, Any], Any],
    moving: Moving,
    neighbors: Neighbors,
    num_steps: int | Array,
) -> tuple[Moving, Neighbors]:
    """`num_steps` moves, with the neighbor list brought up to date before those that need it.

    **Arguments:** `move(moving, neighbors)` takes a step; `is_stale(moving, neighbors)` tells
    whether the next one needs a new list, and `update(moving, neighbors)` makes it.
    """

    def with_one_list(carry):
        moving, neighbors, left, fresh = carry
        neighbors = lax.cond(fresh, lambda _, n: n, update, moving, neighbors)

        # a step is taken even where a new list is stale at once, lest nothing ever moves
        def one(carry):
            moving, left, _ = carry
            moving = move(moving, neighbors)
            return moving, left - 1, ~is_stale(moving, neighbors)

        moving, left, _ = lax.while_loop(
            lambda carry: (carry[1] > 0) & carry[2], one, (moving, left, jnp.array(True))
        )
        return moving, neighbors, left, jnp.array(False)

    start = moving, neighbors, jnp.asarray(num_steps, jnp.int32), ~is_stale(moving, neighbors)
    moving, neighbors, *_ = lax.while_loop(lambda carry: carry[2] > 0, with_one_list, start)
    return moving, neighbors


def over_systems(function: Callable, state: State) -> Callable:
    """The function of one system, mapped where the state has a leading axis of systems."""
    return jax.vmap(function) if state.structure.position.ndim == 3 else function
