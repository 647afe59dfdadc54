"""Molecular dynamics: jax_md's integrators over this package's potentials and neighbor lists.

`import jax_md` takes seconds, so it happens inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborFns, NeighborList, is_stale, neighbor_list
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure


class State(NamedTuple):
    """A simulation between two steps."""

    dynamics: Any
    """the integrator's own state: position, momentum, force, mass"""
    structure: Structure
    """species and mask; its position and cell follow the dynamics"""
    neighbors: NeighborList


class Simulator(NamedTuple):
    """`init` and `step` of an ensemble, pure and differentiable."""

    init: Callable[..., State]
    """(key, params, structure, neighbors, temperature, momentum=None) -> State; velocities are
    drawn where no momentum is given"""
    step: Callable[[Params, State], State]
    potential: Potential
    neighbor_fns: NeighborFns
    num_conserved: int
    """components of the momentum that the ensemble conserves: not degrees of freedom"""


class Trajectory(NamedTuple):
    """Recorded frames; the time axis leads."""

    position: Float[Array, "t n 3"]
    """angstrom, unwrapped"""
    momentum: Float[Array, "t n 3"]
    """sqrt(amu eV), the integrator's own unit: amu angstrom over angstrom sqrt(amu / eV); ASE's"""
    cell: Float[Array, "t 3 3"]
    """angstrom; rows are lattice vectors"""
    potential_energy: Float[Array, " t"]
    """eV, whole cell"""
    temperature: Float[Array, " t"]
    """K, kinetic"""
    error: Int[Array, ""]
    """error bits of all steps"""


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

    def init(key, mass, kT, momentum, structure, **kwargs):
        return init_fn(
            key, structure.position, kT, mass, momenta=momentum, structure=structure, **kwargs
        )

    return ensemble(potential, init, _fixed_cell(step_fn), skin, num_conserved=3)


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

    def init(key, mass, kT, momentum, structure, **kwargs):
        return init_fn(
            key, structure.position, mass, momentum, kT=kT, structure=structure, **kwargs
        )

    # the thermostat acts on the centre of mass too
    return ensemble(potential, init, _fixed_cell(step_fn), skin, num_conserved=0)


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
    state, frames = recorded(simulator, params, state, num_steps, record_every, checkpoint)
    bits = frames.error
    error = lax.reduce(bits, np.zeros((), bits.dtype), lax.bitwise_or, (0,))
    return state, frames._replace(error=error)


def recorded(
    simulator: Simulator,
    params: Params,
    state: State,
    num_steps: int,
    record_every: int,
    checkpoint: bool = False,
) -> tuple[State, Trajectory]:
    """As `rollout`, but every record keeps the error bits of its own."""
    step = jax.checkpoint(simulator.step) if checkpoint else simulator.step

    def record(state, _):
        state, _ = lax.scan(lambda s, _: (step(params, s), None), state, length=record_every)
        energy = simulator.potential.energy(params, state.structure, state.neighbors)
        kelvin = temperature(state, simulator.num_conserved)
        bits = jnp.where(state.neighbors.overflow, errors.NEIGHBOR_OVERFLOW, 0)
        bits |= jnp.where(jnp.all(jnp.isfinite(state.structure.position)), 0, errors.NOT_FINITE)
        return state, Trajectory(
            position=state.structure.position,
            momentum=state.dynamics.momentum,
            cell=state.structure.cell,
            potential_energy=energy,
            temperature=kelvin,
            error=bits,
        )

    return lax.scan(record, state, length=num_steps // record_every)


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


def ensemble(
    potential: Potential,
    init_fn: Callable[..., Any],
    step_fn: Callable[..., tuple[Any, Structure]],
    skin: float,
    num_conserved: int,
) -> Simulator:
    """A Simulator from an integrator: adds masses, and neighbor lists that follow the atoms.

    **Arguments:** `init_fn(key, mass, kT, momentum, params=, structure=, neighbors=)` returns the
    integrator's state, which has `position`, `momentum` and `mass`; kT in eV, and velocities are
    drawn where `momentum` is None. `step_fn(dynamics, params=, structure=, neighbors=)` returns
    it a step later, and the structure that it moved. `num_conserved` as in `Simulator`.

    ```python
    simulator = ensemble(potential, init_fn, step_fn, skin=0.5, num_conserved=3)
    ```
    """
    fns = neighbor_list(potential.cutoff, skin)
    table = masses(potential.species)

    def init(key, params, structure, neighbors, temperature, momentum=None):
        structure = jax.tree.map(jnp.asarray, structure)
        neighbors = jax.tree.map(jnp.asarray, neighbors)
        dtype = structure.position.dtype
        dynamics = init_fn(
            key,
            jnp.asarray(table, dtype)[structure.species],
            units.BOLTZMANN * temperature,
            None if momentum is None else jnp.asarray(momentum, dtype),
            params=params,
            structure=structure,
            neighbors=neighbors,
        )
        return State(dynamics, structure, neighbors)

    def step(params, state):
        # a little earlier than the skin allows: the step that follows moves atoms and cell too
        stale = is_stale(state.structure, state.neighbors, 0.8 * skin, fns.cutoff)
        neighbors = lax.cond(stale, fns.update, lambda _, n: n, state.structure, state.neighbors)
        dynamics, structure = step_fn(
            state.dynamics, params=params, structure=state.structure, neighbors=neighbors
        )
        return State(dynamics, structure, neighbors)

    return Simulator(init, step, potential, fns, num_conserved)


def _fixed_cell(step_fn):
    """A step of jax_md, with the structure that it moved beside it."""

    def step(dynamics, structure, **kwargs):
        dynamics = step_fn(dynamics, structure=structure, **kwargs)
        return dynamics, structure._replace(position=dynamics.position)

    return step


def _force_fn(potential: Potential):
    def force(position, params, structure, neighbors, **_):
        energy = lambda r: potential.energy(params, structure._replace(position=r), neighbors)
        return -jax.grad(energy)(position)

    return force


def _shift(position, displacement, **_):
    return position + displacement
