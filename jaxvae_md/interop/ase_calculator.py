"""A potential of the package as an ASE calculator."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import NeighborList, neighbor_list
from jaxvae_md.potentials.potential import Potential, energy_and_forces, stress
from jaxvae_md.structure import Structure, from_atoms

_STRIDE = 32
"""slots by which neighbor lists grow"""


class PotentialCalculator(Calculator):
    """A potential behind ASE's interface, for dynamics, relaxation, phonons and the like.

    | property | unit |
    |---|---|
    | energy, free_energy | eV; the same number |
    | forces | eV / angstrom |
    | stress | eV / angstrom^3, Voigt, tension positive; only for a cell of three vectors |
    | novelty | one number an atom, as `novelty_fn` has it |

    What is not asked for is not computed. Results depend on the atoms alone, not on what was
    computed before; the energy only to rounding, which comes from another program when it is
    asked for alone. Setting `params` forgets what was computed.

    **Arguments:** `novelty_fn(structure, neighbors) -> [n]`, traceable by JAX, with a list that
    reaches `novelty_cutoff` (angstrom). **Raises:** `SpeciesError` and `GeometryError`, naming the
    atom, when a property is asked for.

    ```python
    atoms.calc = PotentialCalculator(potential, params)
    BFGS(atoms).run(fmax=0.01)
    ```
    """

    ignored_changes = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        potential: Potential,
        params: Params,
        novelty_fn: Callable[[Structure, NeighborList], Float[Array, " n"]] | None = None,
        novelty_cutoff: float = 0.0,
    ) -> None:
        super().__init__()
        self.potential = potential
        self._params = params
        self.novelty_fn, self.novelty_cutoff = novelty_fn, float(novelty_cutoff)
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        if novelty_fn is not None:
            self.implemented_properties.append("novelty")
        self._lists: dict[float, NeighborList] = {}

    @property
    def params(self) -> Params:
        """The potential's parameters."""
        return self._params

    @params.setter
    def params(self, params: Params) -> None:
        """Other parameters; forgets what was computed with the old ones."""
        self._params = params
        self.reset()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Computes `properties` into `results`; ASE calls this."""
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results, self._lists = {}, {}
        if self.atoms is None:
            raise OptionError("no atoms to compute", remedy="set atoms.calc and ask the atoms")
        structure = from_atoms(self.atoms, self.potential.species)
        function = self.potential.energy
        if "forces" in properties:
            self._keep(*self._evaluate(_jit(energy_and_forces, function), structure))
        elif "energy" in properties or "free_energy" in properties:
            self._keep(self._evaluate(_jit(function), structure))
        if "stress" in properties and self.atoms.cell.rank == 3:
            virial = self._evaluate(_jit(stress, function), structure)
            self.results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(virial, np.float64))
        if "novelty" in properties and self.novelty_fn is not None:
            neighbors = self._neighbors(structure, self.novelty_cutoff)
            novelty = _jit(self.novelty_fn)(structure, neighbors)
            self.results["novelty"] = np.array(novelty, np.float64)

    def _evaluate(self, compiled: Callable, structure: Structure):
        neighbors = self._neighbors(structure, self.potential.cutoff)
        return compiled(self._params, structure, neighbors)

    def _keep(self, energy: Array, forces: Array | None = None) -> None:
        self.results["energy"] = self.results["free_energy"] = float(energy)
        if forces is not None:
            self.results["forces"] = np.array(forces, np.float64)

    def _neighbors(self, structure: Structure, cutoff: float) -> NeighborList:
        if cutoff not in self._lists:
            # rounded up so that a whole run compiles a handful of times; from this structure alone,
            # so that its energy has the same bits whatever was computed before
            neighbors = neighbor_list(cutoff).allocate(structure, multiple=_STRIDE)
            # only `update` reads images and grid, which follow the cell
            self._lists[cutoff] = neighbors._replace(images=neighbors.images[:0], grid=None)
        return self._lists[cutoff]


@lru_cache(maxsize=64)
def _jit(function: Callable, *bound: Callable) -> Callable:
    """One compiled function for all calculators of a potential."""
    return jax.jit(partial(function, *bound))
