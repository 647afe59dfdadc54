"""The Stillinger-Weber potential of silicon, image-aware: right in cells of any size."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.neighbors import displacements
from jaxvae_md.potentials.potential import Potential, potential, sum_over_atoms

SILICON = {
    "epsilon": 2.1683,
    "sigma": 2.0951,
    "lambda": 21.0,
    "gamma": 1.20,
    "cos_theta": -1.0 / 3.0,
    "A": 7.049556277,
    "B": 0.6022245584,
}
"""epsilon in eV (cohesive energy 4.336 eV per atom), sigma in angstrom, the rest dimensionless.

Source: Stillinger and Weber, Phys. Rev. B 31, 5262 (1985), tables; epsilon as commonly used with
the potential for the solid.
"""

_REDUCED_CUTOFF = 1.80
_P, _Q = 4, 0
CUTOFF = _REDUCED_CUTOFF * SILICON["sigma"]


def stillinger_weber() -> Potential:
    """Stillinger-Weber silicon; parameters as in `SILICON`.

        E = sum_pairs A eps [B (sig/r)^4 - 1] exp(1 / (r/sig - a))
          + sum_i sum_j<k lam eps (cos theta_jik - cos theta_0)^2
                exp(gam / (r_ij/sig - a)) exp(gam / (r_ik/sig - a))

    with a = 1.80. The neighbor list reaches to a sigma = 3.77 angstrom at the given sigma; it
    stays static when sigma is fitted, so give the list a skin then.

    **Source:** Stillinger and Weber, Phys. Rev. B 31, 5262 (1985), equations 2.3 to 2.5.

    ```python
    silicon = stillinger_weber()
    neighbors = neighbor_list(silicon.cutoff).allocate(structure)
    energy = silicon.energy(silicon.init(jax.random.key(0)), structure, neighbors)
    ```
    """

    def init(key):
        del key
        return {name: jnp.asarray(value, float) for name, value in SILICON.items()}

    def energy(params, structure, neighbors):
        # atoms last: what is computed are rows of all of them
        vector = displacements(structure, neighbors).T
        distance = jnp.sqrt(jnp.sum(vector**2, axis=0))
        direction = vector / distance
        r = distance / params["sigma"]

        two_body = (params["B"] / _bounded(r) ** _P - 1.0) * _tail(r, 1.0)
        pairs = 0.5 * params["A"] * jnp.sum(two_body, axis=0)

        # a square of cosines summed over all pairs of neighbors is one of moments: no pair is met
        decay = _tail(r, params["gamma"])
        first = jnp.sum(decay * direction, axis=1)
        second = jnp.sum(decay * direction[:, None] * direction, axis=2)
        cos_theta = params["cos_theta"]
        angle = (
            jnp.sum(second**2, axis=(0, 1))
            - 2 * cos_theta * jnp.sum(first**2, axis=0)
            + cos_theta**2 * jnp.sum(decay, axis=0) ** 2
        )
        # every unordered pair of neighbors once: all ordered ones less the diagonal, halved
        diagonal = (1 - cos_theta) ** 2 * jnp.sum(decay**2, axis=0)
        triples = 0.5 * params["lambda"] * (angle - diagonal)
        return params["epsilon"] * sum_over_atoms(pairs + triples, structure)

    return potential(("Si",), CUTOFF, init, energy)


def _bounded(r: Float[Array, ...]) -> Float[Array, ...]:
    """r inside the cutoff, and a harmless constant outside."""
    return jnp.where(r < _REDUCED_CUTOFF, r, 1.0)


def _tail(r: Float[Array, ...], strength: float | Array) -> Float[Array, ...]:
    """exp(strength / (r - a)) inside the cutoff, 0 outside; all derivatives vanish at a."""
    inside = r < _REDUCED_CUTOFF
    gap = jnp.where(inside, r - _REDUCED_CUTOFF, -1.0)
    return jnp.where(inside, jnp.exp(strength / gap), 0.0)
