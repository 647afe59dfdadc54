"""A simulation's state as named arrays, for checkpoints."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae_md.cell_grid import Grid

S = TypeVar("S")


def as_arrays(state: Any, grid: Any) -> dict[str, np.ndarray]:
    """The leaves of a state in order, random keys as their data; and the grid of its lists.

    ```python
    tree = as_arrays(state, state.neighbors.grid)
    ```
    """
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    plain = lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    tree = {f"leaf_{number:03d}": plain(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
    if isinstance(grid, Grid):
        tree["grid"] = np.array([*grid.shape, *grid.reach, grid.capacity])
    return tree


def from_arrays(template: S, tree: dict[str, Any]) -> tuple[S, Grid | None]:
    """The state whose arrays a checkpoint held, and the grid that its lists had.

    The `template` has its structure; arrays may have other shapes.

    ```python
    state, grid = from_arrays(template, tree)
    state = state._replace(neighbors=state.neighbors._replace(grid=grid))
    ```
    """
    like, structure = jax.tree.flatten(template)
    leaves = []
    for number, leaf in enumerate(like):
        array = jnp.asarray(tree[f"leaf_{number:03d}"])
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        leaves.append(jax.random.wrap_key_data(array) if is_key else array)
    sizes = [int(size) for size in tree.get("grid", ())]
    grid = Grid(tuple(sizes[:3]), tuple(sizes[3:6]), sizes[6]) if sizes else None  # pyright: ignore
    return jax.tree.unflatten(structure, leaves), grid
