"""Minimisers with derivatives by the implicit function theorem.

At a minimum x*(a) of f(x, a) the gradient vanishes, so dx*/da = -(d2f/dx2)^-1 d2f/dx da, whatever
path led there. The linear system is solved by conjugate gradients on Hessian-vector products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float, Int

from jaxvae_md import errors
from jaxvae_md._typing import Array


class Minimum(NamedTuple):
    """Where a minimisation ended."""

    x: Float[Array, ...]
    gradient_norm: Float[Array, ""]
    """largest absolute component of the gradient"""
    num_steps: Int[Array, ""]
    error: Int[Array, ""]
    """error bits: NOT_FINITE, NOT_CONVERGED, ILL_CONDITIONED"""


def minimize(
    objective: Callable[[Array, Any], Float[Array, ""]],
    start: Float[Array, ...],
    args: Any,
    *,
    tolerance: float = 1e-8,
    max_steps: int = 2000,
    damping: float = 0.0,
    max_condition: float = 1e8,
) -> Minimum:
    """Minimises `objective(x, args)` by L-BFGS; `x` is differentiable with respect to `args`.

    The minimum does not depend on `start` as long as it stays in the same basin, so `start`
    carries no gradient. Use float64: in float32 the gradient cannot be made small enough.

    **Arguments:** `tolerance` of the largest component of the gradient; `damping` is added to
    the Hessian in the derivative's linear system: a bias that keeps flat directions finite.
    ILL_CONDITIONED is set when the (damped) Hessian is not positive definite, or its condition
    number is beyond `max_condition`; both from Lanczos's estimates of the extreme eigenvalues.
    A derivative whose linear system could not be solved is not a number.

    **Source:** Liu and Nocedal, Math. Program. 45, 503 (1989); implicit derivative as in
    Blondel et al., arXiv:2105.15183 (2021).

    ```python
    minimum = minimize(lambda x, a: jnp.sum((x**2 - a) ** 2), jnp.ones(3), jnp.full(3, 2.0))
    minimum.x  # sqrt(2)
    ```
    """
    # values that the objective closes over become arguments, so that they are differentiated too
    converted: Any = jax.closure_convert(objective, start, args)
    pure, closed_over = converted
    options = (pure, tolerance, max_steps, damping)
    found: Any = _argmin(options, lax.stop_gradient(start), args, closed_over)
    x, num_steps = found
    gradient_fn = jax.grad(objective)
    fixed_x, fixed_args = lax.stop_gradient((x, args))
    gradient = gradient_fn(fixed_x, fixed_args)
    norm = jnp.max(jnp.abs(gradient))
    hessian = lambda v: jax.jvp(lambda x: gradient_fn(x, fixed_args), (fixed_x,), (v,))[1]
    low, high = extreme_eigenvalues(hessian, fixed_x)
    ill = ~(low + damping > (high + damping) / max_condition)
    finite = jnp.isfinite(norm)
    error = (
        jnp.where(finite, 0, errors.NOT_FINITE)
        | jnp.where(norm <= tolerance, 0, errors.NOT_CONVERGED)
        | jnp.where(finite & ill, errors.ILL_CONDITIONED, 0)
    )
    return Minimum(x, norm, num_steps, error)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _argmin(options, start, args, closed_over):
    pure, tolerance, max_steps, _ = options
    return _lbfgs(lambda x: pure(x, args, *closed_over), start, tolerance, max_steps)


def _argmin_forward(options, start, args, closed_over):
    found: Any = _argmin(options, start, args, closed_over)
    return found, (found[0], args, closed_over)


def _argmin_backward(options, residuals, cotangents):
    pure, _, _, damping = options
    x, args, closed_over = residuals
    gradient_fn = lambda x, args, closed_over: jax.grad(pure)(x, args, *closed_over)
    _, hessian = jax.linearize(lambda x: gradient_fn(x, args, closed_over), x)
    damped = lambda v: hessian(v) + damping * v
    adjoint, _ = cg(damped, cotangents[0], tol=1e-12, maxiter=20 * x.size)
    # a system that was not solved must not pass for a derivative
    scale = jnp.linalg.norm(cotangents[0])
    solved = jnp.linalg.norm(damped(adjoint) - cotangents[0]) <= 1e-6 * scale
    adjoint = jnp.where(solved, adjoint, jnp.nan)
    _, by_arguments = jax.vjp(lambda *a: gradient_fn(x, *a), args, closed_over)
    return jnp.zeros_like(x), *by_arguments(-adjoint)


_argmin.defvjp(_argmin_forward, _argmin_backward)


def extreme_eigenvalues(
    matvec: Callable[[Array], Array], like: Float[Array, ...], num_steps: int = 48
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Estimates of the smallest and largest eigenvalue of a symmetric operator, by Lanczos.

    The estimates lie within the spectrum. **Source:** Golub and Van Loan, Matrix Computations,
    section 10.1, with full reorthogonalisation.

    ```python
    extreme_eigenvalues(lambda v: jnp.array([1.0, 2.0, 5.0]) * v, jnp.zeros(3))  # 1, 5
    ```
    """
    size = like.size
    num_steps = min(num_steps, size)
    first = jax.random.normal(jax.random.key(0), (size,), like.dtype)
    first /= jnp.linalg.norm(first)

    def step(carry, i):
        basis, v = carry
        basis = basis.at[i].set(v)
        w = matvec(v.reshape(like.shape)).reshape(-1)
        diagonal = jnp.vdot(v, w)
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        off_diagonal = jnp.linalg.norm(w)
        # an exhausted Krylov space ends in a zero row, which adds no eigenvalue
        exhausted = off_diagonal <= 1e-10 * jnp.abs(diagonal)
        v = jnp.where(exhausted, 0, w / jnp.where(exhausted, 1, off_diagonal))
        return (basis, v), (diagonal, jnp.where(exhausted, 0, off_diagonal), jnp.any(v != 0))

    _, (diagonal, off, alive) = lax.scan(
        step, (jnp.zeros((num_steps, size), like.dtype), first), jnp.arange(num_steps)
    )
    # rows after the end repeat the first diagonal entry, which lies within the spectrum
    ended = jnp.concatenate([jnp.array([False]), ~alive[:-1]])
    diagonal = jnp.where(jnp.cumsum(ended) > 0, diagonal[0], diagonal)
    eigenvalues = jnp.linalg.eigvalsh(
        jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    )
    return eigenvalues[0], eigenvalues[-1]


def _lbfgs(objective, start, tolerance: float, max_steps: int):
    """L-BFGS with a zoom line search until the gradient is small; returns x and the steps taken."""
    optimiser = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def unfinished(carry):
        _, _, norm, i = carry
        return (norm > tolerance) & (i < max_steps)

    def step(carry):
        x, state, _, i = carry
        value, gradient = value_and_grad(x, state=state)
        updates, state = optimiser.update(
            gradient, state, x, value=value, grad=gradient, value_fn=objective
        )
        x = optax.apply_updates(x, updates)
        norm = jnp.max(jnp.abs(optax.tree.get(state, "grad")))
        return x, state, norm, i + 1

    init = (start, optimiser.init(start), jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), int))
    x, _, _, num_steps = lax.while_loop(unfinished, step, init)
    return x, num_steps
