"""What a labeller says of a structure, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxvae_md._typing import Labeller
from jaxvae_md.errors import LabelError, LabellerError, WriteError

if TYPE_CHECKING:
    from ase import Atoms


class Label(NamedTuple):
    """The reference's answer."""

    energy: float
    """eV, of the whole cell"""
    forces: Float[np.ndarray, "n 3"]
    """eV / angstrom"""
    stress: Float[np.ndarray, "3 3"] | None = None
    """eV / angstrom^3, tension positive; None where the reference gives none"""


def label(frames: Sequence[Atoms], labeller: Labeller, progress: bool = False) -> list[Atoms]:
    """Copies of the frames with the reference's energy and forces attached.

    **Raises:** `LabelError` when the labeller raises or returns the wrong shape or NaN.

    ```python
    labelled = label(generated, get_labeller("sw"))
    ```
    """
    out = []
    for number, atoms in enumerate(tqdm(frames, desc="label", unit="frame", disable=not progress)):
        try:
            # one that changes the current folder must not move that of the run
            with contextlib.chdir("."):
                out.append(attached(atoms, asked(labeller, atoms)))
        except LabelError as error:
            raise error.at(frame=number) from error.__cause__
    return out


def attached(atoms: Atoms, label: Label) -> Atoms:
    """A copy with the label.

    ```python
    attached(atoms, asked(labeller, atoms)).get_forces()
    ```
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    copy = atoms.copy()
    results = {"energy": label.energy, "forces": label.forces}
    if label.stress is not None:
        results["stress"] = label.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def asked(labeller: Labeller, atoms: Atoms) -> Label:
    """What a labeller says of a structure, whose constraints it does not see.

    **Raises:** `LabellerError` for one that raises, `LabelError` for what is no label.

    ```python
    energy, forces, stress = asked(labeller, atoms)
    ```
    """
    free = atoms.copy()
    free.set_constraint()
    try:
        answer = labeller(free)
    except (LabelError, WriteError):
        raise
    # one that calls sys.exit must not end the run as if it were done
    except (Exception, SystemExit) as error:
        raise LabellerError(
            f"the labeller raised {type(error).__name__}: {error}",
            remedy="try it on this frame alone",
        ) from error
    return checked(answer, len(atoms))


def checked(answer: object, num_atoms: int) -> Label:
    """The answer for so many atoms as a label. **Raises:** `LabelError`.

    ```python
    checked((-4.3, np.zeros((1, 3))), 1)
    ```
    """
    returned = f"a {type(answer).__name__}"
    try:
        energy, forces, *more = answer  # pyright: ignore[reportGeneralTypeIssues]
        energy, forces = float(energy), np.array(forces, float)
        stress = None if not more or more[0] is None else np.array(more[0], float)
        right = forces.shape == (num_atoms, 3) and len(more) <= 1
        returned = f"energy {energy} and forces of shape {forces.shape}"
        if stress is not None:
            returned += f" and stress of shape {stress.shape}"
            right = right and stress.shape == (3, 3)
        if right:
            numbers = [energy, *forces.flat, *(() if stress is None else stress.flat)]
            if np.isfinite(numbers).all():
                return Label(energy, forces, stress)
            returned += ", not all of them finite"
    except (TypeError, ValueError):
        pass
    raise LabelError(
        f"the labeller returned {returned}",
        remedy="return (energy, forces), both finite: eV for the whole cell, and eV/angstrom of "
        f"shape ({num_atoms}, 3); a third may be the stress, eV/angstrom^3 of shape (3, 3)",
    )
