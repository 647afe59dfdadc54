"""The view back: which distances and angles a Chebyshev descriptor encodes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.errors import OptionError


class Distributions(NamedTuple):
    """What a descriptor says of the surroundings, as densities."""

    radial: Float[Array, "*b r"]
    """sum_j fc(r_j) delta(r - r_j), 1/angstrom"""
    angular: Float[Array, "*b t"]
    """sum_j<k fc(r_j) fc(r_k) delta(theta - theta_jk), 1/radian"""
    weighted_radial: Float[Array, "*b r"] | None = None
    """with the species' weights; None for one species"""
    weighted_angular: Float[Array, "*b t"] | None = None


def distributions(
    descriptor: Chebyshev,
    x: Float[Array, "*b f"],
    r: Float[Array, " r"],
    theta: Float[Array, " t"],
    damped: bool = True,
) -> Distributions:
    """The Chebyshev expansion read backwards: densities of distances and of angles.

    A column is a moment, c_n = sum_j fc(r_j) T_n(rho_j), of a density in phi = arccos(rho), whose
    cosine series is (c_0 + 2 sum_n c_n cos(n phi)) / pi; angles likewise, where phi is the angle
    itself. The series ends at the descriptor's order, so peaks are as wide as it resolves.
    Differentiable in x.

    **Arguments:** `x` descriptors, or what a decoder made of a latent code; `r` in angstrom within
    (0, radial cutoff); `theta` in radian within [0, pi]; `damped` by Jackson's factors, which keep
    the densities of a real environment positive (not the weighted ones, whose weights may be
    negative): without them they have the descriptor's very moments, and ripples.
    **Raises:** `OptionError` when x has not the descriptor's columns. **Source:** Artrith, Urban
    and Ceder, Phys. Rev. B 96, 014112 (2017); damping: Weisse et al., Rev. Mod. Phys. 78, 275
    (2006), eq. 71.

    ```python
    r, theta = jnp.linspace(0.1, 5.9, 200), jnp.linspace(0, jnp.pi, 200)
    view = distributions(descriptor, x, r, theta)  # view.radial [n, 200]
    ```
    """
    widths = [descriptor.radial_order + 1, descriptor.angular_order + 1]
    if len(descriptor.species) > 1:
        widths *= 2
    if np.shape(x)[-1] != descriptor.num_features:
        raise OptionError(
            f"x has {np.shape(x)[-1]} columns, and the descriptor {descriptor.num_features}",
            remedy="give descriptors of this descriptor, not standardised",
        )
    parts = jnp.split(jnp.asarray(x), np.cumsum(widths)[:-1], axis=-1)
    rho = 2 * jnp.asarray(r) / descriptor.radial_cutoff - 1
    # d phi = d rho / sqrt(1 - rho^2), d rho = 2 / Rc d r
    per_length = 2 / descriptor.radial_cutoff / jnp.sqrt(1 - rho**2)
    radial = [_cosine_series(c, jnp.arccos(rho), damped) * per_length for c in parts[::2]]
    angular = [_cosine_series(c, jnp.asarray(theta), damped) for c in parts[1::2]]
    if len(descriptor.species) == 1:
        return Distributions(radial[0], angular[0])
    return Distributions(radial[0], angular[0], radial[1], angular[1])


def _cosine_series(
    c: Float[Array, "*b n"], phi: Float[Array, " p"], damped: bool
) -> Float[Array, "*b p"]:
    n = np.arange(c.shape[-1])
    factor = np.where(n == 0, 1.0, 2.0) / np.pi
    if damped:
        q = np.pi / (len(n) + 1)
        rest = len(n) - n + 1
        factor = factor * (rest * np.cos(n * q) + np.sin(n * q) / np.tan(q)) / (len(n) + 1)
    return (c * jnp.asarray(factor, c.dtype)) @ jnp.cos(jnp.asarray(n, c.dtype)[:, None] * phi)
