"""The Lennard-Jones potential with learnable sigma and epsilon per species pair."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.cutoffs import switch, within
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import FAR, displacements, neighbor_species
from jaxvae_md.potentials.potential import Potential, Radial, potential, sum_over_atoms
from jaxvae_md.structure import Structure, checked_species

Scheme = Literal["cut", "shift", "force_shift", "switch"]


def pair_energy(
    r: Float[Array, ...],
    sigma: Float[Array, ...],
    epsilon: Float[Array, ...],
    cutoff: float,
    scheme: Scheme = "force_shift",
    onset: float | None = None,
) -> Float[Array, ...]:
    """Energy phi(r) of a pair (eV); zero from the cutoff on.

    | scheme | within the cutoff |
    |---|---|
    | cut | u(r) = 4 epsilon ((sigma / r)^12 - (sigma / r)^6) |
    | shift | u(r) - u(rc) |
    | force_shift | u(r) - u(rc) - (r - rc) u'(rc): energy and force are continuous |
    | switch | u(r) S(r), S of `cutoffs.switch`: u itself up to the onset, then continuous with two derivatives |

    **Arguments:** r, sigma, cutoff and onset in angstrom, epsilon in eV; the onset is 0.8 of the
    cutoff where none is given. **Source:** Jones, Proc. R. Soc. Lond. A 106, 463 (1924); Allen and
    Tildesley, Computer Simulation of Liquids, section 5.2.

    ```python
    pair_energy(2 ** (1 / 6) * 3.405, 3.405, 0.0103, cutoff=8.5, scheme="cut")  # -0.0103
    ```
    """  # noqa: E501
    tables = _coefficients(sigma, epsilon, cutoff, scheme)
    inside, square = within(jnp.asarray(r) ** 2, cutoff)
    return jnp.where(inside, _pair(square, tables, cutoff, scheme, onset or 0.8 * cutoff)[0], 0)


def _coefficients(sigma, epsilon, cutoff: float, scheme: Scheme) -> dict[str, Array]:
    """u = repulsion / r^12 - attraction / r^6, and what the scheme adds."""
    attraction = 4 * epsilon * sigma**6
    repulsion = attraction * sigma**6
    tables = {"repulsion": repulsion, "attraction": attraction}
    if scheme in ("shift", "force_shift"):
        tables["energy_at_cutoff"] = (repulsion / cutoff**6 - attraction) / cutoff**6
    if scheme == "force_shift":
        tables["slope_at_cutoff"] = (6 * attraction - 12 * repulsion / cutoff**6) / cutoff**7
    return tables


def _pair(square, tables: dict[str, Array], cutoff: float, scheme: Scheme, onset: float):
    """Energy and -phi'(r) / r from the squared distance, within the cutoff."""
    inverse, inverse_root = _inverses(square)
    sixth = inverse * inverse * inverse
    repulsion, attraction = tables["repulsion"] * sixth, tables["attraction"]
    energy = (repulsion - attraction) * sixth
    weight = (12 * repulsion - 6 * attraction) * sixth * inverse
    if scheme in ("shift", "force_shift"):
        energy = energy - tables["energy_at_cutoff"]
    if scheme == "force_shift":
        energy = energy - (square * inverse_root - cutoff) * tables["slope_at_cutoff"]
        weight = weight + tables["slope_at_cutoff"] * inverse_root
    if scheme == "switch":
        factor, slope = switch(square, onset, cutoff)
        weight = weight * factor - 2 * energy * slope
        energy = energy * factor
    return energy, weight


@jax.custom_jvp
def _inverses(square):
    """1 / r^2 and 1 / r; with derivatives that do not divide again, as JAX's own would."""
    inverse = 1 / square
    return inverse, jnp.sqrt(inverse)


@_inverses.defjvp
def _(primals, tangents):
    inverse, inverse_root = _inverses(*primals)
    change = -inverse * tangents[0]
    return (inverse, inverse_root), (inverse * change, 0.5 * inverse_root * change)


