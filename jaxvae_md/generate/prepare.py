"""What generation starts from, of training frames and a potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxvae_md import coverage
from jaxvae_md._typing import Params
from jaxvae_md.descriptors import Chebyshev, Standardizer, describe, fit_standardizer
from jaxvae_md.errors import SpeciesError
from jaxvae_md.generate.candidate import Setting
from jaxvae_md.generate.guard import fit_guard
from jaxvae_md.potentials import Potential
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms


def setting(
    training: Sequence[Atoms],
    descriptor: Chebyshev,
    potential: Potential,
    params: Params,
    nearest_distance: float,
    temperature: float,
    seed: int = 0,
    standardizer: Standardizer | None = None,
) -> Setting:
    """A setting without a VAE: `generate` explores, and decodes nothing.

    A run of `learn` makes one with its VAE by `learn.gaps.setting`.

    **Arguments:** `descriptor` and `potential` of the same species; `nearest_distance` (angstrom)
    of the material, `temperature` (K) of short simulations; `standardizer` of the descriptors,
    that of `training` where none is given. **Raises:** `SpeciesError`.

    ```python
    made = generate(setting(frames, descriptor, tungsten, params, 2.74, 600.0), key, num=10)
    ```
    """
    if descriptor.species != potential.species:
        raise SpeciesError(
            f"the descriptor is of {descriptor.species}, and the potential of {potential.species}",
            remedy="give both the same species, in the same order",
        )
    x = describe(training, descriptor)
    if standardizer is None:
        standardizer = fit_standardizer(np.concatenate(x))
    z = [np.asarray(standardizer.apply(jnp.asarray(part))) for part in x]
    structures = [from_atoms(atoms, descriptor.species) for atoms in training]
    return Setting(
        descriptor=descriptor,
        standardizer=standardizer,
        training=structures,
        known=coverage.fit_novelty(z, seed=seed),
        potential=potential,
        params=params,
        guard=fit_guard(structures, potential, params, nearest_distance),
        nearest_distance=nearest_distance,
        temperature=temperature,
        x_train=np.concatenate(z),
    )
