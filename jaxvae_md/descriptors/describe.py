"""Descriptors of whole data sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax import lax
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md.batching import batches
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.errors import GeometryError, InputError
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms


def describe(
    frames: Sequence[Atoms], descriptor: Chebyshev, progress: bool = False
) -> list[Float[np.ndarray, "n f"]]:
    """Descriptors of every frame, in order, as numpy arrays.

    **Arguments:** `progress` shows a bar. **Raises:** `SpeciesError`; `GeometryError` for a frame
    without atoms, or with two at the same place; each names the frame.

    ```python
    x = describe(ase.io.read("silicon.extxyz", ":"), descriptor)
    ```
    """
    structures = []
    for number, atoms in enumerate(frames):
        try:
            if not len(atoms):
                raise GeometryError("no atoms", remedy="remove the frame")
            structures.append(from_atoms(atoms, descriptor.species))
        except InputError as error:
            raise error.at(frame=number) from None
    out: list[np.ndarray] = [np.empty(0)] * len(structures)
    bar = tqdm(total=len(structures), desc="describe", unit="frame", disable=not progress)
    for batch in batches(structures, descriptor.cutoff):
        for first in range(0, len(batch.frame), _AT_A_TIME):
            some = slice(first, first + _AT_A_TIME)
            structure, neighbors = jax.tree.map(itemgetter(some), batch[:2])
            x = np.asarray(_of_batch(descriptor)(structure, neighbors))
            for values, mask, frame in zip(x, structure.mask, batch.frame[some], strict=True):
                out[frame] = values[mask]
                finite = np.isfinite(values[mask]).all(axis=1)
                if not finite.all():
                    raise GeometryError(
                        "two atoms at the same place",
                        frame=int(frame),
                        atom=int(np.argmin(finite)),
                        remedy="remove one of them",
                    )
            bar.update(len(x))
    bar.close()
    return out


_AT_A_TIME = 256
"""frames between two steps of the bar"""


@lru_cache
def _of_batch(descriptor: Chebyshev):
    """The descriptor of one batch: compiled once per descriptor and shape."""
    return jax.jit(
        lambda structure, neighbors: lax.map(lambda a: descriptor(*a), (structure, neighbors))
    )
