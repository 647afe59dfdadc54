"""Molecular dynamics: jax_md's integrators over this package's potentials and neighbor lists.

`import jax_md` takes seconds, so it happens inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int
from tqdm import tqdm

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborFns, NeighborList, is_stale, neighbor_list
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure

_MAX_RETRIES = 8


class State(NamedTuple):
    """A simulation between two steps."""

    dynamics: Any
    """the integrator's own state (jax_md): position, momentum, force, mass"""
    structure: Structure
    """cell, species and mask; its position follows the dynamics"""
    neighbors: NeighborList


class Simulator(NamedTuple):
    """`init` and `step` of an ensemble, pure and differentiable."""

    init: Callable[..., State]
    """(key, params, structure, neighbors, temperature) -> State; velocities are drawn"""
    step: Callable[[Params, State], State]
    potential: Potential
    neighbor_fns: NeighborFns
    num_conserved: int
    """components of the momentum that the ensemble conserves: not degrees of freedom"""


class Trajectory(NamedTuple):
    """Recorded frames; the time axis leads."""

    position: Float[Array, "t n 3"]
    """angstrom, unwrapped"""
    potential_energy: Float[Array, " t"]
    """eV, whole cell"""
    temperature: Float[Array, " t"]
    """K, kinetic"""
    error: Int[Array, ""]
    """error bits of the whole run"""


def nve(potential: Potential, dt: float = 1.0, skin: float = 0.5) -> Simulator:
    """Constant energy by velocity Verlet.

    **Arguments:** `dt` in fs; `skin` of the neighbor list in angstrom. Structures without padding.

    ```python
    simulator = nve(potential, dt=1.0)
    neighbors = simulator.neighbor_fns.allocate(structure)
    state = simulator.init(jax.random.key(0), params, structure, neighbors, 300.0)
    state, trajectory = rollout(simulator, params, state, num_steps=50)
    ```
    """
    from jax_md import simulate

    init_fn, step_fn = simulate.nve(_force_fn(potential), _shift, dt * units.FEMTOSECOND)

    def init(key, mass, kT, **kwargs):
        return init_fn(key, kwargs.pop("position"), kT, mass=mass, **kwargs)

    return _simulator(potential, init, step_fn, skin, num_conserved=3)


def nvt_langevin(
    potential: Potential,
    dt: float = 1.0,
    temperature: float = 300.0,
    friction: float = 0.01,
    skin: float = 0.5,
) -> Simulator:
    """Constant temperature by the BAOAB Langevin integrator.

    **Arguments:** `dt` in fs, `temperature` in K, `friction` in 1/fs, `skin` in angstrom.
    Structures without padding. **Source:** Davidchack, Ouldridge and Tretyakov, J. Chem. Phys.
    142, 144114 (2015), as in jax_md.

    ```python
    simulator = nvt_langevin(potential, dt=1.0, temperature=600.0)
    trajectory = run(simulator, params, structure, jax.random.key(0), num_steps=1000)
    ```
    """
    from jax_md import simulate

    init_fn, step_fn = simulate.nvt_langevin(
        _force_fn(potential),
        _shift,
        dt * units.FEMTOSECOND,
        units.BOLTZMANN * temperature,
        friction / units.FEMTOSECOND,
    )

    def init(key, mass, kT, **kwargs):
        return init_fn(key, kwargs.pop("position"), mass=mass, kT=kT, **kwargs)

    # the thermostat acts on the centre of mass too
    return _simulator(potential, init, step_fn, skin, num_conserved=0)


def rollout(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    record_every: int = 1,
    checkpoint: bool = False,
) -> tuple[State, Trajectory]:
    """`num_steps` steps as one scan: to be jitted, vmapped and differentiated.

    Neighbor lists are built again inside when an atom has moved far enough; `error` has the
    overflow bit when they ran out of capacity.

    **Arguments:** frames are recorded every `record_every` steps; `checkpoint` recomputes each
    step in the backward pass, which keeps reverse mode in memory.

    ```python
    def loss(params):
        final, _ = rollout(simulator, params, state, num_steps=50)
        return jnp.sum(final.structure.position**2)

    jax.grad(loss)(params)
    ```
    """
    if num_steps % record_every:
        raise OptionError(
            f"{num_steps} steps are no multiple of record_every = {record_every}",
            remedy="choose one that divides the number of steps",
        )
    state, (position, energy, kelvin, bits) = _recorded(
        simulator, params, state, num_steps, record_every, checkpoint
    )
    error = lax.reduce(bits, np.zeros((), bits.dtype), lax.bitwise_or, (0,))
    return state, Trajectory(position, energy, kelvin, error)


