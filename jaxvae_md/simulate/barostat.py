"""Constant pressure: stochastic cell rescaling beside a Langevin thermostat."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md import units
from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError
from jaxvae_md.potentials.evaluate import forces_and_virial
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.simulate.engine import Simulator, drawn_momentum, ensemble


class Dynamics(NamedTuple):
    """The integrator's state; the cell is that of the structure beside it."""

    position: Float[Array, "n 3"]
    """angstrom"""
    momentum: Float[Array, "n 3"]
    """sqrt(amu eV)"""
    force: Float[Array, "n 3"]
    """eV / angstrom"""
    virial: Float[Array, ""]
    """-dE / ds in eV, of atoms and cell scaled together by 1 + s"""
    mass: Float[Array, "n 1"]
    """amu"""
    rng: Array

    def set(self, **fields: Array) -> Dynamics:
        """With other fields, as the states of jax_md have it."""
        return self._replace(**fields)


def npt_langevin(
    potential: Potential,
    dt: float = 1.0,
    temperature: float = 300.0,
    pressure: float = 0.0,
    friction: float = 0.01,
    barostat_time: float = 500.0,
    compressibility: float = 0.01,
    skin: float = 0.5,
) -> Simulator:
    """Constant temperature and pressure: BAOAB Langevin and isotropic stochastic cell rescaling.

    The volume fluctuates as in the isothermal-isobaric ensemble; the shape of the cell stays.

    **Arguments:** `dt` in fs, `temperature` in K, `pressure` in GPa, `friction` in 1/fs, `skin` in
    angstrom. The volume relaxes in about `barostat_time` (fs) where `compressibility` (1/GPa) is
    the material's own; their ratio decides how fast, and has no influence on averages.
    Structures without padding, periodic in three directions. **Source:** Bernetti and Bussi,
    J. Chem. Phys. 153, 114107 (2020); Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34.
    **Raises:** `OptionError` by `neighbor_fns.allocate` for a direction that is not periodic.

    ```python
    simulator = npt_langevin(potential, dt=1.0, temperature=300.0, pressure=1.0)
    trajectory = run(simulator, params, structure, jax.random.key(0), num_steps=5000)
    volume = np.linalg.det(trajectory.cell)
    ```
    """
    time_step, dt = dt, dt * units.FEMTOSECOND
    kT = units.BOLTZMANN * temperature
    pressure = pressure * units.GIGAPASCAL
    mobility = compressibility / units.GIGAPASCAL / (barostat_time * units.FEMTOSECOND)
    kept = math.exp(-friction / units.FEMTOSECOND * dt)

    def init(key, mass, kT, momentum, params, structure, neighbors):
        key, draw = jax.random.split(key)
        position, mass = structure.position, mass[:, None]
        if momentum is None:
            momentum = drawn_momentum(draw, mass[:, 0], kT, position)
        force, virial = forces_and_virial(potential, params, structure, neighbors)
        return Dynamics(position, momentum, force, virial, mass, key)

    # the steps of BAOAB are written out: jax_md has no place in the middle of its own
    def step(dynamics, params, structure, neighbors):
        position, momentum, force, virial, mass, key = dynamics
        key, of_atoms, of_cell = jax.random.split(key, 3)
        momentum = momentum + 0.5 * dt * force
        position = position + 0.5 * dt * momentum / mass
        noise = jax.random.normal(of_atoms, momentum.shape, momentum.dtype)
        momentum = kept * momentum + jnp.sqrt((1 - kept**2) * kT * mass) * noise
        position = position + 0.5 * dt * momentum / mass

        scale = rescaling(structure.cell, momentum, virial, mass, of_cell)
        position, momentum = scale * position, momentum / scale
        structure = structure._replace(position=position, cell=scale * structure.cell)

        force, virial = forces_and_virial(potential, params, structure, neighbors)
        momentum = momentum + 0.5 * dt * force
        return Dynamics(position, momentum, force, virial, mass, key), structure

    def rescaling(cell, momentum, virial, mass, key):
        """Factor of the cell's lengths in one step.

        At fixed scaled positions and momenta the density of e = ln V is exp(-G / kT) with
        dG/de = V (P0 - P_int) - kT, where kT is the Jacobian's, of dV = V de. With the diffusion
        D = kT mobility / V the equation of Ito that keeps it has the drift
        -(D / kT) dG/de + dD/de = mobility (P_int - P0) + kT mobility / V - kT mobility / V:
        the Jacobian and the slope of D cancel.
        """
        volume = jnp.abs(jnp.linalg.det(cell))
        twice_kinetic = jnp.sum(momentum**2 / mass)
        internal = (twice_kinetic + virial) / (3 * volume)
        noise = jax.random.normal(key, (), cell.dtype)
        growth = mobility * dt * (internal - pressure)
        growth = growth + jnp.sqrt(2 * kT * mobility * dt / volume) * noise
        return jnp.exp(growth / 3)

    simulator = ensemble(potential, init, step, time_step, skin, num_conserved=0)
    fast = simulator.pair_fns
    return simulator._replace(
        neighbor_fns=_periodic_only(simulator.neighbor_fns),
        pair_fns=None if fast is None else _periodic_only(fast),
    )


def _periodic_only(fns):
    """The same lists, refused on the host where a cell cannot be scaled as a whole."""

    def allocate(structure, *args, **kwargs):
        if not np.all(structure.pbc):
            raise OptionError(
                f"constant pressure needs three periodic directions, and pbc is "
                f"{np.asarray(structure.pbc).tolist()}",
                remedy="use nvt_langevin, or a periodic cell",
            )
        return fns.allocate(structure, *args, **kwargs)

    return fns._replace(allocate=allocate)
