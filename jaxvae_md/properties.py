"""What a reference or a potential says of a crystal, all by energies and forces: a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxvae_md import units
from jaxvae_md._typing import Labeller
from jaxvae_md.errors import LabelError
from jaxvae_md.label import asked

if TYPE_CHECKING:
    from ase import Atoms

_STRAINS = np.array([-0.01, -0.005, 0.0, 0.005, 0.01])
_FORCE = 0.02
"""eV / angstrom, at which atoms count as relaxed"""


class Properties(NamedTuple):
    """Of a crystal with the diamond structure."""

    lattice_constant: float
    """angstrom"""
    bulk_modulus: float
    """GPa, as c11, c12 and c44"""
    c11: float
    c12: float
    c44: float
    vacancy_energy: float
    """eV, in a cell of 16 places, relaxed at constant volume"""
    surface_energy: float
    """J / m^2, of the ideal (100) surface"""


def properties(labeller: Labeller, symbol: str = "Si", lattice_constant: float = 5.43):
    """The properties of a diamond crystal, in small cells that a DFT code can compute too.

    Equation of state of Birch and Murnaghan by seven volumes; elastic constants by the curvature
    of the energy with uniaxial, tetragonal and shear strains up to 1 %, the second atom relaxed;
    a vacancy in 16 places; a slab of eight layers. Some seventy labels.

    **Arguments:** `lattice_constant` in angstrom, a guess within 5 %. **Raises:** `LabelError`
    where the energy has no minimum near the guess, and what the labeller raises.

    ```python
    properties(get_labeller("sw")).c44
    ```
    """
    from ase.build import bulk, diamond100

    energy_of = lambda atoms: asked(labeller, atoms).energy
    unit = bulk(symbol, "diamond", a=lattice_constant)
    constant, modulus = _equation_of_state(energy_of, unit, lattice_constant)
    crystal = bulk(symbol, "diamond", a=constant)
    each = energy_of(crystal) / 2

    uniaxial = _curvature(labeller, crystal, lambda e: np.diag([e, 0, 0]))
    tetragonal = _curvature(labeller, crystal, lambda e: np.diag([e, -e, e**2 / (1 - e**2)]))
    shear = _curvature(
        labeller, crystal, lambda e: np.array([[0, e, 0], [e, 0, 0], [0, 0, e**2 / (1 - e**2)]])
    )
    c11, prime = uniaxial, tetragonal / 2

    places = crystal * (2, 2, 2)
    whole = energy_of(places)
    vacancy = _relaxed(labeller, places[1:]) - whole * 15 / 16

    slab = diamond100(symbol, size=(1, 1, 8), a=constant, vacuum=6.0)
    slab.pbc = True
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    surface = (energy_of(slab) - len(slab) * each) / (2 * area)
    joule = 0.1 / units.GIGAPASCAL
    return Properties(
        constant, modulus, c11, c11 - prime, shear / 4, vacancy, float(surface * joule)
    )


def table(columns: Mapping[str, Properties]) -> str:
    """Properties side by side, as text.

    ```python
    print(table({"DFT": properties(Espresso()), "model": properties(labeller)}))
    ```
    """
    rows = (
        ("lattice constant (angstrom)", "lattice_constant", ".3f"),
        ("bulk modulus (GPa)", "bulk_modulus", ".1f"),
        ("C11 (GPa)", "c11", ".1f"),
        ("C12 (GPa)", "c12", ".1f"),
        ("C44 (GPa)", "c44", ".1f"),
        ("vacancy (eV, 16 places)", "vacancy_energy", ".2f"),
        ("(100) surface (J/m^2, ideal)", "surface_energy", ".2f"),
    )
    lines = [" " * 30 + "".join(f"{name:>12s}" for name in columns)]
    for title, name, form in rows:
        values = (format(getattr(column, name), form) for column in columns.values())
        lines.append(f"{title:30s}" + "".join(f"{value:>12s}" for value in values))
    return "\n".join(lines)


def _equation_of_state(energy_of: Callable[[Atoms], float], unit: Atoms, guess: float):
    """Lattice constant (angstrom) and bulk modulus (GPa)."""
    from ase.eos import EquationOfState

    volumes, energies = [], []
    for scale in np.linspace(0.95, 1.05, 7):
        atoms = unit.copy()
        atoms.set_cell(scale * unit.cell.array, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(energy_of(atoms))
    if np.argmin(energies) in (0, len(energies) - 1):
        raise LabelError(
            f"the energy has no minimum within 5 % of {guess} angstrom",
            remedy="give another lattice constant, or look at the reference",
        )
    volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    return float((4 * volume) ** (1 / 3)), modulus / units.GIGAPASCAL


def _curvature(labeller: Labeller, crystal: Atoms, strain_of: Callable[[float], np.ndarray]):
    """Second derivative of the energy by the strain over the volume, GPa."""
    energies = []
    for size in _STRAINS:
        atoms = crystal.copy()
        atoms.set_cell(crystal.cell.array @ (np.eye(3) + strain_of(size)), scale_atoms=True)
        energies.append(_relaxed(labeller, atoms))
    quadratic = np.polyfit(_STRAINS, energies, 4)[-3]
    return 2 * quadratic / crystal.get_volume() / units.GIGAPASCAL


def _relaxed(labeller: Labeller, atoms: Atoms) -> float:
    """Energy (eV) with all forces below the limit, the cell as it is."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize import BFGS

    class Labelled(Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            assert atoms is not None
            label = asked(labeller, atoms)
            self.results = {"energy": label.energy, "forces": label.forces}

    relaxed = atoms.copy()
    relaxed.calc = Labelled()
    if not BFGS(relaxed, logfile=None).run(fmax=_FORCE, steps=60):
        raise LabelError(
            f"{atoms.symbols} did not relax in 60 steps", remedy="look at the reference's forces"
        )
    return relaxed.get_potential_energy()
