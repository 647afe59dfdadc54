"""Labels of two references must not be mixed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxvae_md._typing import Labeller
from jaxvae_md.errors import LabelError
from jaxvae_md.label.answer import label

if TYPE_CHECKING:
    from ase import Atoms

_log = logging.getLogger(__name__)


def reference_of(frames: Sequence[Atoms]) -> str:
    """The reference that made the labels, by `info["reference"]`; "" where no frame tells.

    Warns where only some frames tell. **Raises:** `LabelError` for labels of two references.

    ```python
    reference_of(datasets.silicon_dft())  # "Quantum ESPRESSO 6.7; ..."
    ```
    """
    names = [str(atoms.info.get("reference", "")) for atoms in frames]
    known = sorted({name for name in names if name})
    if len(known) > 1:
        raise LabelError(
            f"its label is of {known[1]}, those of other frames are of {known[0]}",
            frame=names.index(known[1]),
            remedy="labels of two references must not be mixed: give frames of one",
        )
    if known and "" in names:
        _log.warning(
            "%d of %d frames do not tell by which reference they were labelled; the others: %s",
            names.count(""),
            len(names),
            known[0],
        )
    return known[0] if known else ""


def check_reference(expected: str, labeller: Labeller | None) -> None:
    """Refuses a labeller that calls itself otherwise than the reference of the data.

    **Raises:** `LabelError`.

    ```python
    check_reference(reference_of(frames), Espresso())
    ```
    """
    name = getattr(labeller, "reference", "")
    if expected and name and expected != name:
        raise LabelError(
            f"the labels of the data are of {expected}, and the labeller is {name}",
            remedy="labels of two references must not be mixed: use --labeller none, or the "
            "labeller that made the data",
        )


def check_same_reference(
    frames: Sequence[Atoms], labeller: Labeller, name: str, tolerance: float = 1e-3
) -> None:
    """Refuses a labeller that did not make the labels it would be mixed with.

    Labels frames again and compares the forces, to `tolerance` (eV / angstrom): all of them for
    the embedded reference, three of them for others, which may be expensive.
    **Raises:** `LabelError`.

    ```python
    check_same_reference(frames, get_labeller("sw"), "sw")
    ```
    """
    numbers = np.arange(len(frames))
    if name != "sw":
        numbers = np.unique(np.linspace(0, len(frames) - 1, 3).astype(int))
    for number in map(int, numbers):
        atoms = frames[number]
        try:
            (again,) = label([atoms], labeller)
        except LabelError as error:
            raise LabelError(
                f"the labeller {name} cannot label this frame of the data ({error.message})",
                frame=number,
                remedy="use --labeller none, or the labeller that made the data",
            ) from error
        worst = np.abs(again.get_forces() - atoms.get_forces()).max()
        shift = abs(again.get_potential_energy() - atoms.get_potential_energy()) / len(atoms)
        if not (worst <= tolerance and shift <= tolerance):
            raise LabelError(
                f"the labeller {name} did not make these labels: its forces differ by up to "
                f"{worst:.3g} eV/angstrom, its energy by {shift:.3g} eV/atom",
                frame=number,
                remedy="labels of two references must not be mixed: use --labeller none, or the "
                "labeller that made the data",
            )
