"""The sums over neighbors of which Chebyshev descriptors are made, and their derivatives.

For an environment with neighbors j at r_j in direction u_j = (x_j, y_j, z_j), with weights w_j:

    radial    c_n = sum_j   w_j fr(r_j) T_n(rho_j)                  rho = 2 r / Rr - 1
    angular   c_n = sum_j<k w_j w_k fa(r_j) fa(r_k) T_n(u_j . u_k)

The angular sum over pairs is linear in the number of neighbors (Racah-normalised real harmonics
Y_lm, addition theorem P_l(u . v) = sum_m Y_lm(u) Y_lm(v)). With T_n = sum_l b_ln P_l and f = w fa:

    M_am  = sum_j f_j T_a(z_j) p_m(j)              p_m = Re and Im of (x + i y)^m
    A_lm  = sum_a q_mla M_am                       Y_lm = p_m sum_a q_mla T_a(z)
    c_n   = 1/2 [sum_l b_ln sum_m A_lm^2 - sum_j f_j^2]                     (T_n(1) = 1)

Where m is summed over, Re and Im are too; q_mla holds the sqrt(2) of m > 0. rho is clipped at 1,
beyond which fr vanishes. The q_mla grow with the order, and the sums cancel: `chebyshev` says what
that costs.

Reverse rule, for a cotangent g_n of the columns, with tildes (`_bar`) for cotangents of the rest;
x~, y~, z~ and r~ add up over the unweighted and the weighted columns:

    A~_lm = A_lm sum_n b_ln g_n                    M~_am = sum_l q_mla A~_lm
    B_m   = sum_a M~_am T_a(z)                     C_m   = sum_a M~_am T_a'(z)
    f~    = sum_m p_m B_m - f sum_n g_n
    z~    = f sum_m p_m C_m                        d p_m = m p_(m-1) (dx + i dy):
    x~    = f sum_m m (Re p_(m-1) Re B_m + Im p_(m-1) Im B_m)
    y~    = f sum_m m (Re p_(m-1) Im B_m - Im p_(m-1) Re B_m)
    r~    = w [fr' sum_n g_n T_n(rho) + fr 2 / Rr sum_n g_n T_n'(rho)] + w fa' f~
    w~    = fr sum_n g_n T_n(rho) + fa f~
    vector~ = u r~ + [u~ - (u . u~) u] / r

Only the vectors are kept for it; the rest is computed again, which is faster than to store it.
Arrays have the neighbors last and the Cartesian axis first, as vector units like it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import factorial, sqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float
from numpy.polynomial import chebyshev as chebyshev_series
from numpy.polynomial import legendre as legendre_series

from jaxvae_md import cutoffs
from jaxvae_md._typing import Array


class Basis(NamedTuple):
    """Cutoffs (angstrom) and highest orders of the two parts."""

    radial_cutoff: float
    radial_order: int
    angular_cutoff: float
    angular_order: int


def columns(
    basis: Basis, vector: Float[Array, "3 e k"], weight: Float[Array, "e k"] | None
) -> Float[Array, "e f"]:
    """Radial and angular columns of each environment, and with `weight` both again, weighted.

    **Arguments:** `vector` to each neighbor in angstrom; those beyond the cutoffs contribute
    nothing, and none may be zero.

    ```python
    columns(Basis(6.0, 12, 6.0, 12), jnp.ones((3, 1, 4)), None)  # [1, 26]
    ```
    """
    return _evaluate(basis, vector, weight)[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def columns_with_rule(
    basis: Basis, vector: Float[Array, "3 e k"], weight: Float[Array, "e k"] | None
) -> Float[Array, "e f"]:
    """`columns` with the reverse rule above: faster to differentiate, but not in forward mode.

    ```python
    jax.grad(lambda v: columns_with_rule(basis, v, None).sum())(vector)
    ```
    """
    return columns(basis, vector, weight)


def _keep(basis, vector, weight):
    return columns(basis, vector, weight), (vector, weight)


class _Terms(NamedTuple):
    """What columns and reverse rule have in common, for each neighbor."""

    r: Float[Array, "e k"]
    x: Float[Array, "e k"]
    y: Float[Array, "e k"]
    z: Float[Array, "e k"]
    radial_cutoff: tuple[Float[Array, "e k"], Float[Array, "e k"]]
    """fr and fr'"""
    radial: Float[Array, "e n k"]
    """T_n(rho)"""
    angular_cutoff: tuple[Float[Array, "e k"], Float[Array, "e k"]]
    """fa and fa'"""
    polar: Float[Array, "e a k"]
    """T_a(z)"""
    planar: Float[Array, "2 e m k"]
    """p_m"""


