"""Temperature, stress and pressure of one state, or of many at once."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md import potentials, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import InputError
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.observables.inputs import check_atoms, check_periodic, check_single
from jaxvae_md.potentials import Potential
from jaxvae_md.structure import Structure


def kinetic_energy(
    momentum: Float[Array, "*t n 3"], mass: Float[Array, " n"]
) -> Float[Array, "*t"]:
    """Kinetic energy sum p^2 / 2m of all atoms, in eV. Differentiable.

    **Arguments:** `momentum` in sqrt(amu eV), as in `simulate.Trajectory`, with any leading axes;
    `mass` in amu. **Raises:** `InputError`.

    ```python
    mass = simulate.engine.masses(potential.species)[structure.species]
    total = trajectory.potential_energy + kinetic_energy(trajectory.momentum, mass)
    ```
    """
    momentum, mass = _checked(momentum, mass)
    return 0.5 * jnp.sum(momentum**2 / mass[:, None], axis=(-1, -2))


def temperature(
    momentum: Float[Array, "*t n 3"], mass: Float[Array, " n"], num_conserved: int = 3
) -> Float[Array, "*t"]:
    """Kinetic temperature in K, for 3 n - `num_conserved` degrees of freedom. Differentiable.

    **Arguments:** as in `kinetic_energy`; `num_conserved` as in `simulate.Simulator`: 3 for nve, 0
    for the Langevin ensembles. Padding atoms must be left out. **Raises:** `InputError`.

    ```python
    kelvin = temperature(trajectory.momentum, mass, simulator.num_conserved)  # [t]
    ```
    """
    freedom = max(1, 3 * np.shape(mass)[0] - num_conserved) if np.shape(mass) else 1
    return 2 * kinetic_energy(momentum, mass) / (freedom * units.BOLTZMANN)


def stress(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: NeighborList,
    momentum: Float[Array, "n 3"] | None = None,
    mass: Float[Array, " n"] | None = None,
) -> Float[Array, "3 3"]:
    """Stress dE / d(strain) / V - sum p p / (m V), in eV / angstrom^3; tension is positive.

    Differentiable in everything. The sign is that of ASE and of `potentials.stress`, which is the
    first term, and all there is without `momentum`.

    **Arguments:** `momentum` in sqrt(amu eV), as in `simulate.Trajectory`; `mass` in amu. Use
    jax.vmap for many states. **Raises:** `GeometryError` for a cell that is not periodic, where
    that is known; `InputError`. **Source:** Allen and Tildesley, Computer Simulation of Liquids,
    section 2.4.

    ```python
    tensor = stress(potential, params, structure, neighbors, momentum, mass) / units.GIGAPASCAL
    ```
    """
    check_single(structure)
    check_periodic(structure)
    flow = _flow(momentum, mass, np.shape(structure.position))
    static = potentials.stress(potential.energy, params, structure, neighbors)
    return static - flow / jnp.abs(jnp.linalg.det(structure.cell))


def pressure(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: NeighborList,
    momentum: Float[Array, "n 3"] | None = None,
    mass: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Pressure, -1/3 of the trace of `stress`, in eV / angstrom^3. Differentiable in everything.

    Without `momentum` it is -dE / dV, of atoms at rest. Arguments and errors as in `stress`.

    ```python
    def of_frame(x, p):
        moved = structure._replace(position=x)
        near = fns.update(moved, neighbors)
        return pressure(potential, params, moved, near, p, mass)

    p = jax.vmap(of_frame)(trajectory.position, trajectory.momentum) / units.GIGAPASCAL
    ```
    """
    return -jnp.trace(stress(potential, params, structure, neighbors, momentum, mass)) / 3


def _flow(momentum: Array | None, mass: Array | None, shape: tuple[int, ...]):
    """Flow of momentum sum p p / m, in eV; nothing for atoms at rest."""
    if momentum is None and mass is None:
        return 0.0
    if momentum is None or mass is None:
        raise InputError("only one of momentum and mass", remedy="give both, or none of them")
    momentum, mass = _checked(momentum, mass)
    if momentum.shape != shape:
        raise InputError(
            f"momentum has the shape {momentum.shape}, positions {shape}",
            remedy="give the momenta of this structure; use jax.vmap for many",
        )
    return jnp.sum(momentum[:, :, None] * (momentum / mass[:, None])[:, None], axis=0)


def _checked(momentum: Array, mass: Array):
    shape = np.shape(momentum)
    if len(shape) < 2 or shape[-1] != 3:
        raise InputError(
            f"momentum has the shape {shape}", remedy="give one row for each atom, (..., n, 3)"
        )
    check_atoms("mass", mass, shape[-2])
    momentum = jnp.asarray(momentum)
    return momentum, jnp.asarray(mass, momentum.dtype)
