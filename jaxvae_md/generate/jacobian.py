"""The derivatives of all columns of Chebyshev descriptors in one sweep.

With the notation of `descriptors.environment`, every angular column is a combination of the power
spectra sum_m A_lm^2, and each of these has its derivative from the harmonics themselves,
Y_lm = p_m Q_ml(z) with Q_ml = sum_a q_mla T_a(z):

    G_l(u)  = sum_m A_lm Y_lm(u)                    1/2 sum_m A_lm^2 by f_j is G_l(u_j)
    d c_n / d f_j = sum_l b_ln G_l(u_j) - f_j       d c_n / d u_j = f_j sum_l b_ln grad G_l(u_j)
    d G_l / d x   = sum_m m (Re p_(m-1) Re A_lm + Im p_(m-1) Im A_lm) Q_ml
    d G_l / d y   = sum_m m (Re p_(m-1) Im A_lm - Im p_(m-1) Re A_lm) Q_ml
    d G_l / d z   = sum_m (Re p_m Re A_lm + Im p_m Im A_lm) Q_ml'

so that the sums over m are made once for all columns, where a pull-back of each column would make
them f times.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from jaxvae_md._typing import Array
from jaxvae_md.descriptors import environment
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.environment import Basis
from jaxvae_md.neighbors import FAR, NeighborList, displacements
from jaxvae_md.structure import Structure

_CHUNK = 16
"""environments at a time: what they need stays in the cache of a core"""


def jacobian(
    descriptor: Chebyshev, structure: Structure, neighbors: NeighborList
) -> tuple[Float[Array, "n f"], Float[Array, "n f 3 n"]]:
    """Descriptors, and their derivatives (1/angstrom) by the position of every atom.

    Images of an atom move with it, and a translation of all changes nothing: the sum over the
    atoms vanishes. The list must be complete. Seven times faster than `Chebyshev.linearise`.

    ```python
    x, j = jax.jit(jacobian, static_argnums=0)(descriptor, structure, neighbors)
    x + jnp.einsum("ifdj,jd->if", j, move)  # descriptors after a small move
    ```
    """
    vector = displacements(structure, neighbors)
    num, capacity, _ = vector.shape
    weight = descriptor._weight(structure, neighbors)
    # of whole chunks; what is added sees no neighbor
    extra = -num % min(_CHUNK, num)
    far = jnp.zeros((extra, capacity, 3), vector.dtype).at[..., 0].set(FAR)
    vector = jnp.concatenate([vector, far])
    weight = jnp.concatenate([weight, jnp.zeros((extra, capacity), weight.dtype)])
    cut = lambda array: array.reshape(-1, min(_CHUNK, num), *array.shape[1:])
    weighted = len(descriptor.species) > 1

    def of_chunk(chunk):
        vector, weight = chunk
        vector = jnp.moveaxis(vector, -1, 0)
        return derivatives(descriptor._basis, vector, weight if weighted else None)

    x, slope = lax.map(of_chunk, (cut(vector), cut(weight)))
    x = x.reshape(num + extra, -1)[:num]
    slope = slope.reshape(num + extra, -1, capacity)[:num]
    # a product with ones and zeros, which is faster than to scatter
    belongs = jax.nn.one_hot(neighbors.index, num, dtype=x.dtype)
    by_atom = (slope @ belongs).reshape(num, -1, 3, num)
    own = (
        jnp.sum(slope, axis=-1).reshape(num, -1, 3, 1) * jnp.eye(num, dtype=x.dtype)[:, None, None]
    )
    return x, by_atom - own


def derivatives(
    basis: Basis, vector: Float[Array, "3 e k"], weight: Float[Array, "e k"] | None
) -> tuple[Float[Array, "e f"], Float[Array, "e f 3 k"]]:
    """Columns of environments, and their derivatives (1/angstrom) by the vectors to neighbors.

    Arguments, order of columns and errors are those of `environment.columns`.

    ```python
    x, slope = derivatives(Basis(6.0, 12, 6.0, 12), jnp.ones((3, 1, 4)), None)  # [1, 26, 3, 4]
    ```
    """
    x, terms, harmonics = environment._evaluate(basis, vector, weight)
    tables = (_associated(basis.angular_order), environment._slopes(basis.radial_order))
    associated, slope_rho = (jnp.asarray(table, vector.dtype) for table in tables)
    to_angular = jnp.asarray(environment._tables(basis.angular_order)[1], vector.dtype)
    unit = jnp.stack([terms.x, terms.y, terms.z])
    fr, fr_slope = terms.radial_cutoff
    fa, fa_slope = terms.angular_cutoff
    radial_slope = jnp.einsum("ab,ebk->eak", slope_rho * (2 / basis.radial_cutoff), terms.radial)
    radial_slope = radial_slope * fr[:, None] + terms.radial * fr_slope[:, None]
    q = environment._stage(jnp.einsum("cpa,eak->cepk", associated, terms.polar))
    out = []
    for w, a in zip(environment._channels(weight), harmonics, strict=True):
        f = w * fa
        radial = radial_slope if weight is None else radial_slope * (w + jnp.zeros_like(f))[:, None]
        out.append(radial[:, :, None] * unit.swapaxes(0, 1)[:, None])
        g = jnp.einsum("ln,ledk->denk", to_angular, _harmonic_fields(a, q, terms.planar))
        along = jnp.einsum("denk,dek->enk", g[1:], unit)
        by_r = (w * fa_slope)[:, None] * (g[0] - f[:, None])
        by_u = (g[1:] - along * unit[:, :, None]) * (f / terms.r)[:, None]
        out.append(jnp.moveaxis(by_r * unit[:, :, None] + by_u, 0, 2))
    return x, jnp.concatenate(out, axis=1)


def _harmonic_fields(
    a: Float[Array, "2 e l m"], q: Float[Array, "2 e p k"], planar: Float[Array, "2 e m k"]
) -> Float[Array, "l e 4 k"]:
    """G_l, and its derivatives by x, y and z, at every neighbor."""
    (p_re, p_im), out, first = planar, [], 0
    for l in range(a.shape[2]):  # noqa: E741
        rows = slice(first, first + l + 1)
        first += l + 1
        a_re, a_im = a[:, :, l, : l + 1, None]
        q_l, q_slope = q[:, :, rows]
        field = a_re * p_re[:, : l + 1] + a_im * p_im[:, : l + 1]
        m = jnp.arange(1, l + 1, dtype=a.dtype)[:, None]
        m_re, m_im, q_m = m * a_re[:, 1:], m * a_im[:, 1:], q_l[:, 1:]
        b_re, b_im = p_re[:, :l], p_im[:, :l]
        fields = (
            jnp.sum(field * q_l, axis=1),
            jnp.sum((b_re * m_re + b_im * m_im) * q_m, axis=1),
            jnp.sum((b_re * m_im - b_im * m_re) * q_m, axis=1),
            jnp.sum(field * q_slope, axis=1),
        )
        out.append(environment._stage(jnp.stack(fields, axis=1)))
    return jnp.stack(out)


@lru_cache
def _associated(order: int) -> np.ndarray:
    """`[2, p, a]`: Q_ml and Q_ml' from T_a; p counts the m <= l of l = 0, then those of 1, ..."""
    q = environment._tables(order)[0]
    rows = np.concatenate([q[: degree + 1, degree] for degree in range(order + 1)])
    return np.stack([rows, rows @ environment._slopes(order)])
