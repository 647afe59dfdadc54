"""Thermal frames by the package's own simulator and the Stillinger-Weber potential."""

from __future__ import annotations

from functools import lru_cache

import jax
import numpy as np
from ase import Atoms

from jaxvae_md.potentials import stillinger_weber
from jaxvae_md.simulate import nvt_langevin, run
from jaxvae_md.structure import from_atoms

TIME_STEP = 2.0
"""fs"""
_EVERY = 50
"""steps between the frames that are recorded"""


def simulated(start: Atoms, kelvin: float, num_steps: int, rng: np.random.Generator) -> list[Atoms]:
    """Frames of Langevin dynamics of silicon, fifty steps of 2 fs apart.

    ```python
    frames = simulated(bulk("Si", cubic=True), 300.0, 500, np.random.default_rng(0))
    ```
    """
    simulator = _at(kelvin)
    key = jax.random.key(int(rng.integers(2**31)))
    # twice the temperature: half of it goes into the potential energy of the lattice
    trajectory = run(
        simulator,
        simulator.potential.init(key),
        from_atoms(start, ("Si",)),
        key,
        num_steps,
        initial_temperature=2 * kelvin,
        record_every=_EVERY,
        chunk=500,
    )
    frames = []
    for position in trajectory.position:
        atoms = start.copy()
        atoms.positions = position
        atoms.wrap()
        frames.append(atoms)
    return frames


def sampled(
    start: Atoms,
    kelvin: float,
    num: int,
    rng: np.random.Generator,
    equilibration: int = 500,
    spacing: int = 150,
) -> list[Atoms]:
    """`num` frames of one run, `spacing` steps apart.

    ```python
    frames = sampled(bulk("Si", cubic=True), 300.0, 10, np.random.default_rng(0))
    ```
    """
    trajectory = simulated(start, kelvin, equilibration + spacing * num, rng)
    first = equilibration // _EVERY + spacing // _EVERY - 1
    return trajectory[first :: spacing // _EVERY][:num]


@lru_cache
def _at(kelvin: float):
    """One for all cells, so that what is compiled is shared."""
    return nvt_langevin(stillinger_weber(), TIME_STEP, kelvin, friction=0.02)
