"""Reusable claims: derivatives against finite differences, and the symmetries of physics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.structure import Structure, pad
from tests import systems

Evaluate = Callable[[Structure], np.ndarray]
"""Structure -> one value, or one row per atom."""


def evaluator(f: Callable, cutoff: float) -> Evaluate:
    """`f(structure, neighbors)` compiled, with a neighbor list allocated for each structure."""
    allocate, compiled = neighbor_list(cutoff).allocate, jax.jit(f)
    return lambda structure: np.asarray(compiled(structure, allocate(structure)))


def assert_close(actual, expected, tolerance: float, scale=None) -> None:
    """Within `tolerance` of the largest expected value; absolutely where that vanishes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    if scale is None:
        scale = np.abs(expected).max()
    error = np.max(np.abs(actual - expected) / np.where(scale > 1e-13, scale, 1.0))
    assert error <= tolerance, f"off by {error:.3g} of the scale"


def assert_gradient(
    f: Callable, x, *, step: float = 1e-5, rtol: float = 1e-6, max_directions: int = 12
) -> None:
    """The gradient of `f` at the pytree `x` equals central finite differences, leaf by leaf.

    A leaf of more than `max_directions` numbers is probed along that many random directions. A
    leaf whose gradient vanishes fails: it would prove nothing.
    """
    leaves, treedef = jax.tree.flatten(jax.tree.map(lambda a: np.asarray(a, np.float64), x))
    flat = np.concatenate([leaf.ravel() for leaf in leaves])
    _, unravel = ravel_pytree(jax.tree.map(np.zeros_like, treedef.unflatten(leaves)))
    rng = np.random.default_rng(0)
    directions, owner, start = [], [], 0
    for number, leaf in enumerate(leaves):
        small = leaf.size <= max_directions
        rows = np.eye(leaf.size) if small else rng.normal(size=(max_directions, leaf.size))
        block = np.zeros((len(rows), flat.size))
        block[:, start : start + leaf.size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        directions.append(block)
        owner += [number] * len(rows)
        start += leaf.size
    d, owner = np.concatenate(directions), np.array(owner)

    @jax.jit
    def both(flat, d):
        g = lambda v: f(unravel(v))
        values = lax.map(g, jnp.concatenate([flat + step * d, flat - step * d]))
        return d @ jax.grad(g)(flat), values

    exact, values = map(np.asarray, both(flat, d))
    numeric = (values[: len(d)] - values[len(d) :]) / (2 * step)
    for number in range(len(leaves)):
        mine, reference = exact[owner == number], numeric[owner == number]
        assert np.abs(reference).max() > 0, f"leaf {number} has no influence"
        assert_close(mine, reference, rtol)


def rotation(seed: int = 0) -> np.ndarray:
    """A random proper rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def assert_rotation_invariant(
    of: Evaluate, structure: Structure, tolerance: float = 1e-12, vector: bool = False
) -> None:
    """Rotating atoms and cell changes nothing; with `vector`, the result rotates along."""
    q = rotation()
    before = of(structure)
    turned = structure._replace(position=structure.position @ q.T, cell=structure.cell @ q.T)
    assert_close(of(turned), before @ q.T if vector else before, tolerance)


def assert_translation_invariant(
    of: Evaluate, structure: Structure, tolerance: float = 1e-12
) -> None:
    moved = structure._replace(position=structure.position + np.array([1.3, -7.1, 0.4]))
    assert_close(of(moved), of(structure), tolerance)


def assert_permutation_equivariant(
    of: Evaluate, structure: Structure, tolerance: float = 1e-12
) -> None:
    """Values of atoms follow the atoms; a single value stays."""
    order = np.roll(np.arange(len(structure.mask)), 1)
    mixed = structure._replace(position=structure.position[order], species=structure.species[order])
    before = of(structure)
    assert_close(of(mixed), before[order] if before.ndim else before, tolerance)


def assert_wrapping_invariant(of: Evaluate, structure: Structure, tolerance: float = 1e-12) -> None:
    """Moving atoms by whole lattice vectors along periodic directions changes nothing."""
    assert structure.pbc.any()
    shift = np.random.default_rng(2).integers(-3, 4, structure.position.shape) * structure.pbc
    moved = structure._replace(position=structure.position + shift @ structure.cell)
    assert_close(of(moved), of(structure), tolerance)


def assert_supercell_consistent(
    of: Evaluate, structure: Structure, tolerance: float = 1e-12
) -> None:
    """Every copy of an atom has the atom's value; a single value is extensive."""
    times = tuple(np.where(structure.pbc, [2, 1, 2], 1))
    copies = int(np.prod(times))
    assert copies > 1
    before = of(structure)
    expected = np.tile(before, (copies, *[1] * (before.ndim - 1))) if before.ndim else None
    whole = before * copies if expected is None else expected
    assert_close(of(systems.repeated(structure, times)), whole, tolerance)


def assert_padding_invariant(
    of: Evaluate, structure: Structure, tolerance: float = 1e-12, extra: int = 3
) -> None:
    """Padding atoms get zero and change nothing else."""
    before, num = of(structure), len(structure.mask)
    after = of(pad(structure, num + extra))
    if before.ndim:
        assert (after[num:] == 0).all()
        after = after[:num]
    assert_close(after, before, tolerance)
