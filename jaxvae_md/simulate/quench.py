"""Energy minimisation of structures of any size, on the host."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxvae_md import errors, units
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.potentials.evaluate import energy, forces
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.simulate.engine import Simulator, ensemble
from jaxvae_md.simulate.loop import begin, chunks
from jaxvae_md.simulate.relax import Relaxed
from jaxvae_md.structure import Structure

_STEPS = 50
"""between two looks at the forces"""
_FIRST_TIME_STEP, _LONGEST_TIME_STEP = 0.1, 1.0
"""angstrom sqrt(amu / eV), for masses of 1 amu: ASE's"""
_LONGEST_MOVE = 0.1
"""angstrom a step: less than half of a skin"""


class Descent(NamedTuple):
    """FIRE's state, and the atoms that it may move."""

    fire: Any
    free: Bool[Array, "n 1"]

    @property
    def position(self) -> Float[Array, "n 3"]:
        """Angstrom."""
        return self.fire.position

    @property
    def momentum(self) -> Float[Array, "n 3"]:
        """In sqrt(amu eV)."""
        return self.fire.momentum

    @property
    def mass(self) -> Float[Array, "n 1"]:
        """1 amu each."""
        return self.fire.mass


def quench(
    potential: Potential,
    params: Params,
    structure: Structure,
    *,
    fixed: Bool[Array, " n"] | None = None,
    skin: float = 0.5,
    tolerance: float = 1e-3,
    max_steps: int = 10_000,
) -> Relaxed:
    """Moves the free atoms downhill to a minimum of the energy; the cell stays.

    For structures of any size and starts of any kind: it runs on the host, brings neighbor lists
    up to date as a simulation does, and no atom moves more than 0.1 angstrom in a step. It is
    not differentiable: `relax` is, from a start that is near its minimum.

    **Arguments:** `fixed` marks atoms that stay; `tolerance` of the largest force component in
    eV / angstrom; `skin` of the neighbor list in angstrom. The error is NOT_CONVERGED after
    `max_steps`; forces that are not finite end it with NOT_FINITE and the last good structure.
    Structures without padding. **Raises:** as `begin`. **Source:** Bitzek, Koskinen, Gahler,
    Moseler and Gumbsch, Phys. Rev. Lett. 97, 170201 (2006), as in jax_md.

    ```python
    relaxed = quench(potential, params, structure)
    errors.check(relaxed.error, "quench")
    ```
    """
    if fixed is not None and np.shape(fixed) != np.shape(structure.position)[:-1]:
        raise OptionError(
            f"fixed has shape {np.shape(fixed)}, and position {np.shape(structure.position)}",
            remedy="give one truth value for each atom",
        )
    simulator = _descent(potential, skin)
    state = begin(simulator, params, structure, jax.random.key(0))
    if fixed is not None:
        free = ~jnp.asarray(fixed, bool)[:, None]
        fire = state.dynamics.fire
        fire = fire.set(force=jnp.where(free, fire.force, 0))
        state = state._replace(dynamics=Descent(fire, free))
    bits = errors.NOT_CONVERGED
    options = {"record_every": _STEPS, "chunk": _STEPS, "runaway": np.inf}
    for after, part in chunks(simulator, params, state, max_steps, **options):
        state = after
        if part.error:
            bits = int(part.error)
        elif np.max(np.abs(state.dynamics.fire.force)) <= tolerance:
            bits = 0
            break
    return Relaxed(
        structure=state.structure,
        energy=_jit_energy(potential, params, state.structure, state.neighbors),
        max_force=jnp.max(jnp.abs(state.dynamics.fire.force)),
        error=jnp.array(bits),
    )


_jit_energy = jax.jit(energy, static_argnums=0)


@lru_cache(maxsize=32)
def _descent(potential: Potential, skin: float) -> Simulator:
    from jax_md import minimize

    def force(position, params, structure, neighbors, free, **_):
        moved = structure._replace(position=position)
        return jnp.where(free, forces(potential, params, moved, neighbors), 0)

    def shift(position, displacement, **_):
        length = jnp.linalg.norm(displacement, axis=-1, keepdims=True)
        return position + displacement * _LONGEST_MOVE / jnp.maximum(length, _LONGEST_MOVE)

    init_fn, step_fn = minimize.fire_descent(
        force, shift, dt_start=_FIRST_TIME_STEP, dt_max=_LONGEST_TIME_STEP
    )

    def init(key, mass, kT, momentum, structure, **kwargs):
        free = jnp.ones((len(mass), 1), bool)
        where = {"structure": structure, "free": free} | kwargs
        return Descent(init_fn(structure.position, jnp.ones_like(mass), **where), free)

    def step(dynamics, structure, **kwargs):
        where = {"structure": structure, "free": dynamics.free} | kwargs
        fire = step_fn(dynamics.fire, **where)
        return Descent(fire, dynamics.free), structure._replace(position=fire.position)

    dt = _LONGEST_TIME_STEP / units.FEMTOSECOND
    return ensemble(potential, init, step, dt, skin, num_conserved=3)