def _terms(basis: Basis, vector: Float[Array, "3 e k"]) -> _Terms:
    x, y, z = vector
    r = jnp.sqrt(x**2 + y**2 + z**2)
    r, x, y, z = _stage((r, x / r, y / r, z / r))
    rho = jnp.minimum(2 * r / basis.radial_cutoff - 1, 1)
    return _Terms(
        r,
        x,
        y,
        z,
        _stage(cutoffs.cosine_and_slope(r, basis.radial_cutoff)),
        _chebyshev_polynomials(rho, basis.radial_order),
        _stage(cutoffs.cosine_and_slope(r, basis.angular_cutoff)),
        _chebyshev_polynomials(z, basis.angular_order),
        _powers(x, y, basis.angular_order),
    )


def _evaluate(basis: Basis, vector, weight) -> tuple[Array, _Terms, list[Array]]:
    """The columns, the terms, and A_lm of every channel."""
    terms = _terms(basis, vector)
    to_harmonics, to_angular = (jnp.asarray(t, vector.dtype) for t in _tables(basis.angular_order))
    out, harmonics = [], []
    for w in _channels(weight):
        f = w * terms.angular_cutoff[0]
        moments = jnp.einsum("eak,cemk->ceam", terms.polar, _stage(terms.planar * f[:, None]))
        harmonics.append(jnp.einsum("mla,ceam->celm", to_harmonics, moments))
        power = jnp.sum(harmonics[-1] ** 2, axis=(0, -1))
        self_terms = jnp.sum(f**2, axis=-1, keepdims=True)
        out += [
            jnp.einsum("enk,ek->en", terms.radial, w * terms.radial_cutoff[0]),
            0.5 * (power @ to_angular - self_terms),
        ]
    return jnp.concatenate(out, axis=-1), terms, harmonics


def _pull_back(basis: Basis, kept, cotangent: Float[Array, "e f"]):
    vector, weight = kept
    _, terms, harmonics = _evaluate(basis, vector, weight)
    return _pull(basis, vector, weight, terms, harmonics, cotangent)


def _pull(
    basis: Basis,
    vector: Float[Array, "3 e k"],
    weight: Float[Array, "e k"] | None,
    terms: _Terms,
    harmonics: list[Array],
    cotangent: Float[Array, "e f"],
):
    """The reverse rule."""
    to_harmonics, to_angular = (jnp.asarray(t, vector.dtype) for t in _tables(basis.angular_order))
    slope_rho = jnp.asarray(_slopes(basis.radial_order), vector.dtype) * 2 / basis.radial_cutoff
    slope_z = jnp.asarray(_slopes(basis.angular_order), vector.dtype)
    r, x, y, z, (fr, fr_slope), radial, (fa, fa_slope), polar, planar = terms
    order = jnp.arange(1, basis.angular_order + 1, dtype=vector.dtype)[:, None]
    parts = jnp.split(cotangent, np.cumsum(_widths(basis, weight))[:-1], axis=-1)

    r_bar = x_bar = y_bar = z_bar = jnp.zeros_like(r)
    weight_bar = jnp.zeros_like(r)
    for w, g_radial, g_angular, a in zip(
        _channels(weight), parts[::2], parts[1::2], harmonics, strict=True
    ):
        value = jnp.einsum("en,enk->ek", g_radial, radial)
        slope = jnp.einsum("en,enk->ek", g_radial @ slope_rho, radial)

        a_bar = a * (g_angular @ to_angular.T)[:, :, None]
        m_bar = jnp.einsum("mla,celm->ceam", to_harmonics, a_bar)
        b = jnp.einsum("ceam,eak->cemk", m_bar, polar)
        c = jnp.einsum("ceam,ab,ebk->cemk", m_bar, slope_z, polar)

        f = w * fa
        f_bar = jnp.sum(planar * b, axis=(0, 2)) - f * jnp.sum(g_angular, axis=-1, keepdims=True)
        (p_re, p_im), (b_re, b_im) = planar[:, :, :-1], order * b[:, :, 1:]
        x_bar += f * jnp.sum(p_re * b_re + p_im * b_im, axis=1)
        y_bar += f * jnp.sum(p_re * b_im - p_im * b_re, axis=1)
        z_bar += f * jnp.sum(planar * c, axis=(0, 2))
        r_bar += w * (fr_slope * value + fr * slope + fa_slope * f_bar)
        # of the last channel, which is the weighted one
        weight_bar = fr * value + fa * f_bar

    along = x * x_bar + y * y_bar + z * z_bar
    vector_bar = jnp.stack(
        [u * r_bar + (u_bar - along * u) / r for u, u_bar in ((x, x_bar), (y, y_bar), (z, z_bar))]
    )
    # of the inputs' types, which need not be the same
    vector_bar = vector_bar.astype(vector.dtype)
    return vector_bar, None if weight is None else weight_bar.astype(weight.dtype)


columns_with_rule.defvjp(_keep, _pull_back)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def sum_with_rule(
    fn: Callable[[Any, Float[Array, "e f"], Any], Float[Array, " e"]],
    basis: Basis,
    args: Any,
    vector: Float[Array, "3 e k"],
    weight: Float[Array, "e k"] | None,
    extra: Any,
) -> Float[Array, ""]:
    """Sum over environments of `fn(args, columns, extra)`.

    Its derivative by the vectors is made beside the value, while what both need is in the cache:
    energies and forces of a potential by one evaluation of the columns.

    ```python
    total = sum_with_rule(lambda a, x, _: x @ a, basis, jnp.ones(26), vector, None, None)
    ```
    """
    return jnp.sum(fn(args, columns(basis, vector, weight), extra))


