"""Types that several modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

Array = jax.Array | np.ndarray
"""Arrays of JAX or of numpy: host code makes numpy arrays, and both go into every function."""

Params = Any
"""A pytree of arrays."""


class Labeller(Protocol):
    """Computes energy (eV) and forces `[n, 3]` (eV / angstrom) of one structure.

    A third may be the stress `[3, 3]` in eV / angstrom^3, tension positive.
    """

    def __call__(self, atoms: Atoms, /) -> tuple[Any, ...]:
        """Labels one structure."""
        ...
