"""Which known kind is an environment most like, and how sure is that?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.coverage.references import References, by_rows, closest, gather, squared_distances
from jaxvae_md.coverage.surroundings import Surroundings

_SHARPNESS = tuple(2 ** (i / 2) for i in range(11))
_NUM_VOTES = 20
_DOUBT = 0.01
"""probability that is shared by all kinds, whatever the votes"""


class Kinds(NamedTuple):
    """Votes of the nearest training structures, a structure's weight being d^-sharpness."""

    references: References
    """near and region views, one after the other"""
    atom: Int[Array, "s r"]
    """which atom of its structure a reference is"""
    kind: Int[Array, " s"]
    one_hot: Float[Array, "s k"]
    sharpness: Float[Array, ""]
    """by which left-out training environments are likeliest"""


class Nearest(NamedTuple):
    """What is known and most alike, for each environment."""

    kind: Int[Array, " m"]
    """label index of the likeliest kind"""
    probability: Float[Array, "m k"]
    """of every kind"""
    structure: Int[Array, " m"]
    """the training structure, and its atom, that is most alike"""
    atom: Int[Array, " m"]


def fit_kinds(
    training: Sequence[Surroundings],
    kinds: Int[np.ndarray, " s"],
    rows: Int[np.ndarray, "s r"],
    num_kinds: int,
) -> Kinds:
    """References of every training structure, and the sharpness of their votes.

    ```python
    kinds = fit_kinds(training, [0, 0, 1], choose(sizes, 16, seed=0), num_kinds=2)
    ```
    """
    points = [np.concatenate([y.near, y.region], axis=1) for y in training]
    references = gather(points, rows)
    kind = jnp.asarray(kinds)
    model = Kinds(references, jnp.asarray(rows), kind, jnp.eye(num_kinds)[kind], jnp.asarray(1.0))
    valid = np.asarray(references.valid)
    own = jnp.asarray(np.nonzero(valid)[0])
    sharper = lambda sharpness: model._replace(sharpness=jnp.asarray(sharpness))
    likelihood = lambda a: float(_likelihood(sharper(a), references.point[valid], own))
    return sharper(max(_SHARPNESS, key=likelihood))


def nearest(model: Kinds, y: Surroundings, own: Int[Array, " m"]) -> Nearest:
    """The likeliest kind of each environment, its probability, and what is most alike."""
    point = jnp.concatenate([y.near, y.region], axis=-1)
    structure, atom, probability = by_rows(lambda *one: _votes(model, *one), point, own)
    return Nearest(jnp.argmax(probability, axis=1), probability, structure, atom)


@jax.jit
def _likelihood(model: Kinds, point: Float[Array, "m d"], own: Int[Array, " m"]):
    """Mean log probability of the training environments' own kinds."""
    _, _, given = by_rows(lambda *one: _votes(model, *one), point, own)
    return jnp.mean(jnp.log(jnp.take_along_axis(given, model.kind[own][:, None], axis=1)))


def _votes(model: Kinds, y: Float[Array, "m d"], own: Int[Array, " m"]):
    """The nearest structure, its nearest atom, and the probability of every kind."""
    square, structure = closest(squared_distances(model.references, y, own), _NUM_VOTES)
    first = structure[:, 0]
    atom = model.atom[first, jnp.argmin(square[:, 0], axis=1)]
    apart = jnp.log(jnp.min(square, axis=2))
    weight = jax.nn.softmax(-0.5 * model.sharpness * apart, axis=-1)
    votes = jnp.einsum("mv,mvk->mk", weight, model.one_hot[structure].astype(y.dtype))
    return first, atom, (1 - _DOUBT) * votes + _DOUBT / votes.shape[1]
