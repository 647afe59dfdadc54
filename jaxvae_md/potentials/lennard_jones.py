"""The Lennard-Jones potential with learnable sigma and epsilon per species pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, displacements, neighbor_species
from jaxvae_md.potentials.potential import Potential, potential, sum_over_atoms
from jaxvae_md.structure import checked_species

Scheme = Literal["cut", "shift", "force_shift"]


def pair_energy(
    r: Float[Array, ...],
    sigma: Float[Array, ...],
    epsilon: Float[Array, ...],
    cutoff: float,
    scheme: Scheme = "force_shift",
) -> Float[Array, ...]:
    """Energy phi(r) of a pair (eV); zero from the cutoff on.

    | scheme | within the cutoff |
    |---|---|
    | cut | u(r) = 4 epsilon ((sigma / r)^12 - (sigma / r)^6) |
    | shift | u(r) - u(rc) |
    | force_shift | u(r) - u(rc) - (r - rc) u'(rc): energy and force are continuous |

    **Arguments:** r, sigma and cutoff in angstrom, epsilon in eV. **Source:** Jones, Proc. R. Soc.
    Lond. A 106, 463 (1924); Allen and Tildesley, Computer Simulation of Liquids, section 5.2.

    ```python
    pair_energy(2 ** (1 / 6) * 3.405, 3.405, 0.0103, cutoff=8.5, scheme="cut")  # -0.0103
    ```
    """
    inside = r < cutoff
    # masked before the powers, so that a slot beyond the cutoff has a finite (zero) gradient
    r = jnp.where(inside, r, cutoff)
    attraction = (sigma / r) ** 6
    energy = 4 * epsilon * (attraction**2 - attraction)
    if scheme != "cut":
        at_cutoff = (sigma / cutoff) ** 6
        energy = energy - 4 * epsilon * (at_cutoff**2 - at_cutoff)
        if scheme == "force_shift":
            slope = -24 * epsilon / cutoff * (2 * at_cutoff**2 - at_cutoff)
            energy = energy - (r - cutoff) * slope
    return jnp.where(inside, energy, 0.0)


def lennard_jones(
    species: Sequence[str],
    cutoff: float,
    sigma: float | Float[Array, "s s"] = 1.0,
    epsilon: float | Float[Array, "s s"] = 1.0,
    scheme: Scheme = "force_shift",
) -> Potential:
    """Lennard-Jones with parameters {"sigma": [s, s] angstrom, "epsilon": [s, s] eV}.

    The parameter tables are read symmetrically, (p_ab + p_ba) / 2. The cutoff is static and does
    not move with sigma. Gradients with respect to positions, cell, sigma and epsilon are finite
    in every order, padded slots included.

    **Arguments:** cutoff in angstrom; `sigma` and `epsilon` are the values that `init` returns,
    one number or a table; `scheme` as in `pair_energy`. **Raises:** `OptionError`.

    ```python
    argon = lennard_jones(("Ar",), cutoff=8.5, sigma=3.405, epsilon=0.01032)
    params = argon.init(jax.random.key(0))
    energy = argon.energy(params, structure, neighbors)
    ```
    """
    species = checked_species(species)
    if not 0 < cutoff < FAR / 2:
        raise OptionError(f"cutoff is {cutoff}", remedy="give a positive length in angstrom")
    if scheme not in ("cut", "shift", "force_shift"):
        raise OptionError(f"scheme is {scheme!r}", remedy="cut, shift or force_shift")
    shape = (len(species), len(species))
    for name, table in (("sigma", sigma), ("epsilon", epsilon)):
        if np.shape(table) not in ((), shape):
            raise OptionError(f"{name} has shape {np.shape(table)}", remedy=f"a number or {shape}")

    def init(key):
        del key
        return {
            "sigma": jnp.broadcast_to(jnp.asarray(sigma, float), shape),
            "epsilon": jnp.broadcast_to(jnp.asarray(epsilon, float), shape),
        }

    def energy(params, structure, neighbors):
        vector = displacements(structure, neighbors)
        r = jnp.sqrt(jnp.sum(vector**2, axis=-1))
        pair = (structure.species[:, None], neighbor_species(structure, neighbors))
        tables = {name: jnp.asarray(table) for name, table in params.items()}
        symmetric = {name: 0.5 * (table + table.T)[pair] for name, table in tables.items()}
        phi = pair_energy(r, symmetric["sigma"], symmetric["epsilon"], cutoff, scheme)
        return sum_over_atoms(0.5 * jnp.sum(phi, axis=-1), structure)

    def project(params):
        return {
            "sigma": jnp.clip(params["sigma"], 0.1, cutoff),
            "epsilon": jnp.maximum(params["epsilon"], 1e-5),
        }

    return potential(species, float(cutoff), init, energy, project=project)
