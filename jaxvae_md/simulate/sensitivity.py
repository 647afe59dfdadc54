"""Gradients of what a simulation measures, and how far they can be believed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.simulate.advance import advance
from jaxvae_md.simulate.engine import Simulator, State, Trajectory
from jaxvae_md.simulate.rollout import Adjoint, rollout

_E_FOLDS = 10
"""growth of a tangent that a gradient survives: of its average the noise is e^10 times as large"""
_STRETCH = 10
"""steps between two looks at the tangent"""


class HorizonWarning(UserWarning):
    """A gradient through more steps than the horizon of chaos."""


class Sensitivity(NamedTuple):
    """What was measured, and its gradient."""

    value: Float[Array, ""]
    gradient: Params
    """by the parameters of the potential"""
    error: Int[Array, ""]
    """error bits of the simulation; NOT_FINITE too where the value or the gradient is not"""


def value_and_grad(
    loss_fn: Callable[[Params, State, Trajectory], Float[Array, ""]],
    simulator: Simulator,
    num_steps: int,
    record_every: int | None = None,
    adjoint: Adjoint | Literal["forward"] = "reversible",
) -> Callable[[Params, State], Sensitivity]:
    """The gradient of a loss on a simulation by the potential's parameters; to be jitted.

    **Arguments:** `loss_fn(params, last_state, trajectory)` of frames recorded every
    `record_every` steps, at the end only where none is given. `adjoint` as in `rollout`, or
    "forward", whose memory does not grow with the steps and whose time does with the parameters:
    for one or two of them, and every ensemble. **Raises:** `OptionError`.

    ```python
    squared = lambda params, last, trajectory: jnp.sum(last.structure.position**2)
    sensitivity = jax.jit(value_and_grad(squared, nve(potential), num_steps=500))(params, state)
    errors.check(sensitivity.error, "gradient")
    ```
    """
    if adjoint != "forward" and adjoint not in get_args(Adjoint):
        raise OptionError(
            f"adjoint is {adjoint!r}",
            remedy=f"choose one of {', '.join(get_args(Adjoint))}, forward",
        )

    def measured(params, state):
        way = "stored" if adjoint == "forward" else adjoint
        every = num_steps if record_every is None else record_every
        last, trajectory = rollout(simulator, params, state, num_steps, every, way)
        value = loss_fn(params, last, trajectory)
        return value, (value, trajectory.error)

    def function(params, state):
        differentiate = jax.jacfwd if adjoint == "forward" else jax.grad
        gradient, (value, error) = differentiate(measured, has_aux=True)(params, state)
        finite = jnp.isfinite(value)
        for leaf in jax.tree.leaves(gradient):
            finite &= jnp.all(jnp.isfinite(leaf))
        return Sensitivity(value, gradient, error | jnp.where(finite, 0, errors.NOT_FINITE))

    return function


def horizon(simulator: Simulator, params: Params, state: State, num_steps: int = 400) -> float:
    """Steps after which a gradient through the simulation says nothing; infinite without chaos.

    Two simulations that differ by a little drift apart as a tangent grows. Their distance is
    brought back every few steps, and its growth averaged over the second half of `num_steps`
    (Benettin's method). The horizon is where a tangent has grown e^10 times: the gradient is then
    right, but of a single trajectory, and as many times larger than that of an average. An
    estimate, good to some tens of per cent. On the host; for one system. **Raises:** `RunError`
    where a neighbor list ran out of capacity: `begin` with more `extra`.

    **Source:** Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15, 9 (1980); Metz, Freeman,
    Schoenholz and Kachman, arXiv:2111.05803 (2021).

    ```python
    horizon(simulator, params, state)  # some 700 steps of 0.005 tau in a Lennard-Jones liquid
    ```
    """
    growth, overflow = _growth(simulator, num_steps // _STRETCH, params, state)
    errors.check(jnp.where(overflow, errors.NEIGHBOR_OVERFLOW, 0), "the horizon's simulation")
    late = np.asarray(growth, float)[len(growth) // 2 :]
    total = late.sum()
    # a crystal's atoms swing: what is seen must be more than that
    if not total > 1.0:
        return np.inf
    return float(_E_FOLDS * len(late) * _STRETCH / total)


def warn_past_horizon(simulator: Simulator, params: Params, state: State, num_steps: int) -> float:
    """The `horizon`, with a `HorizonWarning` where `num_steps` are beyond it.

    ```python
    warn_past_horizon(simulator, params, state, num_steps=5000)
    ```
    """
    limit = horizon(simulator, params, state)
    if num_steps > limit:
        warnings.warn(
            f"a gradient through {num_steps} steps is noise: tangents grow e^{_E_FOLDS} times "
            f"within about {limit:.0f}; take fewer, or fit by reweighting",
            HorizonWarning,
            stacklevel=2,
        )
    return limit


@partial(jax.jit, static_argnums=(0, 1))
def _growth(simulator: Simulator, num_stretches: int, params: Params, state: State):
    """Logarithm of the growth of a small difference in each stretch; whether a list overflowed."""
    dtype = state.structure.position.dtype
    small = 1e-6 if dtype == jnp.float64 else 1e-3

    def at_distance(state, position, momentum):
        """A state that differs by that, scaled to be small."""
        scale = small / jnp.sqrt(_mean_square(position, momentum, state))
        moved = state.structure.position + scale * position
        dynamics = state.dynamics.set(
            position=moved, momentum=state.dynamics.momentum + scale * momentum
        )
        return dynamics, state.structure._replace(position=moved)

    noise = jax.random.normal(jax.random.key(0), state.structure.position.shape, dtype)
    near = State(*at_distance(state, noise, jnp.zeros_like(noise)), state.neighbors)

    def stretch(pair, _):
        state, near = (advance(simulator, params, one, _STRETCH) for one in pair)
        position = near.structure.position - state.structure.position
        momentum = near.dynamics.momentum - state.dynamics.momentum
        growth = 0.5 * jnp.log(_mean_square(position, momentum, state)) - jnp.log(small)
        return (state, State(*at_distance(state, position, momentum), near.neighbors)), growth

    (state, near), growth = lax.scan(stretch, (state, near), length=num_stretches)
    return growth, state.neighbors.overflow | near.neighbors.overflow


def _mean_square(position, momentum, state):
    """Of a difference in phase space, in angstrom squared."""
    # the time in which a momentum becomes a displacement that matters: 0.1 ps, about
    velocity = 10.0 * momentum / state.dynamics.mass
    return jnp.mean(position**2) + jnp.mean(velocity**2)
