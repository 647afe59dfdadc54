"""Reference energies of the isolated species: the constant part of every potential."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError
from jaxvae_md.potentials.potential import Potential, potential, sum_over_atoms
from jaxvae_md.structure import checked_species


def atomic_energy(species: Sequence[str], energies: Float[Array, " s"] | None = None) -> Potential:
    """One energy (eV) per species, parameters {"energy": [s]}; no forces.

    ```python
    reference = atomic_energy(("Si",), [-5.4])
    ```
    """
    species = checked_species(species)
    start = np.zeros(len(species)) if energies is None else np.asarray(energies, float)
    if start.shape != (len(species),):
        raise OptionError(
            f"energies of shape {start.shape} for {len(species)} species",
            remedy="give one energy for each species",
        )

    def init(key):
        del key
        return {"energy": jnp.asarray(start)}

    def energy(params, structure, neighbors):
        del neighbors
        return sum_over_atoms(jnp.asarray(params["energy"])[structure.species], structure)

    return potential(species, 0.0, init, energy)


def fit_atomic_energy(
    counts: Int[np.ndarray, "frames s"], energy: Float[np.ndarray, " frames"]
) -> Float[np.ndarray, " s"]:
    """Least-squares energies (eV) per species from the composition of each frame.

    Where the composition does not vary, the solution of least norm splits it evenly.

    ```python
    fit_atomic_energy(counts=np.array([[64], [63]]), energy=np.array([-345.0, -337.2]))
    ```
    """
    return np.linalg.lstsq(np.asarray(counts, float), np.asarray(energy, float), rcond=None)[0]
