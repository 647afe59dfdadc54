"""What a reference or a potential says of a crystal, all by energies and forces: a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae_md import units
from jaxvae_md._typing import Array, Labeller, Params
from jaxvae_md.errors import LabelError, OptionError
from jaxvae_md.label import asked
from jaxvae_md.potentials import Potential
from jaxvae_md.simulate import nvt_langevin, run
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms

_STRAINS = np.array([-0.01, -0.005, 0.0, 0.005, 0.01])
_FORCE = 0.02
"""eV / angstrom, at which atoms count as relaxed"""


Lattice: TypeAlias = Literal["diamond", "fcc", "bcc"]
STRUCTURES: tuple[Lattice, ...] = get_args(Lattice)


class Properties(NamedTuple):
    """Of a cubic crystal of one element."""

    lattice_constant: float
    """angstrom"""
    bulk_modulus: float
    """GPa, as c11, c12 and c44"""
    c11: float
    c12: float
    c44: float
    vacancy_energy: float
    """eV, in a cell of 16 places (diamond) or 27, relaxed at constant volume"""
    surface_energy: float
    """J / m^2, of the ideal (100) surface"""
    shortest_pair: float = float("nan")
    """angstrom, in a simulation at 2000 K (`shortest_pair`), of 100 ps by default; not a number
    where none was made"""


def properties(
    labeller: Labeller,
    symbol: str = "Si",
    lattice_constant: float = 5.43,
    structure: Lattice = "diamond",
) -> Properties:
    """The properties of a cubic crystal, in small cells that a DFT code can compute too.

    Equation of state of Birch and Murnaghan by seven volumes; elastic constants by the curvature
    of the energy with uniaxial, tetragonal and shear strains up to 1 %, the second atom of diamond
    relaxed; a vacancy; a slab of eight layers. Some seventy labels.

    **Arguments:** `lattice_constant` in angstrom, a guess. **Raises:** `LabelError` where the
    energy has no minimum near the guess, and what the labeller raises; `OptionError`.

    ```python
    properties(get_labeller("sw")).c44
    ```
    """
    from ase import build

    if structure not in STRUCTURES:
        raise OptionError(f"structure is {structure!r}", remedy=f"give one of {STRUCTURES}")
    energy_of = lambda atoms: asked(labeller, atoms).energy
    unit = build.bulk(symbol, structure, a=lattice_constant)
    constant, modulus = _equation_of_state(energy_of, unit, lattice_constant)
    crystal = build.bulk(symbol, structure, a=constant)
    each = energy_of(crystal) / len(crystal)

    uniaxial = _curvature(labeller, crystal, lambda e: np.diag([e, 0, 0]))
    tetragonal = _curvature(labeller, crystal, lambda e: np.diag([e, -e, e**2 / (1 - e**2)]))
    shear = _curvature(
        labeller, crystal, lambda e: np.array([[0, e, 0], [e, 0, 0], [0, 0, e**2 / (1 - e**2)]])
    )
    c11, prime = uniaxial, tetragonal / 2

    places = crystal * (2, 2, 2) if structure == "diamond" else crystal * (3, 3, 3)
    whole = energy_of(places)
    vacancy = _relaxed(labeller, places[1:]) - whole * (len(places) - 1) / len(places)

    slab = getattr(build, f"{structure}100")(symbol, size=(1, 1, 8), a=constant, vacuum=6.0)
    slab.pbc = True
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    surface = (energy_of(slab) - len(slab) * each) / (2 * area)
    joule = 0.1 / units.GIGAPASCAL
    return Properties(
        constant, modulus, c11, c11 - prime, shear / 4, vacancy, float(surface * joule)
    )


def shortest_pair(
    potential: Potential,
    params: Params,
    crystal: Atoms,
    key: Array,
    *,
    temperature: float = 2000.0,
    num_steps: int = 50000,
    dt: float = 2.0,
    progress: bool = False,
) -> float:
    """The smallest distance (angstrom) of two atoms in a simulation; 0 where it blows up.

    A potential that is right near its data may fall apart beyond them: atoms collapse. Looked at
    every 20 fs of Langevin dynamics at constant volume.

    **Arguments:** `crystal` to start from, of a rectangular cell; `temperature` in K, `dt` in fs.

    ```python
    shortest_pair(potential, params, bulk("Si", cubic=True) * (2, 2, 2), key)
    ```
    """
    if num_steps < 1:
        raise OptionError(f"num_steps is {num_steps}", remedy="give 1 or more")
    every = min(num_steps, max(1, round(20.0 / dt)))
    # single precision is enough to see atoms collapse
    structure = _single(from_atoms(crystal, potential.species))
    simulator = nvt_langevin(potential, dt, temperature, 0.01)
    options = {"initial_temperature": temperature, "record_every": every, "progress": progress}
    trajectory = run(
        simulator, _single(params), structure, key, num_steps, label="stability", **options
    )
    if int(trajectory.error) or not len(trajectory.position):
        return 0.0
    cell = jnp.asarray(trajectory.cell[0])

    @jax.jit
    def of_frame(position):
        apart = (position[:, None] - position) @ jnp.linalg.inv(cell)
        apart = (apart - jnp.round(apart)) @ cell
        square = jnp.sum(apart**2, axis=-1) + jnp.diag(jnp.full(len(position), jnp.inf))
        return jnp.min(square)

    return float(jnp.sqrt(jnp.min(lax.map(of_frame, jnp.asarray(trajectory.position)))))


def _single(tree: Any) -> Any:
    to = lambda leaf: np.asarray(leaf, np.float32) if np.asarray(leaf).dtype.kind == "f" else leaf
    return jax.tree.map(to, tree)


_ROWS = (
    ("lattice constant (angstrom)", "lattice_constant", ".3f"),
    ("bulk modulus (GPa)", "bulk_modulus", ".1f"),
    ("C11 (GPa)", "c11", ".1f"),
    ("C12 (GPa)", "c12", ".1f"),
    ("C44 (GPa)", "c44", ".1f"),
    ("vacancy (eV)", "vacancy_energy", ".2f"),
    ("(100) surface (J/m^2, ideal)", "surface_energy", ".2f"),
    ("shortest pair, 2000 K (angstrom)", "shortest_pair", ".2f"),
)


def table_rows(columns: Mapping[str, Properties]) -> list[list[str]]:
    """Properties side by side: a row each, with its title first.

    ```python
    table_rows({"model": properties(labeller)})[0]  # ["lattice constant (angstrom)", "5.431"]
    ```
    """
    text = lambda value, form: "-" if np.isnan(value) else format(value, form)
    return [
        [title, *(text(getattr(column, name), form) for column in columns.values())]
        for title, name, form in _ROWS
    ]


def table(columns: Mapping[str, Properties]) -> str:
    """The same as text.

    ```python
    print(table({"DFT": properties(Espresso()), "model": properties(labeller)}))
    ```
    """
    lines = [["", *columns], *table_rows(columns)]
    return "\n".join(f"{one:33s}" + "".join(f"{t:>12s}" for t in others) for one, *others in lines)


def _equation_of_state(energy_of: Callable[[Atoms], float], unit: Atoms, guess: float):
    """Lattice constant (angstrom) and bulk modulus (GPa)."""
    from ase.eos import EquationOfState

    first = guess
    for _ in range(3):
        volumes, energies = [], []
        for scale in np.linspace(0.95, 1.05, 7):
            atoms = unit.copy()
            atoms.set_cell(scale * unit.cell.array, scale_atoms=True)
            volumes.append(atoms.get_volume())
            energies.append(energy_of(atoms))
        lowest = int(np.argmin(energies))
        if lowest not in (0, len(energies) - 1):
            try:
                volume, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
            except (RuntimeError, ValueError) as error:
                raise LabelError(
                    f"no equation of state fits the energies near {guess:.3g} angstrom ({error})",
                    remedy="look at the reference",
                ) from error
            length = np.cbrt(volume / unit.get_volume()) * guess
            return float(length), modulus / units.GIGAPASCAL
        unit.set_cell((0.95, 1.05)[lowest > 0] * unit.cell.array, scale_atoms=True)
        guess *= (0.95, 1.05)[lowest > 0]
    raise LabelError(
        f"the energy has no minimum near {first:.3g} angstrom",
        remedy="give another lattice constant, or look at the reference",
    )


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
