"""Labels: a structure to energy and forces, by a potential of the package or by any function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm import tqdm

from jaxvae_md._typing import Labeller, Params
from jaxvae_md.errors import LabelError, OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials.potential import Potential, energy_and_forces
from jaxvae_md.potentials.stillinger_weber import stillinger_weber
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms


def potential_labeller(potential: Potential, params: Params) -> Labeller:
    """A potential of the package as the reference. **Raises:** `SpeciesError` when called.

    ```python
    labeller = potential_labeller(stillinger_weber(), stillinger_weber().init(key))
    energy, forces = labeller(atoms)
    ```
    """
    fns = neighbor_list(potential.cutoff)
    compiled = jax.jit(lambda s, n: energy_and_forces(potential.energy, params, s, n))

    def labeller(atoms: Atoms) -> tuple[float, np.ndarray]:
        structure = from_atoms(atoms, potential.species)
        energy, forces = compiled(structure, fns.allocate(structure, multiple=8))
        return float(energy), np.asarray(forces)

    return labeller


def get_labeller(name: str) -> Labeller | None:
    """The labeller that the command line names: `sw`, `none` or `module:function`.

    A function takes ASE Atoms and returns (energy in eV, forces [n, 3] in eV / angstrom). Modules
    are also looked for in the current folder. **Raises:** `OptionError`.

    ```python
    labeller = get_labeller("my_dft:label")
    ```
    """
    if name == "none":
        return None
    if name == "sw":
        potential = stillinger_weber()
        return potential_labeller(potential, potential.init(jax.random.key(0)))
    module, colon, function = name.partition(":")
    remedy = "give sw, none, or module:function, where function(atoms) returns (energy, forces)"
    if not colon or not module or not function:
        raise OptionError(f"labeller {name!r} is not known", remedy=remedy)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        labeller: Labeller = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module may raise anything while it is imported
        raise OptionError(f"labeller {name!r} cannot be imported: {error}", remedy=remedy) from None
    if not callable(labeller):
        raise OptionError(f"labeller {name!r} is not a function", remedy=remedy)
    return labeller


def label(frames: Sequence[Atoms], labeller: Labeller, progress: bool = False) -> list[Atoms]:
    """Copies of the frames with the reference's energy and forces attached.

    **Raises:** `LabelError` when the labeller raises or returns the wrong shape or NaN.

    ```python
    labelled = label(generated, get_labeller("sw"))
    ```
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    out = []
    for number, atoms in enumerate(tqdm(frames, desc="label", unit="frame", disable=not progress)):
        try:
            energy, forces = labeller(atoms.copy())
            energy, forces = float(energy), np.asarray(forces, float)
        except Exception as error:
            raise LabelError(
                f"the labeller raised {type(error).__name__}: {error}",
                frame=number,
                remedy="try it on this frame alone",
            ) from error
        if forces.shape != (len(atoms), 3) or not np.isfinite([energy, *forces.flat]).all():
            raise LabelError(
                f"the labeller returned energy {energy} and forces of shape {forces.shape}",
                frame=number,
                remedy=f"return a finite energy and finite forces of shape ({len(atoms)}, 3)",
            )
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
        out.append(copy)
    return out


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
