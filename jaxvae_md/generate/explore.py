"""Structures found by moves, a quench, and a short simulation with the current potential."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.generate.candidate import BATCH, Candidate, Setting, measure, rng_of
from jaxvae_md.generate.guard import guarded
from jaxvae_md.generate.moves import random_move
from jaxvae_md.neighbors import allocate_systems
from jaxvae_md.potentials.evaluate import forces
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.simulate import advance
from jaxvae_md.simulate.engine import Simulator, ensemble, masses
from jaxvae_md.structure import Structure, pad, stack

_SKIN = 1.0
"""angstrom"""
_ROOM, _MULTIPLE = 1.2, 16
"""for neighbors that come nearer; capacities are multiples, so that batches share programs"""
_LONGEST_MOVE = 0.1
"""angstrom, of an atom in a step of the quench"""
_TIME_STEP = 0.38
"""fs for atoms of 1 amu; 2 fs for silicon"""


_QUENCH = (5, 15, 40)
"""steps after which a quench is looked at"""


class Settled(NamedTuple):
    """Where structures went: in the course of the quench, and after the simulation."""

    stages: list[list[Structure]]
    """one list for each look"""
    error: Int[np.ndarray, "stages num"]
    """error bits: NOT_FINITE, NEIGHBOR_OVERFLOW"""


def explore(setting: Setting, key: Array, num: int, band: tuple[float, float]) -> list[Candidate]:
    """Training structures changed by a move, quenched, and moved on by a short simulation.

    Simulations are at half to one and a half times the setting's temperature. A potential that
    knows nothing of a defect may lead it astray: of each structure the latest look is taken that
    the guard allows and whose novelty lies within `band`, the last where none is. There are as
    many as whole batches hold, `num` at least.

    ```python
    candidates = explore(setting, jax.random.key(0), num=40, band=(1.5, 4.5))
    ```
    """
    rng = rng_of(key)
    # whole batches, so that one shape is compiled
    num = BATCH * -(-num // BATCH)
    start = rng.integers(len(setting.training), size=num)
    moves = [random_move(setting.training[i], setting.nearest_distance, rng) for i in start]
    temperature = setting.temperature * rng.uniform(0.5, 1.5, num)
    # one atom more than the largest has, for the same reason
    largest = 1 + max(len(structure.position) for structure in setting.training)
    out = []
    for first in range(0, num, BATCH):
        rows = np.arange(first, first + BATCH)
        settled = settle(
            guarded(setting.potential),
            {"current": setting.params, "repulsion": {"distance": setting.guard.min_distance}},
            [moves[i].structure for i in rows],
            temperature[rows],
            jax.random.fold_in(key, first),
            num_atoms=largest,
        )
        looks = []
        for structures, errors_ in zip(settled.stages, settled.error, strict=True):
            for slot, i in enumerate(rows):
                origin = int(start[i]), "explore", moves[i].kind, None
                looks.append(Candidate(structures[slot], -1, *origin, error=int(errors_[slot])))
        measured, _ = measure(setting, looks, band, np.inf)
        of_move = np.reshape([one.error for one in measured], (len(settled.stages), -1))
        for slot, bits in enumerate(of_move.T):
            sound = np.nonzero(bits == 0)[0]
            look = sound[-1] if len(sound) else len(bits) - 1
            out.append(looks[look * of_move.shape[1] + slot])
    return out


def settle(
    potential: Potential,
    params: Params,
    structures: Sequence[Structure],
    temperature: Float[np.ndarray, " num"],
    key: Array,
    *,
    quench_steps: Sequence[int] = _QUENCH,
    md_steps: int = 60,
    dt: float | None = None,
    num_atoms: int | None = None,
) -> Settled:
    """A quench of every structure, and a simulation at constant energy from where it ends.

    All of them side by side, padded to `num_atoms` (the largest), in single precision. The quench
    stops an atom whenever the force pulls it back; it is short: it takes away what no reference
    calculation would want to see, and does not end in a minimum. One that fails does not stop the
    others.

    **Arguments:** `quench_steps` between one look and the next; `temperature` (K) that each
    simulation would have in equilibrium: it starts at twice as much, since half goes into the
    springs; `dt` in fs, by default one that the lightest species follows.

    ```python
    settled = settle(potential, params, structures, np.full(len(structures), 600.0), key)
    ```
    """
    size = num_atoms or max(len(structure.position) for structure in structures)
    batch = jax.tree.map(_single, stack([pad(structure, size) for structure in structures]))
    params = jax.tree.map(_single, params)
    mass = masses(potential.species)
    simulator = _simulator(potential, dt or _TIME_STEP * float(np.sqrt(mass.min())))
    momentum = _momentum(batch, mass, 2 * np.asarray(temperature), key)
    run = _compiled(simulator)
    # also for cells that become a little thinner
    options = {"extra": _ROOM, "multiple": _MULTIPLE, "thinnest": 0.9}
    neighbors = allocate_systems(simulator.neighbor_fns, batch, **options)
    num_steps = jnp.array([*quench_steps, md_steps])
    position, overflow = (
        np.asarray(part) for part in run(params, batch, neighbors, momentum, num_steps)
    )
    finite = np.isfinite(position).all(axis=(2, 3))
    bits = np.where(finite, 0, errors.NOT_FINITE) | np.where(overflow, errors.NEIGHBOR_OVERFLOW, 0)
    stages = [
        [
            old._replace(position=np.asarray(new[: len(old.position)], old.position.dtype))
            for old, new in zip(structures, stage, strict=True)
        ]
        for stage in np.moveaxis(position, 1, 0)
    ]
    return Settled(stages, bits.T)


class _Dynamics(NamedTuple):
    position: Float[Array, "n 3"]
    momentum: Float[Array, "n 3"]
    mass: Float[Array, "n 1"]
    force: Float[Array, "n 3"]
    descends: Array
    """whether the force stops what moves against it"""


@lru_cache(maxsize=16)
def _simulator(potential: Potential, dt: float) -> Simulator:
    """Velocity Verlet that may also descend: one program for both."""
    step_length = dt * units.FEMTOSECOND

    def init(key, mass, kT, momentum, structure, neighbors, params):
        del key, kT
        force = forces(potential, params, structure, neighbors)
        return _Dynamics(structure.position, momentum, mass[:, None], force, jnp.array(True))

    def step(dynamics, structure, neighbors, params):
        position, momentum, mass, force, descends = dynamics
        along = jnp.sum(momentum * force, axis=1, keepdims=True) > 0
        momentum = jnp.where(descends & ~along, 0, momentum) + 0.5 * step_length * force
        length = step_length * jnp.linalg.norm(momentum / mass, axis=1, keepdims=True)
        slower = momentum * _LONGEST_MOVE / jnp.maximum(length, _LONGEST_MOVE)
        momentum = jnp.where(descends, slower, momentum)
        position = position + step_length * momentum / mass
        structure = structure._replace(position=position)
        force = forces(potential, params, structure, neighbors)
        momentum = momentum + 0.5 * step_length * force
        return _Dynamics(position, momentum, mass, force, descends), structure

    return ensemble(potential, init, step, dt, _SKIN, num_conserved=3)


@lru_cache(maxsize=16)
def _compiled(simulator: Simulator):
    def one(params, structure, neighbors, momentum, num_steps):
        rest = jnp.zeros_like(momentum)
        state = simulator.init(None, params, structure, neighbors, 0.0, rest)

        def phase(state, part):
            steps, descends, heat = part
            start = jnp.where(heat, momentum, state.dynamics.momentum)
            dynamics = state.dynamics._replace(momentum=start, descends=descends)
            state = advance(simulator, params, state._replace(dynamics=dynamics), steps)
            return state, (state.structure.position, state.neighbors.overflow)

        last = jnp.arange(len(num_steps)) == len(num_steps) - 1
        return lax.scan(phase, state, (num_steps, ~last, last))[1]

    def batch(params, structure, neighbors, momentum, num_steps):
        systems = (structure, neighbors, momentum)

        def of_system(system):
            structure, neighbors, momentum = system
            return one(params, structure, neighbors, momentum, num_steps)

        # a core gains nothing from doing them together, and each has its own time for a new list
        one_by_one = lambda: lax.map(of_system, systems)
        together = lambda: jax.vmap(of_system)(systems)
        return lax.platform_dependent(cpu=one_by_one, default=together)

    return jax.jit(batch)


def _single(leaf: Array) -> Array:
    leaf = np.asarray(leaf)
    return leaf.astype(np.float32) if np.issubdtype(leaf.dtype, np.floating) else leaf


def _momentum(structure: Structure, mass, temperature, key) -> Float[np.ndarray, "b n 3"]:
    """Velocities of a temperature, each centre of mass at rest; padding atoms do not move."""
    m = np.asarray(mass, np.float32)[structure.species][..., None] * structure.mask[..., None]
    noise = np.asarray(jax.random.normal(key, structure.position.shape, np.float32))
    kT = units.BOLTZMANN * np.asarray(temperature, np.float32)[:, None, None]
    momentum = np.sqrt(m * kT) * noise
    velocity = momentum.sum(axis=1, keepdims=True) / m.sum(axis=1, keepdims=True)
    return (momentum - m * velocity).astype(np.float32)