def _sum_and_slope(fn, basis, args, vector, weight, extra):
    out, terms, harmonics = _evaluate(basis, vector, weight)
    of_columns = lambda out: jnp.sum(fn(args, out, extra))
    total, cotangent = jax.value_and_grad(of_columns)(out)
    slopes = _pull(basis, vector, weight, terms, harmonics, cotangent)
    return total, (args, out, extra, slopes)


def _pull_back_sum(fn, basis, kept, cotangent):
    args, out, extra, slopes = kept
    # where only forces are asked for, the compiler leaves this out
    (args_bar,) = jax.vjp(lambda args: jnp.sum(fn(args, out, extra)), args)[1](cotangent)
    times = lambda slope: None if slope is None else (cotangent * slope).astype(slope.dtype)
    vector_bar, weight_bar = map(times, slopes)
    return args_bar, vector_bar, weight_bar, None


sum_with_rule.defvjp(_sum_and_slope, _pull_back_sum)


def _channels(weight: Array | None) -> tuple[Array | float, ...]:
    return (1.0,) if weight is None else (1.0, weight)


def _widths(basis: Basis, weight: Array | None) -> list[int]:
    """Number of columns of each part."""
    return [basis.radial_order + 1, basis.angular_order + 1] * len(_channels(weight))


def _stage(values):
    """Keeps XLA from computing what comes before again for every consumer."""
    return lax.optimization_barrier(values)


def _chebyshev_polynomials(x: Float[Array, "e k"], order: int) -> Float[Array, "e n k"]:
    """T_0 .. T_order by T_(m+h) = 2 T_m T_h - T_(m-h): each stage doubles their number."""
    t = jnp.stack([jnp.ones_like(x), x], axis=1)
    while t.shape[1] <= order:
        t = _stage(t)
        m = t.shape[1] - 1
        h = min(m, order - m)
        further = 2 * t[:, m : m + 1] * t[:, 1 : h + 1] - t[:, m - h : m][:, ::-1]
        t = jnp.concatenate([t, further], axis=1)
    return _stage(t[:, : order + 1])


def _powers(x: Float[Array, "e k"], y: Float[Array, "e k"], order: int) -> Float[Array, "2 e m k"]:
    """Re and Im of (x + i y)^m for m = 0 .. order; each stage doubles their number."""
    re, im = jnp.stack([jnp.ones_like(x), x], axis=1), jnp.stack([jnp.zeros_like(y), y], axis=1)
    while re.shape[1] <= order:
        re, im = _stage((re, im))
        m = re.shape[1] - 1
        h = min(m, order - m)
        (a, b), (c, d) = (re[:, m:], im[:, m:]), (re[:, 1 : h + 1], im[:, 1 : h + 1])
        re = jnp.concatenate([re, a * c - b * d], axis=1)
        im = jnp.concatenate([im, a * d + b * c], axis=1)
    return _stage(jnp.stack([re[:, : order + 1], im[:, : order + 1]]))


@lru_cache
def _slopes(order: int) -> np.ndarray:
    """d_na of T_n' = sum_a d_na T_a."""
    out = np.zeros((order + 1, order + 1))
    for n in range(1, order + 1):
        out[n, :n] = chebyshev_series.chebder(np.eye(n + 1)[n])
    return out


@lru_cache
def _tables(order: int) -> tuple[np.ndarray, np.ndarray]:
    """`to_harmonics[m, l, a]`: q_mla; `to_angular[l, n]`: b_ln."""
    size = order + 1
    to_harmonics = np.zeros((size, size, size))
    # coefficients of T_a by Gauss-Chebyshev quadrature, exact up to the order
    node = chebyshev_series.chebpts1(size)
    project = chebyshev_series.chebvander(node, order).T * 2 / size
    project[0] /= 2
    for m in range(size):
        for l in range(m, size):  # noqa: E741
            # Y_lm over p_m is proportional to the m-th derivative of P_l
            derivative = legendre_series.legder(np.eye(l + 1)[l], m)
            norm = sqrt((2 if m else 1) * factorial(l - m) / factorial(l + m))
            to_harmonics[m, l] = norm * project @ legendre_series.legval(node, derivative)
    # b_ln = (2 l + 1) / 2 integral T_n P_l, exact by Gauss-Legendre quadrature
    node, quadrature = legendre_series.leggauss(size + 1)
    t = chebyshev_series.chebvander(node, order)
    p = legendre_series.legvander(node, order)
    to_angular = np.einsum("g,gn,gl->ln", quadrature, t, p) * (np.arange(size)[:, None] + 0.5)
    return to_harmonics, to_angular
