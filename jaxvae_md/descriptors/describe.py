"""Descriptors of whole data sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md.batching import batches
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.errors import InputError
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms


def describe(
    frames: Sequence[Atoms], descriptor: Chebyshev, progress: bool = False
) -> list[Float[np.ndarray, "n f"]]:
    """Descriptors of every frame, in order, as numpy arrays.

    **Arguments:** `progress` shows a bar. **Raises:** `SpeciesError`, `GeometryError`, naming
    the frame.

    ```python
    x = describe(ase.io.read("silicon.extxyz", ":"), descriptor)
    ```
    """
    structures = []
    for number, atoms in enumerate(frames):
        try:
            structures.append(from_atoms(atoms, descriptor.species))
        except InputError as error:
            raise error.at(frame=number) from None
    out: list[np.ndarray] = [np.empty(0)] * len(structures)
    bar = tqdm(total=len(structures), desc="describe", unit="frame", disable=not progress)
    for batch in batches(structures, descriptor.cutoff):
        x = np.asarray(_of_batch(descriptor)(batch.structure, batch.neighbors))
        for values, mask, frame in zip(x, batch.structure.mask, batch.frame, strict=True):
            out[frame] = values[mask]
        bar.update(len(batch.frame))
    bar.close()
    return out


@lru_cache
def _of_batch(descriptor: Chebyshev):
    """The descriptor of one batch: compiled once per descriptor and shape."""
    return jax.jit(
        lambda structure, neighbors: lax.map(lambda a: descriptor(*a), (structure, neighbors))
    )
