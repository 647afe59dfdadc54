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

from jaxvae_md import units
from jaxvae_md._typing import Array, Params
from jaxvae_md.all_pairs import AllPairs, is_strained
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborFns, NeighborList, is_stale, neighbor_list
from jaxvae_md.pair_list import PairFns, pair_list
from jaxvae_md.potentials import evaluate
from jaxvae_md.potentials.evaluate import Neighbors
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure


class State(NamedTuple):
    """A simulation between two steps."""

    dynamics: Any
    """the integrator's own state: position, momentum, force, mass"""
    structure: Structure
    """species and mask; its position and cell follow the dynamics"""
    neighbors: Neighbors


class Simulator(NamedTuple):
    """`init` and `step` of an ensemble, pure and differentiable."""

    init: Callable[..., State]
    """(key, params, structure, neighbors, temperature, momentum=None) -> State; velocities are
    drawn where no momentum is given"""
    step: Callable[[Params, State], State]
    """brings the neighbor list up to date where it must, and moves"""
    move: Callable[[Params, State], State]
    """moves with the list that there is"""
    potential: Potential
    neighbor_fns: NeighborFns
    num_conserved: int
    """components of the momentum that the ensemble conserves: not degrees of freedom"""
    pair_fns: PairFns | None
    """the lists of the fast path, where the potential is radial"""
    is_stale: Callable[[State], Array]
    """whether the next step might need pairs that the list does not hold"""
    verlet: float | None = None
    """the time step (fs) where the steps are those of velocity Verlet, which run backwards"""

    def update_fn(self, neighbors: Neighbors) -> Callable[[Structure, Any], Any]:
        """`update(structure, neighbors)` of the kind of list that is given."""
        if isinstance(neighbors, NeighborList) or self.pair_fns is None:
            return self.neighbor_fns.update
        return self.pair_fns.update


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

    simulator = ensemble(potential, init, _fixed_cell(step_fn), dt, skin, num_conserved=3)
    return simulator._replace(verlet=dt)


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
    return ensemble(potential, init, _fixed_cell(step_fn), dt, skin, num_conserved=0)


def nvt_nose_hoover(
    potential: Potential,
    dt: float = 1.0,
    temperature: float = 300.0,
    thermostat_time: float = 100.0,
    skin: float = 0.5,
) -> Simulator:
    """Constant temperature by a chain of five Nose-Hoover thermostats: no random forces.

    **Arguments:** `dt` and `thermostat_time`, in which the kinetic energy swings, in fs;
    `temperature` in K, `skin` in angstrom. Structures without padding. **Source:** Martyna, Klein
    and Tuckerman, J. Chem. Phys. 97, 2635 (1992), as in jax_md.

    ```python
    simulator = nvt_nose_hoover(potential, dt=1.0, temperature=600.0)
    trajectory = run(simulator, params, structure, jax.random.key(0), num_steps=1000)
    ```
    """
    from jax_md import simulate

    init_fn, step_fn = simulate.nvt_nose_hoover(
        _force_fn(potential),
        _shift,
        dt * units.FEMTOSECOND,
        units.BOLTZMANN * temperature,
        tau=thermostat_time * units.FEMTOSECOND,
    )

    def target(structure):
        # jax_md counts 3 n degrees of freedom; the centre of mass, at rest, has three of them
        num = structure.position.size
        return {"kT": units.BOLTZMANN * temperature * max(num - 3, 1) / num}

    def init(key, mass, kT, momentum, structure, **kwargs):
        if momentum is None:
            momentum = drawn_momentum(key, mass, kT, structure.position)
        return init_fn(
            key,
            structure.position,
            mass=mass,
            momenta=momentum,
            structure=structure,
            **target(structure),
            **kwargs,
        )

    def step(dynamics, structure, **kwargs):
        moved = {"structure": structure} | target(structure) | kwargs
        return step_fn(dynamics, **moved)

    return ensemble(potential, init, _fixed_cell(step), dt, skin, num_conserved=3)


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


def drawn_momentum(
    key: Array, mass: Float[Array, " n"], kT: float, position: Float[Array, "n 3"]
) -> Float[Array, "n 3"]:
    """Momenta (sqrt(amu eV)) of the temperature kT (eV), the centre of mass at rest."""
    noise = jax.random.normal(key, position.shape, position.dtype)
    momentum = jnp.sqrt(mass[:, None] * kT) * noise
    return momentum - jnp.mean(momentum, axis=0) if len(position) > 1 else momentum


def ensemble(
    potential: Potential,
    init_fn: Callable[..., Any],
    step_fn: Callable[..., tuple[Any, Structure]],
    dt: float,
    skin: float,
    num_conserved: int,
) -> Simulator:
    """A Simulator from an integrator: adds masses, and neighbor lists that follow the atoms.

    **Arguments:** `init_fn(key, mass, kT, momentum, params=, structure=, neighbors=)` returns the
    integrator's state, which has `position`, `momentum` and `mass`; kT in eV, and velocities are
    drawn where `momentum` is None. `step_fn(dynamics, params=, structure=, neighbors=)` returns
    it a step of `dt` (fs) later, and the structure that it moved. `num_conserved` as in
    `Simulator`. **Raises:** `OptionError` for a `dt` or `skin` that is not positive.

    ```python
    simulator = ensemble(potential, init_fn, step_fn, dt=1.0, skin=0.5, num_conserved=3)
    ```
    """
    for name, value in (("dt", dt), ("skin", skin)):
        if not 0 < value < np.inf:
            raise OptionError(f"{name} is {value}", remedy="give a positive number")
    fns = neighbor_list(potential.cutoff, skin)
    pair_fns = None if potential.radial is None else pair_list(potential.cutoff, skin)
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

    def stale(state):
        if isinstance(state.neighbors, AllPairs):
            return is_strained(state.structure, state.neighbors)
        # where the step will bring the atoms; the margin is for what forces add to it
        velocity = lax.stop_gradient(state.dynamics.momentum / state.dynamics.mass)
        ahead = state.structure.position + dt * units.FEMTOSECOND * velocity
        ahead = state.structure._replace(position=ahead)
        return is_stale(ahead, state.neighbors, 0.9 * skin, potential.cutoff)

    def move(params, state):
        dynamics, structure = step_fn(
            state.dynamics,
            params=params,
            structure=state.structure,
            neighbors=state.neighbors,
        )
        return State(dynamics, structure, state.neighbors)

    def step(params, state):
        update = simulator.update_fn(state.neighbors)
        keep = lambda _, neighbors: neighbors
        neighbors = lax.cond(stale(state), update, keep, state.structure, state.neighbors)
        return move(params, state._replace(neighbors=neighbors))

    simulator = Simulator(init, step, move, potential, fns, num_conserved, pair_fns, stale)
    return simulator


def _fixed_cell(step_fn):
    """A step of jax_md, with the structure that it moved beside it."""

    def step(dynamics, structure, **kwargs):
        dynamics = step_fn(dynamics, structure=structure, **kwargs)
        return dynamics, structure._replace(position=dynamics.position)

    return step


def _force_fn(potential: Potential):
    def force(position, params, structure, neighbors, **_) -> Any:
        moved = structure._replace(position=position)
        return evaluate.forces(potential, params, moved, neighbors)

    return force


def _shift(position, displacement, **_):
    return position + displacement