def tail_correction(
    params: Params, structure: Structure, cutoff: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What the pairs beyond the cutoff of a fluid without structure add to energy and pressure.

        E = sum_ab N_a N_b / V   8 pi / 3 eps sig^3 ((sig / rc)^9 / 3 - (sig / rc)^3)
        p = sum_ab N_a N_b / V^2 16 pi / 3 eps sig^3 (2 (sig / rc)^9 / 3 - (sig / rc)^3)

    over ordered pairs of species. Zero where a direction is not periodic: nothing is out there.

    **Returns:** eV of the whole cell, and eV / angstrom^3. **Source:** Allen and Tildesley,
    Computer Simulation of Liquids, section 2.8.

    ```python
    energy, pressure = tail_correction(params, structure, cutoff=8.5)
    ```
    """
    sigma, epsilon = _symmetric(params["sigma"]), _symmetric(params["epsilon"])
    species = jnp.arange(len(sigma))[:, None]
    count = jnp.sum((structure.species == species) & structure.mask, axis=1).astype(sigma.dtype)
    pairs = jnp.all(structure.pbc) * count[:, None] * count * epsilon * sigma**3
    ninth, third = (sigma / cutoff) ** 9, (sigma / cutoff) ** 3
    volume = jnp.abs(jnp.linalg.det(structure.cell))
    energy = 8 * pi / 3 * jnp.sum(pairs * (ninth / 3 - third)) / volume
    return energy, 16 * pi / 3 * jnp.sum(pairs * (2 * ninth / 3 - third)) / volume**2


def lennard_jones(
    species: Sequence[str],
    cutoff: float,
    sigma: float | Float[Array, " s"] | Float[Array, "s s"] = 1.0,
    epsilon: float | Float[Array, " s"] | Float[Array, "s s"] = 1.0,
    scheme: Scheme = "force_shift",
    onset: float | None = None,
    tail: bool = False,
) -> Potential:
    """Lennard-Jones with parameters {"sigma": [s, s] angstrom, "epsilon": [s, s] eV}.

    The parameter tables are read symmetrically, (p_ab + p_ba) / 2. The cutoff is static and does
    not move with sigma. Gradients with respect to positions, cell, sigma and epsilon are finite
    in every order, padded slots included.

    With `tail` the energy has `tail_correction`, and so have stress and pressure: the derivative
    of that energy by the volume is defined as minus the correction of the pressure, which is the
    one of the whole potential, and not of one that ends at the cutoff.

    **Arguments:** cutoff in angstrom; `sigma` and `epsilon` are the values that `init` returns:
    a table, one number for all pairs, or one a species, which are mixed by the rules of Lorentz
    (sigma_ab the arithmetic mean) and Berthelot (epsilon_ab the geometric one); `scheme` and
    `onset` as in `pair_energy`; `tail` for the scheme "cut" only. **Raises:** `OptionError`.

    ```python
    argon = lennard_jones(("Ar",), cutoff=8.5, sigma=3.405, epsilon=0.01032)
    params = argon.init(jax.random.key(0))
    energy = argon.energy(params, structure, neighbors)
    ```
    """
    species = checked_species(species)
    if not 0 < cutoff < FAR / 2:
        raise OptionError(f"cutoff is {cutoff}", remedy="give a positive length in angstrom")
    if scheme not in get_args(Scheme):
        raise OptionError(f"scheme is {scheme!r}", remedy="cut, shift, force_shift or switch")
    if onset is not None and (scheme != "switch" or not 0 < onset < cutoff):
        raise OptionError(
            f"onset is {onset} with scheme {scheme!r} and cutoff {cutoff}",
            remedy='give a length below the cutoff, and scheme "switch"',
        )
    if tail and scheme != "cut":
        raise OptionError(
            f"tail is given with scheme {scheme!r}",
            remedy='give scheme "cut": the correction is for a potential that only ends',
        )
    start = {
        "sigma": _table("sigma", sigma, len(species), lambda a, b: (a + b) / 2),
        "epsilon": _table("epsilon", epsilon, len(species), lambda a, b: np.sqrt(a * b)),
    }
    onset = 0.8 * cutoff if onset is None else onset

    def init(key):
        del key
        return {name: jnp.asarray(table, float) for name, table in start.items()}

    def tables(params):
        sigma, epsilon = _symmetric(params["sigma"]), _symmetric(params["epsilon"])
        return _coefficients(sigma, epsilon, cutoff, scheme)

    def pair(square, coefficients):
        return _pair(square, coefficients, cutoff, scheme, onset)

    def long_range(params, structure):
        now = structure._replace(cell=lax.stop_gradient(structure.cell))
        # p V has the derivative -p by the volume, p being proportional to V^-2
        work = lambda s: tail_correction(params, s, cutoff)[1] * jnp.abs(jnp.linalg.det(s.cell))
        return tail_correction(params, now, cutoff)[0] + work(structure) - work(now)

    def energy(params, structure, neighbors):
        square = jnp.sum(displacements(structure, neighbors) ** 2, axis=-1)
        inside, square = within(square, cutoff)
        species = (structure.species[:, None], neighbor_species(structure, neighbors))
        phi, _ = pair(square, {name: table[species] for name, table in tables(params).items()})
        phi = jnp.sum(jnp.where(inside, phi, 0), axis=-1)
        total = sum_over_atoms(0.5 * phi, structure)
        return total + long_range(params, structure) if tail else total

    def project(params):
        return {
            "sigma": jnp.clip(params["sigma"], 0.1, cutoff),
            "epsilon": jnp.maximum(params["epsilon"], 1e-5),
        }

    radial = Radial(tables, pair, long_range if tail else None)
    return potential(species, float(cutoff), init, energy, project=project, radial=radial)


def _symmetric(table) -> Array:
    table = jnp.asarray(table)
    return 0.5 * (table + table.T)


def _table(name: str, values, num: int, mixed) -> np.ndarray:
    """The values for every pair of species."""
    values = np.asarray(values, float)
    if values.shape == (num,) and num > 1:
        return mixed(values[:, None], values)
    if values.shape not in ((), (1,), (num, num)):
        raise OptionError(
            f"{name} has shape {values.shape}", remedy=f"a number, {(num,)} or {(num, num)}"
        )
    return np.broadcast_to(values, (num, num))