def _recorded(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    record_every: int,
    checkpoint: bool = False,
) -> tuple[State, tuple[Array, Array, Array, Array]]:
    """The state after the steps; position, energy, temperature and error bits of every record."""
    step = jax.checkpoint(simulator.step) if checkpoint else simulator.step

    def record(state, _):
        state, _ = lax.scan(lambda s, _: (step(params, s), None), state, length=record_every)
        energy = simulator.potential.energy(params, state.structure, state.neighbors)
        kelvin = temperature(state, simulator.num_conserved)
        bits = jnp.where(state.neighbors.overflow, errors.NEIGHBOR_OVERFLOW, 0)
        bits |= jnp.where(jnp.all(jnp.isfinite(state.structure.position)), 0, errors.NOT_FINITE)
        return state, (state.structure.position, energy, kelvin, bits)

    return lax.scan(record, state, length=num_steps // record_every)


def run(
    simulator: Simulator,
    params: Params,
    structure: Structure,
    key: Array,
    num_steps: int,
    *,
    initial_temperature: float = 300.0,
    record_every: int = 10,
    chunk: int = 200,
    runaway: float = 1e5,
    progress: bool = False,
    label: str = "MD",
) -> Trajectory:
    """A whole simulation on the host: chunks of jitted steps with checks between them.

    An overflowing neighbor list is allocated again with more room and the chunk repeated from its
    start. When a position is not finite, or the temperature exceeds `runaway` (K), the run stops
    and the frames up to the last good one are returned with the error bit set: bad parameters
    must be seen, not raised.

    **Arguments:** `initial_temperature` in K of the velocities that are drawn; `num_steps` is
    rounded down to a multiple of `record_every`.

    ```python
    trajectory = run(simulator, params, structure, jax.random.key(0), num_steps=1000)
    ```
    """
    fns = simulator.neighbor_fns
    neighbors = fns.allocate(structure, extra=1.15)
    state = _jit_init(simulator)(key, params, structure, neighbors, initial_temperature)
    chunk = record_every * max(1, chunk // record_every)
    parts: list[list[np.ndarray]] = []
    error, done, retries = 0, 0, 0
    with tqdm(total=num_steps, desc=label, unit="step", disable=not progress) as bar:
        while (size := min(chunk, num_steps - done) // record_every * record_every) > 0:
            after, (*fields, bits) = _jit_recorded(simulator, size, record_every)(params, state)
            fields, bits = [np.asarray(field) for field in fields], np.asarray(bits)
            wild = (bits & errors.NOT_FINITE != 0) | ~(fields[2] < runaway)
            first_wild = _first(wild)
            first_overflow = _first(bits & errors.NEIGHBOR_OVERFLOW != 0)
            # what is not a number overflows every list, so it gets a single chance
            lost = bits[min(first_overflow, len(bits) - 1)] & errors.NOT_FINITE
            allowed = 1 if lost else _MAX_RETRIES
            if first_overflow <= first_wild and first_overflow < size and retries < allowed:
                room = 2 * state.neighbors.index.shape[1] + 1
                state = state._replace(neighbors=_allocate(fns, state.structure, room))
                retries += 1
                continue
            kept = min(first_wild, first_overflow, len(bits))
            parts.append([field[:kept] for field in fields])
            if kept < len(bits):
                error = int(bits[kept]) | (errors.NOT_FINITE if wild[kept] else 0)
                break
            state, done, retries = after, done + size, 0
            bar.update(size)
            bar.set_postfix(T=f"{fields[2][-1]:.0f} K")
    if not parts:
        n = structure.position.shape[0]
        parts.append([np.zeros((0, n, 3)), np.zeros(0), np.zeros(0)])
    position, energy, kelvin = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Trajectory(position, energy, kelvin, np.array(error))


def _first(flags: np.ndarray) -> int:
    """Index of the first flag that is set; beyond every index when none is."""
    return int(np.argmax(flags)) if flags.any() else np.iinfo(int).max


def temperature(state: State, num_conserved: int = 3) -> Float[Array, ""]:
    """Kinetic temperature in K, for 3 n - `num_conserved` degrees of freedom.

    ```python
    temperature(simulator.init(key, params, structure, neighbors, 300.0))  # about 300
    ```
    """
    twice_kinetic = jnp.sum(state.dynamics.momentum**2 / state.dynamics.mass)
    freedom = max(1, state.structure.position.size - num_conserved)
    return twice_kinetic / (freedom * units.BOLTZMANN)


def masses(species: tuple[str, ...]) -> Float[np.ndarray, " s"]:
    """Standard atomic masses (amu) of a species table, from ASE."""
    from ase.data import atomic_masses, atomic_numbers

    return np.array([atomic_masses[atomic_numbers[symbol]] for symbol in species])


def _simulator(
    potential: Potential, init_fn, step_fn, skin: float, num_conserved: int
) -> Simulator:
    fns = neighbor_list(potential.cutoff, skin)
    table = masses(potential.species)

    def init(key, params, structure, neighbors, temperature):
        structure = jax.tree.map(jnp.asarray, structure)
        neighbors = jax.tree.map(jnp.asarray, neighbors)
        mass = jnp.asarray(table, structure.position.dtype)[structure.species]
        dynamics = init_fn(
            key,
            mass,
            units.BOLTZMANN * temperature,
            position=structure.position,
            params=params,
            structure=structure,
            neighbors=neighbors,
        )
        return State(dynamics, structure, neighbors)

    def step(params, state):
        # a little earlier than half the skin: the step that follows moves atoms too
        stale = is_stale(state.structure, state.neighbors, 0.8 * skin)
        neighbors = lax.cond(stale, fns.update, lambda _, n: n, state.structure, state.neighbors)
        dynamics = step_fn(
            state.dynamics, params=params, structure=state.structure, neighbors=neighbors
        )
        structure = state.structure._replace(position=dynamics.position)
        return State(dynamics, structure, neighbors)

    return Simulator(init, step, potential, fns, num_conserved)


def _force_fn(potential: Potential):
    def force(position, params, structure, neighbors, **_):
        energy = lambda r: potential.energy(params, structure._replace(position=r), neighbors)
        return -jax.grad(energy)(position)

    return force


def _shift(position, displacement, **_):
    return position + displacement


def _allocate(fns: NeighborFns, structure: Structure, capacity: int) -> NeighborList:
    """A fresh list with at least the given capacity."""
    on_host = jax.tree.map(np.asarray, structure)
    return jax.tree.map(jnp.asarray, fns.allocate(on_host, capacity=capacity))


@lru_cache(maxsize=32)
def _jit_init(simulator: Simulator):
    return jax.jit(simulator.init)


@lru_cache(maxsize=32)
def _jit_recorded(simulator: Simulator, num_steps: int, record_every: int):
    return jax.jit(partial(_recorded, simulator, num_steps=num_steps, record_every=record_every))
