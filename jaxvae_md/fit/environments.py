"""Fits that match the environments of a simulation with those of a reference."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Float

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import RunError
from jaxvae_md.fit.optimisers import relative
from jaxvae_md.fit.result import FitResult
from jaxvae_md.fit.trajectory import through_trajectory
from jaxvae_md.neighbors import NeighborList, allocate_systems, neighbor_list
from jaxvae_md.simulate import Adjoint, Simulator, State, rollout, warn_past_horizon
from jaxvae_md.structure import Structure


def environment_matching(
    codes_fn: Callable[[Structure, NeighborList], Float[Array, "n d"]],
    discrepancy_fn: Callable[[Float[Array, "*b t n d"]], Float[Array, ""]],
    simulator: Simulator,
    params: Params,
    state: State,
    *,
    cutoff: float,
    num_steps: int = 200,
    record_every: int = 50,
    adjoint: Adjoint = "reversible",
    num_updates: int = 15,
    optimiser: optax.GradientTransformation | None = None,
    progress: bool = False,
    label: str = "environments",
) -> FitResult:
    """Parameters with which a simulation visits the environments of a reference.

    The loss is a discrepancy between the codes of atoms in the recorded frames and those of the
    reference; its gradient goes through encoder, descriptor and simulation. Start from many
    frames of the reference at its temperature (`begin` with stacked structures): the right
    parameters leave their distribution as it is, and wrong ones drive it away within the
    relaxation time. A simulation that starts elsewhere must have time to come there. Surroundings
    at one density say little of epsilon: take several, each compared with its own reference.

    **Arguments:** `codes_fn(structure, neighbors)` the codes of the atoms of a frame, with a list
    of `cutoff` (angstrom): a VAE's, or descriptors; `discrepancy_fn` of the codes of all frames,
    to be small where they are as the reference's; `state` from `begin`, of one system or several,
    with `extra` room in its lists; `num_steps` recorded every `record_every`; `adjoint` as in
    `rollout`; `num_updates` by L-BFGS, which begins with a step of 2 %, or by `optimiser`.
    **Returns:** the best parameters met. **Raises:** `RunError` where the first simulation fails.
    Warns with a `HorizonWarning` where the steps are more than gradients survive.

    ```python
    def codes_fn(structure, neighbors):
        return model.encode(vae_params, standardizer.apply(descriptor(structure, neighbors)))[0]

    starts = stack([reference_frame, other_frame])
    state = begin(simulator, params, starts, key, 90.0, extra=1.5)
    discrepancy_fn = lambda codes: fisher_discrepancy(codes.reshape(-1, 8), reference)
    result = environment_matching(
        codes_fn, discrepancy_fn, simulator, params, state, cutoff=descriptor.cutoff
    )
    ```
    """
    several = state.structure.position.ndim == 3
    first = jax.tree.map(lambda leaf: leaf[0], state) if several else state
    warn_past_horizon(simulator, params, first, num_steps)
    fns = neighbor_list(cutoff)
    on_host = jax.tree.map(np.asarray, state.structure)
    lists = jax.tree.map(jnp.asarray, allocate_systems(fns, on_host, extra=1.5))
    structures = state.structure
    if not several:
        structures, lists = jax.tree.map(lambda leaf: leaf[None], (structures, lists))

    def of_system(system):
        structure, neighbors, positions, cells = system

        @jax.checkpoint
        def of_frame(frame):
            moved = structure._replace(position=frame[0], cell=frame[1])
            listed = fns.update(moved, neighbors)
            return codes_fn(moved, listed), listed.overflow

        return lax.map(of_frame, (positions, cells))

    def loss_fn(params, _):
        _, trajectory = rollout(simulator, params, state, num_steps, record_every, adjoint)
        frames = trajectory.position, trajectory.cell
        frames = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf, 0, 1) if several else leaf[None], frames
        )
        codes, overflow = lax.map(of_system, (structures, lists, *frames))
        bits = jnp.where(jnp.any(overflow), errors.NEIGHBOR_OVERFLOW, 0)
        return discrepancy_fn(codes if several else codes[0]), trajectory.error | bits

    result = through_trajectory(
        loss_fn,
        params,
        key=jax.random.key(0),
        num_updates=num_updates,
        optimiser=relative(optax.lbfgs(), unit=0.02) if optimiser is None else optimiser,
        project=simulator.potential.project,
        progress=progress,
        label=label,
    )
    if not len(result.history):
        raise RunError(
            "the first simulation of the fit failed, or its gradient is not finite",
            remedy="begin with more extra room, take fewer steps, or better parameters",
        )
    return result
