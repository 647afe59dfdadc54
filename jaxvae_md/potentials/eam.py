"""The embedded atom method in the analytic form of Zhou."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxvae_md._typing import Array, Params
from jaxvae_md.cutoffs import within
from jaxvae_md.errors import OptionError, SpeciesError
from jaxvae_md.neighbors import FAR, displacements, neighbor_species
from jaxvae_md.potentials.potential import (
    Embedding,
    Potential,
    Radial,
    potential,
    sum_over_atoms,
)
from jaxvae_md.structure import checked_species

ZHOU = {
    "W": {
        "re": 2.740840,
        "fe": 3.487340,
        "rhoe": 37.234847,
        "rhos": 37.234847,
        "alpha": 8.900114,
        "beta": 4.746728,
        "A": 0.882435,
        "B": 1.394592,
        "kappa": 0.139209,
        "lambda": 0.278417,
        "Fn0": -4.946281,
        "Fn1": -0.148818,
        "Fn2": 0.365057,
        "Fn3": -4.432406,
        "F0": -4.96,
        "F1": 0.0,
        "F2": 0.661935,
        "F3": 0.348147,
        "eta": 0.582714,
        "Fe": -4.961306,
    }
}
"""re in angstrom, A, B and all F in eV, fe, rhoe and rhos in the unit of the density, the rest
dimensionless. Source: Zhou, Johnson and Wadley, Phys. Rev. B 69, 144113 (2004), table III."""

_PAIR = ("re", "fe", "alpha", "beta", "A", "B", "kappa", "lambda")
_EMBEDDING = ("rhoe", "rhos", "eta", "Fe", *(f"F{n}{i}" for n in ("n", "") for i in range(4)))


def eam_zhou(
    species: Sequence[str] = ("W",),
    elements: Mapping[str, Mapping[str, float]] = ZHOU,
    cutoff: float | None = None,
) -> Potential:
    """The analytic embedded atom potential of Zhou and others; tungsten by default.

        E     = sum_i F(rho_i) + 1/2 sum_ij phi(r_ij),   rho_i = sum_j f(r_ij)
        f     = fe e(beta, lambda),  phi = A e(alpha, kappa) - B e(beta, lambda)
        e(a, b) = exp(-a (r / re - 1)) / (1 + (r / re - b)^20)
        F     = sum_k Fn_k (rho / (.85 rhoe) - 1)^k              below .85 rhoe
                sum_k F_k (rho / rhoe - 1)^k                     below 1.15 rhoe
                Fe (1 - ln (rho / rhos)^eta) (rho / rhos)^eta    above
        phi_ab = 1/2 (f_b / f_a phi_aa + f_a / f_b phi_bb)       of two elements

    The parameters are a dictionary of those of `elements`, each `[s]` by species, and all
    differentiable. **Arguments:** `cutoff` in angstrom, where the functions end; by default
    sqrt(5) times the largest re, as in the tables that the authors give, where they are some
    1e-9 of their value. **Raises:** `SpeciesError`, `OptionError`. **Source:** Zhou, Johnson and
    Wadley, Phys. Rev. B 69, 144113 (2004), equations A1 to A8.

    ```python
    tungsten = eam_zhou(("W",))
    neighbors = neighbor_list(tungsten.cutoff).allocate(structure)
    energy = tungsten.energy(tungsten.init(jax.random.key(0)), structure, neighbors)
    ```
    """
    species = checked_species(species)
    missing = [symbol for symbol in species if symbol not in elements]
    if missing:
        raise SpeciesError(
            f"no parameters for {missing[0]}", remedy=f"have {', '.join(sorted(elements))}"
        )
    start = {
        name: np.array([float(elements[symbol][name]) for symbol in species])
        for name in (*_PAIR, *_EMBEDDING)
    }
    cutoff = float(5**0.5 * np.max(start["re"]) if cutoff is None else cutoff)
    if not 0 < cutoff < FAR / 2:
        raise OptionError(f"cutoff is {cutoff}", remedy="give a positive length in angstrom")

    def init(key):
        del key
        return {name: jnp.asarray(value, float) for name, value in start.items()}

    def tables(params: Params) -> dict[str, Array]:
        """Those of the atom and of its neighbor."""
        num = len(species)
        found: dict[str, Array] = {
            f"{name}_i": jnp.repeat(params[name][:, None], num, axis=1) for name in _PAIR
        }
        if num > 1:
            found |= {f"{name}_j": jnp.repeat(params[name][None], num, axis=0) for name in _PAIR}
        return found

    def of_element(r, c, side):
        """f and phi of one element, with their derivatives by r."""
        p = {name: c[f"{name}_{side}"] for name in _PAIR}
        near, near_slope = _decay(r, p["re"], p["beta"], p["lambda"])
        core, core_slope = _decay(r, p["re"], p["alpha"], p["kappa"])
        return (
            (p["fe"] * near, p["fe"] * near_slope),
            (p["A"] * core - p["B"] * near, p["A"] * core_slope - p["B"] * near_slope),
        )

    def pair(square, c):
        inverse = jnp.sqrt(1 / square)
        r = square * inverse
        (f, f_slope), (phi, slope) = of_element(r, c, "i")
        if "re_j" in c:
            (g, g_slope), (psi, psi_slope) = of_element(r, c, "j")
            ratio = g / f
            change = (g_slope - ratio * f_slope) / f
            slope = 0.5 * (
                ratio * slope + change * phi + (psi_slope - psi * change / ratio) / ratio
            )
            phi = 0.5 * (ratio * phi + psi / ratio)
        return phi, -slope * inverse

    def density(square, c):
        inverse = jnp.sqrt(1 / square)
        r = square * inverse
        (f, slope), _ = of_element(r, c, "i")
        if "re_j" not in c:
            return f, -slope * inverse, -slope * inverse
        (g, other), _ = of_element(r, c, "j")
        return g, -other * inverse, -slope * inverse

    def embed(params, rho, species):
        p = {name: params[name][species] for name in _EMBEDDING}
        low, x = rho / (0.85 * p["rhoe"]) - 1, rho / p["rhoe"] - 1
        inner = p["Fn0"] + low * (p["Fn1"] + low * (p["Fn2"] + low * p["Fn3"]))
        middle = p["F0"] + x * (p["F1"] + x * (p["F2"] + x * p["F3"]))
        above = x > 0.15
        # a harmless value where the other branches hold
        log = p["eta"] * jnp.log(jnp.where(above, rho / p["rhos"], 1.0))
        outer = p["Fe"] * (1 - log) * jnp.exp(log)
        return jnp.where(low < 0, inner, jnp.where(above, outer, middle))

    def energy(params, structure, neighbors):
        square = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
        inside, square = within(square, cutoff)
        pairs = structure.species[:, None], neighbor_species(structure, neighbors)
        chosen = {name: table[pairs] for name, table in tables(params).items()}
        phi, _ = pair(square, chosen)
        rho, *_ = density(square, chosen)
        phi, rho = (jnp.sum(jnp.where(inside, x, 0), axis=-1) for x in (phi, rho))
        return sum_over_atoms(0.5 * phi + embed(params, rho, structure.species), structure)

    radial = Radial(tables, pair, embedding=Embedding(density, embed))
    return potential(species, cutoff, init, energy, radial=radial)


def _decay(r, scale, rate, center):
    """exp(-rate (x - 1)) / (1 + (x - center)^20) with x = r / scale, and its derivative by r."""
    x = r / scale
    y = x - center
    fourth = (y * y) * (y * y)
    nineteenth = (fourth * fourth) * (fourth * fourth) * (y * y * y)
    below = 1 / (1 + nineteenth * y)
    value = jnp.exp(-rate * (x - 1)) * below
    return value, -value * (rate + 20 * nineteenth * below) / scale
