"""A potential of the package in jax_md's conventions: `(neighbor_fn, energy_fn)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import GeometryError, OptionError
from jaxvae_md.neighbors import NeighborList, is_stale, neighbor_list
from jaxvae_md.potentials.potential import Potential
from jaxvae_md.structure import Structure, from_atoms

if TYPE_CHECKING:
    from ase import Atoms
    from jax_md.partition import NeighborListFns

_DEFORMING = ("box", "new_box", "perturbation")
"""keywords by which jax_md deforms the cell"""


@partial(jax.tree_util.register_dataclass, data_fields=["pairs"], meta_fields=["update_fn"])
@dataclass(frozen=True)
class PairNeighborList:
    """A neighbor list as jax_md's simulations carry it; a pytree. Made by `neighbor_fn.allocate`.

    ```python
    neighbors = neighbors.update(position)
    if neighbors.did_buffer_overflow:
        neighbors = neighbor_fn.allocate(position)
    ```
    """

    pairs: NeighborList
    update_fn: Callable[..., PairNeighborList]

    def update(self, position: Float[Array, "n 3"], **kwargs: Any) -> PairNeighborList:
        """The list for new positions (angstrom), built again only where it is stale; jits."""
        return self.update_fn(position, self, **kwargs)

    @property
    def did_buffer_overflow(self) -> Bool[Array, ""]:
        """Whether pairs may be missing since the last `allocate`."""
        return self.pairs.overflow

    @property
    def reference_position(self) -> Float[Array, "n 3"]:
        """Positions (angstrom) for which the list was built."""
        return self.pairs.reference_position


def jax_md_pair(
    potential: Potential, params: Params, atoms: Atoms, skin: float = 0.5
) -> tuple[NeighborListFns, Callable[..., Float[Array, ""]]]:
    """`(neighbor_fn, energy_fn)` for jax_md's simulations and minimisers.

    `neighbor_fn.allocate(position, extra_capacity=0)` runs on the host, `neighbor_fn.update` and
    `energy_fn(position, neighbor)` (eV) jit. Positions are real-space (angstrom,
    `fractional_coordinates=False`), wrapped into the cell by `shift_fn` or not. The space needs
    the cell of `atoms`: `space.periodic(cell.lengths())`, or
    `space.periodic_general(cell.T, fractional_coordinates=False)`, since jax_md's vectors are
    columns. Time is in angstrom sqrt(amu / eV), see `units.FEMTOSECOND`.

    **Arguments:** `atoms` gives species, cell and pbc; `skin` in angstrom: an update builds the
    list again when an atom moved 0.4 of it. `energy_fn(..., params=...)` replaces the parameters,
    to train them; other keywords (`t`, say) are ignored.
    **Raises:** `SpeciesError`; `GeometryError` for positions of another shape; `OptionError` from
    keywords that deform the cell, which is fixed here (`box`, `new_box`, `perturbation`).

    ```python
    neighbor_fn, energy_fn = jax_md_pair(potential, params, atoms)
    init, step = jax_md.simulate.nve(energy_fn, shift_fn, 1.0 * units.FEMTOSECOND)
    neighbors = neighbor_fn.allocate(position)
    state = init(key, position, kT, mass=atoms.get_masses(), neighbor=neighbors)
    for _ in range(100):
        neighbors = neighbors.update(state.position)
        state = step(state, neighbor=neighbors)
    assert not neighbors.did_buffer_overflow
    ```
    """
    from jax_md.partition import NeighborListFns

    frame = from_atoms(atoms, potential.species)
    fns = neighbor_list(potential.cutoff, skin)

    def structure_at(position) -> Structure:
        if position.shape != frame.position.shape:
            raise GeometryError(
                f"positions of shape {position.shape} for {len(frame.position)} atoms",
                remedy="make a pair from the atoms that are simulated",
            )
        return frame._replace(position=position, cell=frame.cell.astype(position.dtype))

    def near_reference(position, pairs: NeighborList) -> Structure:
        """Every atom at its image next to where the list was built: the shifts refer to it."""
        structure = structure_at(position)
        inverse = np.linalg.inv(frame.cell).astype(position.dtype)
        turns = jnp.round((position - pairs.reference_position) @ inverse)
        turns = lax.stop_gradient(jnp.where(frame.pbc, turns, 0))
        return structure._replace(position=position - turns @ structure.cell)

    def allocate(position, extra_capacity: int = 0, **kwargs) -> PairNeighborList:
        _refuse_deformation(kwargs)
        structure = structure_at(np.asarray(jnp.asarray(position)))
        pairs = fns.allocate(structure, extra=1.25)
        if extra_capacity:
            pairs = fns.allocate(structure, capacity=pairs.index.shape[1] + extra_capacity)
        return PairNeighborList(jax.tree.map(jnp.asarray, pairs), update)

    @jax.jit
    def updated(position, pairs: NeighborList) -> NeighborList:
        position = position.astype(pairs.reference_position.dtype)
        # a little earlier than half the skin: the step that follows moves atoms too
        stale = is_stale(near_reference(position, pairs), pairs, 0.8 * skin)
        return lax.cond(stale, fns.update, lambda _, n: n, structure_at(position), pairs)

    def update(position, neighbors: PairNeighborList, **kwargs) -> PairNeighborList:
        _refuse_deformation(kwargs)
        return replace(neighbors, pairs=updated(jnp.asarray(position), neighbors.pairs))

    def energy_fn(position, neighbor: PairNeighborList, params=params, **kwargs):
        _refuse_deformation(kwargs)
        structure = near_reference(jnp.asarray(position), neighbor.pairs)
        return potential.energy(params, structure, neighbor.pairs)

    # jax_md's own decorator hides the arguments from pyright
    return NeighborListFns(allocate, update), energy_fn  # pyright: ignore[reportCallIssue]


def _refuse_deformation(kwargs: dict[str, Any]) -> None:
    for name in _DEFORMING:
        if kwargs.get(name) is not None:
            raise OptionError(
                f"{name} is given, but the cell is fixed when the pair is made",
                remedy="make another pair from atoms in the other cell",
            )
