"""Stage: properties of the element's crystal by the learned potential and by the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md._typing import Array, Labeller
from jaxvae_md.errors import LabelError
from jaxvae_md.label import potential_labeller
from jaxvae_md.learn.config import Config
from jaxvae_md.learn.state import State
from jaxvae_md.properties import STRUCTURES, Lattice, Properties, properties, shortest_pair

if TYPE_CHECKING:
    from ase import Atoms

_PER_NEAREST = {"diamond": 4 / np.sqrt(3), "fcc": np.sqrt(2), "bcc": 2 / np.sqrt(3)}
"""lattice constant over the distance of nearest neighbors"""


def physics(
    state: State, config: Config, labeller: Labeller | None, key: Array, progress: bool
) -> tuple[State, dict]:
    """The table of `properties`: the model's and, where there is a labeller, the reference's.

    For one element whose crystal is diamond, fcc or bcc; else, and where a column cannot be had,
    the reason stands in its place.
    """
    if not config.physics:
        return state, {"reason": "the option physics is off"}
    structure = crystal_structure(config.species)
    if structure is None:
        return state, {"reason": "no single element whose crystal is diamond, fcc or bcc"}
    assert state.standardizer is not None and config.nearest_distance is not None
    guess = config.nearest_distance * _PER_NEAREST[structure]
    (symbol,) = config.species
    potential = config.architecture.full(state.standardizer)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), state.params)
    columns = {"reference": labeller, "model": potential_labeller(potential, params)}
    found: dict[str, Properties] = {}
    info: dict[str, object] = {"crystal": structure}
    for name, column in columns.items():
        if column is not None:
            try:
                found[name] = properties(column, symbol, guess, structure)
            except LabelError as error:
                info[f"without_{name}"] = error.message
    if "model" in found and config.stability_steps:
        crystal = _crystal(symbol, structure, found["model"].lattice_constant)
        shortest = shortest_pair(
            potential,
            params,
            crystal,
            key,
            num_steps=config.stability_steps,
            progress=progress,
        )
        found["model"] = found["model"]._replace(shortest_pair=shortest)
    state = state._replace(properties={name: np.array(one) for name, one in found.items()})
    return state, info


def found_properties(state: State) -> dict[str, Properties]:
    """The columns of the table that `physics` made."""
    # a checkpoint gives a dict back in another order
    known = [name for name in ("reference", "model") if name in state.properties]
    return {name: Properties(*map(float, state.properties[name])) for name in known}


def crystal_structure(species: tuple[str, ...]) -> Lattice | None:
    """The structure of an element's crystal, where it is one that `properties` knows."""
    from ase.data import atomic_numbers, reference_states

    if len(species) != 1:
        return None
    known = (reference_states[atomic_numbers[species[0]]] or {}).get("symmetry")
    return next((lattice for lattice in STRUCTURES if lattice == known), None)


def _crystal(symbol: str, structure: Lattice, lattice_constant: float) -> Atoms:
    """Sixteen atoms, with which 100 ps take less than half a minute."""
    from ase.build import bulk

    times = {"diamond": (1, 1, 2), "fcc": (1, 2, 2), "bcc": (2, 2, 2)}[structure]
    return bulk(symbol, structure, a=lattice_constant, cubic=True) * times
