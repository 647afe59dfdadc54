"""Elastic constants, with the relaxation of the atoms within the cell."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Float

from jaxvae_md._typing import Array, Params
from jaxvae_md.neighbors import NeighborList
from jaxvae_md.observables.inputs import check_periodic, check_reach, check_single
from jaxvae_md.potentials import Potential
from jaxvae_md.structure import Structure


def elastic_constants(
    potential: Potential,
    params: Params,
    structure: Structure,
    neighbors: NeighborList,
    clamped: bool = False,
) -> Float[Array, "6 6"]:
    """Elastic constants C = d(stress) / d(strain) in Voigt's order, in eV / angstrom^3.

    Order xx, yy, zz, yz, xz, xy; shear strains are twice the tensor's; divide by
    `units.GIGAPASCAL` for GPa. Differentiable in `params`, positions and cell: at the structure as
    given, so add `simulate.relax` for what follows from the structure's own dependence.

    With the energy E, the forces' derivatives H = d2E / du2 and L = d2E / du d(strain), where u are
    displacements beside the homogeneous strain,

        C = (d2E / d(strain)2 - L^T H^+ L) / V

    for a structure without stress. H^+ leaves out the three translations. The first term alone is
    that of clamped ions. The atoms must be at rest: relax them before, to 1e-4 eV / angstrom or
    better. Stress may remain: the result is then the derivative of the Cauchy stress by a
    symmetric strain, C_ijkl + (s_ik d_jl + s_il d_jk + s_jk d_il + s_jl d_ik) / 2 - s_ij d_kl in
    terms of the second derivatives C_ijkl by the Lagrangian strain and the stress s (tension
    positive), which is what bulk modulus and sound measure; under shear stress it is not symmetric.

    **Arguments:** `clamped` keeps the atoms where the strain puts them. **Returns:** not a number
    when the atoms are not at a minimum (H is not positive definite). Memory and time grow with the
    square of the number of atoms: use a primitive cell. **Raises:** `GeometryError` for a cell that
    is not periodic, `OptionError` for a list without all pairs, where that is known; `InputError`.
    **Source:** Born and Huang, Dynamical Theory of Crystal Lattices, section 28; Lutsko, J. Appl.
    Phys. 65, 2991 (1989); under stress: Wallace, Phys. Rev. 162, 776 (1967).

    ```python
    c = elastic_constants(potential, params, structure, neighbors) / units.GIGAPASCAL
    c[0, 0], c[0, 1], c[3, 3]  # C11, C12, C44 of a cubic crystal
    ```
    """
    check_single(structure)
    check_periodic(structure)
    check_reach(structure, neighbors, potential.cutoff)
    structure = jax.tree.map(jnp.asarray, structure)
    return _constants(potential.energy, params, structure, neighbors, clamped)


@partial(jax.jit, static_argnames=("energy_fn", "clamped"))
def _constants(energy_fn, params, structure, neighbors, clamped: bool) -> Float[Array, "6 6"]:
    position, mask = structure.position, structure.mask[:, None]
    dtype = position.dtype

    def strained(at, strain):
        deformation = jnp.eye(3, dtype=dtype) + _tensor(strain)
        return at._replace(position=at.position @ deformation, cell=at.cell @ deformation)

    def response(strain, move):
        """Stress, and gradient by positions, after a strain and displacements beside it."""
        at = strained(structure, strain)
        at = at._replace(position=at.position + move)

        # by one backward pass: two would double what is compiled
        def energy(further, position):
            further = strained(at._replace(position=position), further)
            return energy_fn(params, further, neighbors)

        virial, gradient = jax.grad(energy, (0, 1))(jnp.zeros(6, dtype), at.position)
        return virial / jnp.abs(jnp.linalg.det(at.cell)), jnp.where(mask, gradient, 0)

    def along(direction):
        strain, move = direction[:6], direction[6:].reshape(position.shape)
        return jax.jvp(response, (jnp.zeros(6, dtype), jnp.zeros_like(position)), (strain, move))[1]

    num = 6 if clamped else 6 + position.size
    batch = min(num, 32)
    # whole batches: a rest would be compiled for itself
    directions = jnp.eye(batch * -(-num // batch), 6 + position.size, dtype=dtype)
    by_stress, by_gradient = lax.map(along, directions, batch_size=batch)
    born = by_stress[:6].T
    if clamped:
        return born
    by_gradient = by_gradient.reshape(len(directions), -1)
    coupling, hessian = by_gradient[:6].T, by_gradient[6:num]
    hessian = 0.5 * (hessian + hessian.T)
    # translations, and every move of padding, get a stiffness of their own: forces have no part
    # along them, so that the rest of the inverse is the pseudo-inverse
    volume = jnp.abs(jnp.linalg.det(structure.cell))
    scale = lax.stop_gradient(jnp.mean(jnp.abs(jnp.diag(born))) * jnp.cbrt(volume))
    real = jnp.where(mask, 1, 0).astype(dtype)
    translation = (real[:, :, None] * jnp.eye(3, dtype=dtype)).reshape(-1, 3)
    padding = jnp.broadcast_to(1 - real, position.shape).reshape(-1)
    hessian += scale * translation @ translation.T / jnp.sum(real) + scale * jnp.diag(padding)
    relaxation = cho_solve(cho_factor(hessian), coupling)
    return born - coupling.T @ relaxation / volume


def _tensor(strain: Float[Array, 6]) -> Float[Array, "3 3"]:
    xx, yy, zz, yz, xz, xy = strain
    return jnp.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
