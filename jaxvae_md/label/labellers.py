"""Labellers: of potentials, of ASE's calculators, and by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxvae_md._typing import Labeller, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.label.espresso import Espresso
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials.potential import Potential, energy_and_forces
from jaxvae_md.potentials.stillinger_weber import stillinger_weber
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms


_STRIDE = 32
"""slots by which neighbor lists grow: each size is compiled"""


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
        energy, forces = compiled(structure, fns.allocate(structure, multiple=_STRIDE))
        return float(energy), np.asarray(forces)

    return labeller


def calculator_labeller(make: Callable[[], Any]) -> Labeller:
    """Any calculator of ASE as the reference; stress too, where it has any.

    **Arguments:** `make()` returns a calculator, a new one for every structure: threads and
    processes must not meet in one, nor in a folder, if it writes files.

    ```python
    energy, forces, stress = calculator_labeller(ase.calculators.emt.EMT)(atoms)
    ```
    """
    return partial(_by_calculator, make)


def _by_calculator(make, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray | None]:
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = atoms.copy()
    atoms.calc = make()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    try:
        stress = atoms.get_stress(voigt=False)
    except (PropertyNotImplementedError, NotImplementedError):
        stress = None
    return float(energy), forces, stress


def get_labeller(name: str) -> Labeller | None:
    """The labeller that the command line names: `sw`, `qe`, `none` or `module:function`.

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
        sw: Any = potential_labeller(potential, potential.init(jax.random.key(0)))
        sw.reference = "Stillinger-Weber"
        return sw
    if name == "qe":
        return Espresso()
    module, colon, function = name.partition(":")
    remedy = "give sw, qe, none, or module:function, where function(atoms) returns (energy, forces)"
    if not colon or not module or not function:
        raise OptionError(f"labeller {name!r} is not known", remedy=remedy)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        labeller: Labeller = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise OptionError(
            f"labeller {name!r} cannot be imported ({reason})", remedy=remedy
        ) from None
    if not callable(labeller):
        raise OptionError(f"labeller {name!r} is not a function", remedy=remedy)
    return labeller
