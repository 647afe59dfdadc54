"""Structures that were labelled outside, as the next round takes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvae_md import io
from jaxvae_md._typing import Labeller
from jaxvae_md.errors import InputError, LabelError
from jaxvae_md.label import check_same_reference
from jaxvae_md.learn.config import Config, label_of
from jaxvae_md.learn.state import Dataset, State, frame, to_dataset
from jaxvae_md.structure import Structure, from_atoms

if TYPE_CHECKING:
    from ase import Atoms

_log = logging.getLogger(__name__)


def read_labelled(
    state: State, config: Config, path: str | Path, labeller: Labeller | None
) -> Dataset:
    """Labelled structures of a file, those left out that the training data hold already.

    **Returns:** a dataset of its own; a generated structure has the label of the
    frame it was made from. **Raises:** `LabelError`, `SpeciesError`.

    ```python
    new = read_labelled(state, config, "labelled.extxyz", None)
    ```
    """
    frames = io.read_frames(path)
    new, kinds = [], []
    for number, atoms in enumerate(frames):
        try:
            structure = from_atoms(atoms, config.species)
            kind = _kind_of(state, config, atoms)
        except InputError as error:
            raise error.at(file=path, frame=number) from None
        if not _is_known(state, structure):
            new.append(atoms)
            kinds.append(kind)
    if not new:
        raise LabelError(
            "every structure is among the run's data already",
            file=path,
            remedy="give structures that are new, those of to_label.extxyz say",
        )
    if len(new) < len(frames):
        _log.warning("%d structures are among the run's data already", len(frames) - len(new))
    if labeller is not None:
        try:
            check_same_reference(new, labeller, config.labeller)
        except InputError as error:
            raise error.at(file=path) from None
    return to_dataset(new, config)._replace(kind=np.array(kinds))


def _kind_of(state: State, config: Config, atoms: Atoms) -> int:
    """Index of a structure's label; a generated one has that of the frame it was made from."""
    name, origin = label_of(atoms), atoms.info.get("start_frame")
    if name in config.labels:
        return config.labels.index(name)
    if isinstance(origin, int | np.integer) and 0 <= origin < len(state.data.kind):
        return int(state.data.kind[origin])
    raise LabelError(
        f"the label {name!r} is none of the run's ({', '.join(config.labels)})",
        remedy="set label to one of these, or keep the start_frame of to_label.extxyz",
    )


def _is_known(state: State, new: Structure) -> bool:
    """Whether the training data hold the structure, to the digits of a file."""
    sizes = np.asarray(state.data.structure.mask).sum(axis=1)
    for number in np.nonzero(sizes == len(new.position))[0]:
        known = frame(state.data.structure, int(number))
        same_species = np.array_equal(known.species, new.species)
        if same_species and np.allclose(known.cell, new.cell, atol=1e-4):
            apart = (known.position - new.position) @ np.linalg.inv(known.cell)
            apart -= np.round(apart) * known.pbc
            if np.abs(apart @ known.cell).max() < 1e-4:
                return True
    return False
