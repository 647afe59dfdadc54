"""What LAMMPS needs to compute with our numbers: pair commands and data files, in units metal.

| quantity | here | LAMMPS, units metal |
|---|---|---|
| energy, length, mass | eV, angstrom, amu | the same |
| velocity | ASE's angstrom / (angstrom sqrt(amu / eV)) | angstrom / ps |
| stress | eV / angstrom^3, tension positive | bar, pressure positive |
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Params
from jaxvae_md.atomic import write_text
from jaxvae_md.errors import GeometryError, InputError, OptionError, SpeciesError
from jaxvae_md.structure import Structure, checked_species, from_atoms, to_atoms

if TYPE_CHECKING:
    from ase import Atoms

_STYLES = {
    "cut": ("lj/cut", "no"),
    "shift": ("lj/cut", "yes"),
    "force_shift": ("lj/smooth/linear", "no"),
}
"""pair style and `pair_modify shift` of each scheme"""


def lammps_lennard_jones(
    species: Sequence[str],
    params: Params,
    cutoff: float,
    scheme: str = "force_shift",
    tail: bool = False,
) -> str:
    """The LAMMPS commands for a potential that `lennard_jones` made, to follow `read_data`.

    | scheme | LAMMPS |
    |---|---|
    | cut | lj/cut |
    | shift | lj/cut, pair_modify shift yes |
    | force_shift | lj/smooth/linear |

    Atom types are the species in the table's order, from 1; the simulation must have
    `units metal`. Every pair is written out, read symmetrically as `lennard_jones` reads it, so
    LAMMPS mixes nothing. Numbers are written to the last bit.

    **Arguments:** cutoff in angstrom; `tail` adds the long-range correction to energy and
    pressure, which LAMMPS has for scheme cut alone. **Raises:** `OptionError`.

    ```python
    text = lammps_lennard_jones(("Ar",), argon.init(key), cutoff=8.5, scheme="cut", tail=True)
    lammps.commands_string("units metal\\nread_data argon.data\\n" + text)
    ```
    """
    species = checked_species(species)
    if scheme not in _STYLES:
        raise OptionError(
            f"LAMMPS has no pair style for scheme {scheme!r}",
            remedy="take cut, shift or force_shift, or run it from ASE with PotentialCalculator",
        )
    if tail and scheme != "cut":
        raise OptionError(
            f"LAMMPS has no tail correction for scheme {scheme!r}",
            remedy="take scheme cut with tail, or no tail",
        )
    if not 0 < cutoff < np.inf:
        raise OptionError(f"cutoff is {cutoff}", remedy="give a positive length in angstrom")
    sigma, epsilon = (_table(params, name, len(species)) for name in ("sigma", "epsilon"))
    style, shift = _STYLES[scheme]
    types = ", ".join(f"{number} {symbol}" for number, symbol in enumerate(species, 1))
    lines = [f"# units metal; types {types}", f"pair_style {style} {float(cutoff)!r}"]
    lines += [
        f"pair_coeff {a + 1} {b + 1} {float(epsilon[a, b])!r} {float(sigma[a, b])!r}"
        for a in range(len(species))
        for b in range(a, len(species))
    ]
    if style == "lj/cut":
        lines.append(f"pair_modify shift {shift} tail {'yes' if tail else 'no'}")
    return "\n".join(lines) + "\n"


def write_lammps_data(
    path: str | Path, atoms: Atoms | Structure, species: Sequence[str]
) -> Float[np.ndarray, "3 3"]:
    """Writes a LAMMPS data file (units metal, atom_style atomic), whole or not at all.

    Masses are always there, velocities when the atoms have momenta. Atom types are the species in
    the table's order, from 1; ids are the atoms in order, from 1.

    LAMMPS wants the first cell vector along x and the second in the xy plane, so it gets the
    structure turned (and mirrored, where the cell is left-handed). **Returns** the orthogonal
    matrix Q that does it: rows `v @ Q` are LAMMPS's vectors, and its forces `f @ Q.T` are ours.

    **Raises:** `SpeciesError` for an element outside the table or one with several masses,
    `GeometryError` for a cell that is singular or not periodic in all directions, `WriteError`.

    ```python
    turn = write_lammps_data("start.data", atoms, ("O", "Si"))
    forces = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3) @ turn.T
    ```
    """
    from ase import Atoms
    from ase.calculators.lammps import Prism
    from ase.io.lammpsdata import write_lammps_data as write

    table = checked_species(species)
    if isinstance(atoms, Structure):
        atoms = to_atoms(atoms, table)
    try:
        _check(atoms, table)
    except InputError as error:
        raise error.at(file=path) from None
    # ASE lets an array "type", which a reader left, overrule the order of the species
    masses = atoms.get_masses()
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, masses=masses)
    if moving := atoms.has("momenta"):
        plain.set_momenta(atoms.get_momenta())
    prism = Prism(atoms.cell.array)
    text = StringIO()
    write(
        text,
        plain,
        specorder=list(table),
        masses=True,
        velocities=moving,
        # ASE drops a small tilt otherwise
        force_skew=bool(np.any(prism.get_lammps_prism()[3:] != 0)),
        prismobj=prism,
        units="metal",
        atom_style="atomic",
    )
    body = text.getvalue().partition("\n")[2]
    write_text(path, f"jaxvae_md: units metal, types {' '.join(table)}\n{body}")
    return prism.rot_mat


def _table(params: Params, name: str, num: int) -> Float[np.ndarray, "s s"]:
    """A table of parameters as `lennard_jones` reads it."""
    table = np.asarray(params[name], np.float64)
    if table.shape not in ((), (num, num)) or not np.isfinite(table).all():
        raise OptionError(
            f"{name} is {table.tolist()} for {num} species",
            remedy=f"give finite numbers of shape {(num, num)}, what the potential's init returns",
        )
    table = np.broadcast_to(table, (num, num))
    return 0.5 * (table + table.T)


def _check(atoms: Atoms, species: tuple[str, ...]) -> None:
    if not atoms.pbc.all():
        raise GeometryError(
            f"the cell is not periodic in all directions (pbc {atoms.pbc.tolist()})",
            remedy="put the atoms into a large periodic cell",
        )
    structure = from_atoms(atoms, species)
    if not np.isfinite(structure.cell).all() or abs(np.linalg.det(structure.cell)) < 1e-6:
        raise GeometryError("the cell is singular", remedy="give three independent lattice vectors")
    finite = np.isfinite(structure.position).all(axis=1)
    if not finite.all():
        raise GeometryError(
            "the position is not finite", atom=int(np.argmin(finite)), remedy="repair the frame"
        )
    masses = atoms.get_masses()
    for number, symbol in enumerate(species):
        own = masses[structure.species == number]
        if len(own) and np.ptp(own) > 0:
            raise SpeciesError(
                f"atoms of {symbol} have masses from {own.min():g} to {own.max():g} amu",
                remedy="give all atoms of an element one mass, which is LAMMPS's by type",
            )
