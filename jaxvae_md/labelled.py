"""Structures that were labelled outside, as the next round takes them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvae_md import io
from jaxvae_md._typing import Labeller
from jaxvae_md.errors import InputError, LabelError
from jaxvae_md.label import check_same_reference, reference_of
from jaxvae_md.learn.config import Config, label_of
from jaxvae_md.learn.state import Dataset, State, composition, frame, to_dataset
from jaxvae_md.potentials import fit_atomic_energy
from jaxvae_md.structure import Structure, from_atoms

if TYPE_CHECKING:
    from ase import Atoms

_log = logging.getLogger(__name__)


def read_labelled(
    state: State, config: Config, path: str | Path, labeller: Labeller | None
) -> Dataset | None:
    """Labelled structures of a file, without those that the training data hold already.

    **Returns:** a dataset of its own, None when nothing is new; a generated structure has the
    label of the frame it was made from. **Raises:** `LabelError`, `SpeciesError`.

    ```python
    new = read_labelled(state, config, "labelled.extxyz", None)
    ```
    """
    frames = io.read_frames(path)
    try:
        reference = reference_of(frames)
        if reference and config.reference not in ("", reference):
            raise LabelError(
                f"its labels are of {reference}, those of the run's data of {config.reference}",
                remedy="labels of two references must not be mixed: label them as the data were",
            )
    except InputError as error:
        raise error.at(file=path) from None
    known = [frame(state.data.structure, i) for i in range(len(state.data.energy))]
    new, kinds = [], []
    for number, atoms in enumerate(frames):
        try:
            structure = from_atoms(atoms, config.species)
            kind = _kind_of(state, config, atoms)
        except InputError as error:
            raise error.at(file=path, frame=number) from None
        if not any(_is_same(structure, other) for other in known):
            known.append(structure)
            new.append(atoms)
            kinds.append(kind)
    if not new:
        return None
    if len(new) < len(frames):
        _log.warning(
            "%d of %d structures are left out: they are among the run's data already, or twice in "
            "the file",
            len(frames) - len(new),
            len(frames),
        )
    dataset = to_dataset(new, config)._replace(kind=np.array(kinds))
    if labeller is None:
        _warn_of_another_reference(state, config, dataset, path)
    else:
        try:
            check_same_reference(new, labeller, config.labeller)
        except InputError as error:
            raise error.at(file=path) from None
    return dataset


def _warn_of_another_reference(
    state: State, config: Config, new: Dataset, path: str | Path
) -> None:
    """Without a labeller only energies far from all that are known can be seen."""
    atoms_of = lambda data: composition(data, len(config.species))
    atomic = fit_atomic_energy(atoms_of(state.data), state.data.energy)

    def relative(data: Dataset) -> np.ndarray:
        return (data.energy - atoms_of(data) @ atomic) / atoms_of(data).sum(axis=1)

    known, away = relative(state.data), np.median(relative(new))
    spread = np.ptp(known) + 0.1
    if not known.min() - spread <= away <= known.max() + spread:
        _log.warning(
            "%s: its energies are about %.3g eV/atom away from those of the run's data, which "
            "spread over %.3g: were they computed by the same reference?",
            path,
            abs(away - np.median(known)),
            np.ptp(known),
        )


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


def _is_same(one: Structure, other: Structure) -> bool:
    """Whether two structures are the same, to the digits of a file."""
    if not np.array_equal(one.species, other.species):
        return False
    if not np.allclose(one.cell, other.cell, atol=1e-4):
        return False
    apart = (one.position - other.position) @ np.linalg.inv(one.cell)
    apart -= np.round(apart) * one.pbc
    return bool(np.abs(apart @ one.cell).max() < 1e-4)
