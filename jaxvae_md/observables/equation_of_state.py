"""Energy and pressure as functions of the volume, with the fit of Birch and Murnaghan."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxvae_md import errors
from jaxvae_md._typing import Array, Params
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.observables.inputs import check_periodic, check_single
from jaxvae_md.observables.thermodynamics import pressure
from jaxvae_md.potentials import Potential
from jaxvae_md.simulate import relax
from jaxvae_md.structure import Structure

_SKIN = 0.5


class EquationOfState(NamedTuple):
    """A crystal under hydrostatic pressure, at rest."""

    volume: Float[np.ndarray, " v"]
    """angstrom^3, of the cell"""
    energy: Float[np.ndarray, " v"]
    """eV, of the cell"""
    pressure: Float[np.ndarray, " v"]
    """eV / angstrom^3, by the virial: no part of the fit"""
    energy_0: float
    """eV, at the minimum of the fit"""
    volume_0: float
    """angstrom^3"""
    bulk_modulus: float
    """eV / angstrom^3"""
    bulk_modulus_derivative: float
    """by the pressure, dimensionless"""
    residual: float
    """eV, largest deviation of an energy from the fit"""


def equation_of_state(
    potential: Potential,
    params: Params,
    structure: Structure,
    volume_ratios: Float[Array, " v"] | None = None,
    relaxed: bool = False,
    tolerance: float = 1e-6,
) -> EquationOfState:
    """Energies and pressures of the isotropically strained cell, and their Birch-Murnaghan fit.

    The third-order equation is a cubic polynomial in V^(-2/3), so that its parameters follow from
    a linear least-squares fit of the energies. On the host, and not differentiable:
    `elastic_constants` is.

    **Arguments:** `volume_ratios` to the structure's own volume, at least four, on both sides of
    the minimum; by default nine from 0.94 to 1.06. `relaxed` moves the atoms within each cell to
    their minimum, to `tolerance` (eV / angstrom), by `simulate.relax`. **Raises:** `OptionError`
    when there are too few volumes or no minimum between them, `GeometryError` for a cell that is
    not periodic, `RunError` when the atoms could not be relaxed, `InputError`. **Source:** Birch,
    Phys. Rev. 71, 809 (1947).

    ```python
    eos = equation_of_state(potential, params, structure)
    eos.bulk_modulus / units.GIGAPASCAL, eos.volume_0 ** (1 / 3)
    ```
    """
    check_single(structure)
    check_periodic(structure)
    ratios = np.linspace(0.94, 1.06, 9) if volume_ratios is None else np.asarray(volume_ratios)
    if ratios.ndim != 1 or len(np.unique(ratios)) < 4 or not (ratios > 0).all():
        raise OptionError(
            f"volume_ratios is {ratios.tolist()}", remedy="give four or more different ones above 0"
        )
    structure = jax.tree.map(np.asarray, structure)
    scaled = [
        structure._replace(position=s * structure.position, cell=s * structure.cell)
        for s in (ratios ** (1 / 3)).astype(structure.position.dtype)
    ]
    fns = neighbor_list(potential.cutoff, _SKIN if relaxed else 0.0)
    # the densest cell has the most neighbors: all others share its shapes
    densest = fns.allocate(scaled[int(np.argmin(ratios))])
    capacity = densest.index.shape[1]
    energies, pressures = [], []
    for one in scaled:
        neighbors = fns.allocate(one, capacity=capacity)._replace(images=densest.images)
        if relaxed:
            result = _relax(potential, tolerance)(params, one, neighbors)
            errors.check(result.error, f"relaxation at {np.linalg.det(one.cell):.6g} angstrom^3")
            one = result.structure
        energy, virial = _energy_and_pressure(potential)(params, one, neighbors)
        energies.append(float(energy))
        pressures.append(float(virial))
    volume = np.abs(np.linalg.det(np.asarray(structure.cell, np.float64))) * ratios
    energies, pressures = np.array(energies), np.array(pressures)
    return EquationOfState(volume, energies, pressures, *birch_murnaghan(volume, energies))


def birch_murnaghan(
    volume: Float[Array, " v"], energy: Float[Array, " v"]
) -> tuple[float, float, float, float, float]:
    """The fit alone: minimum of the energy, its volume, bulk modulus, derivative, residual.

    Units as in `EquationOfState`. **Raises:** `OptionError` without a minimum between the volumes.

    ```python
    energy_0, volume_0, bulk_modulus, derivative, residual = birch_murnaghan(volume, energy)
    ```
    """
    middle = float(np.mean(volume))
    x = (np.asarray(volume) / middle) ** (-2 / 3)
    fit = np.polynomial.Polynomial.fit(x, energy, 3)
    first, second, third = fit.deriv(1), fit.deriv(2), fit.deriv(3)
    roots = first.roots()
    roots = roots[np.isreal(roots)].real
    minima = roots[(second(roots) > 0) & (roots >= x.min()) & (roots <= x.max())]
    if len(minima) != 1:
        raise OptionError(
            f"the energy has no minimum between {np.min(volume):.6g} and {np.max(volume):.6g} "
            "angstrom^3",
            remedy="choose volumes on both sides of it, or relax the atoms",
        )
    (x0,) = minima
    # with E' = 0 at x0: V^2 E'' = 4/9 x^2 f'' and V dB/dV follow from d/dV = -2/3 x/V d/dx
    volume_0 = middle * x0**-1.5
    bulk = 4 / 9 * x0**2 * second(x0) / volume_0
    derivative = 4 + 2 / 3 * x0 * third(x0) / second(x0)
    residual = float(np.max(np.abs(fit(x) - energy)))
    return float(fit(x0)), float(volume_0), float(bulk), float(derivative), residual


@lru_cache(maxsize=32)
def _relax(potential: Potential, tolerance: float):
    return jax.jit(partial(relax, potential, skin=_SKIN, tolerance=tolerance))


@lru_cache(maxsize=32)
def _energy_and_pressure(potential: Potential):
    return jax.jit(lambda *state: (potential.energy(*state), pressure(potential, *state)))
