"""Types that several modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

if TYPE_CHECKING:
    from ase import Atoms

Params = Any
"""A pytree of arrays."""


class Labeller(Protocol):
    """Computes energy (eV) and forces `[n, 3]` (eV / angstrom) of one structure."""

    def __call__(self, atoms: Atoms, /) -> tuple[float, Any]: ...


__all__ = ["Array", "Bool", "Float", "Int", "Labeller", "PRNGKeyArray", "Params"]
