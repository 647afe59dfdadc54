"""A small model that no fit was needed for."""

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk

from jaxvae_md import coverage
from jaxvae_md.architecture import Architecture
from jaxvae_md.descriptors import describe, fit_standardizer
from jaxvae_md.model import Model


def frames(num: int = 6) -> list[Atoms]:
    """Silicon cells of eight atoms, each more rattled than the one before."""
    out = []
    for seed in range(num):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05 + 0.02 * seed, seed=seed)
        out.append(atoms)
    return out


def made(potential: str = "lj+nn", vae: bool = True) -> Model:
    """A model with its first parameters, which knows `frames()` as its data."""
    architecture = Architecture(("Si",), 5.0, 2.35, 3, 3, 2, (4,), potential)
    training = frames()
    standardizer = fit_standardizer(np.concatenate(describe(training, architecture.descriptor)))
    y = coverage.surroundings(training, architecture.descriptor, standardizer, 2.35)
    return Model(
        architecture,
        standardizer,
        architecture.full(standardizer).init(jax.random.key(0)),
        coverage.fit(
            y, np.arange(len(training)) % 2, method=coverage.latent_ratio(2, num_steps=20)
        ),
        architecture.autoencoder.init(jax.random.key(1)) if vae else None,
        {"labels": ["a", "b"], "held_out": {"force": 0.1}},
    )
