"""Is an environment covered by the training data? Score, threshold, nearest kind, verdict.

With a melt among the training data plain distances measure disorder and fail. What works is a
distance relative to how densely the training data lie there, on surroundings a little wider than
one descriptor, and always between different structures:

    x      standardised descriptors
    c_i    [mean, standard deviation] of x_j over atom i and its neighbors, weights fc(r_ij; R)
    d_s(y) smallest distance from y to the atoms of training structure s
    l(y)   mean of log d_s over the 3 nearest structures; own(r): the same for a training atom r
           without its own structure
    LR(y)  log(exp l(y) + g) - mean over r of log(exp own(r) + g), r the nearest atom of each of
           the 20 nearest structures, g = 0.1 exp(mean own)

The score is LR at R = 1.7 plus LR at R = 3.4 nearest-neighbor distances: fully local.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float, Int

from jaxvae_md import cutoffs
from jaxvae_md._typing import Array
from jaxvae_md.batching import batches
from jaxvae_md.descriptors.chebyshev import Chebyshev
from jaxvae_md.descriptors.standardize import Standardizer
from jaxvae_md.errors import InputError
from jaxvae_md.neighbors import NeighborList, displacements
from jaxvae_md.structure import Structure, from_atoms

if TYPE_CHECKING:
    from ase import Atoms

POOLING_RADII = (1.7, 3.4)
"""in nearest-neighbor distances"""
_REFERENCES_PER_STRUCTURE = 16
_NUM_NEAREST = 3
_NUM_DENSITY = 20
_CONSPICUOUS = 0.2
"""share of atoms outside the data at which a frame stands out"""


class LocalRatio(NamedTuple):
    """The score LR of one pooling radius, as a pytree."""

    reference: Float[Array, "s m d"]
    """pooled descriptors of the reference atoms of each training structure"""
    valid: Bool[Array, "s m"]
    own: Float[Array, "s m"]
    """leave-structure-out mean log distance of each reference atom"""
    floor: Float[Array, ""]


class CoverageModel(NamedTuple):
    """What `fit` returns and `score` takes; a pytree of arrays."""

    ratios: tuple[LocalRatio, ...]
    threshold: Float[Array, ""]
    """scores above it are outside the data"""
    false_alarm: Float[Array, ""]
    """share of training atoms above the threshold when their own structure is left out"""
    kind: Int[Array, " s"]
    """label of each training structure, as an index"""


def pool(
    x: Float[Array, "n f"], structure: Structure, neighbors: NeighborList, radius: float
) -> Float[Array, "n d"]:
    """Mean and standard deviation of descriptors over an atom and its neighbors.

    Weights are fc(r; radius), 1 for the atom itself; `radius` in angstrom, covered by the list.
    Differentiable in x and in the positions.

    ```python
    c = pool(x, structure, neighbors, radius=4.0)  # [n, 2 f]
    ```
    """
    vector = displacements(structure, neighbors)
    weight = cutoffs.cosine(jnp.sqrt(jnp.sum(vector**2, axis=-1)), radius)
    total = 1 + jnp.sum(weight, axis=-1, keepdims=True)
    average = lambda values: (
        (values + jnp.einsum("nk,nkf->nf", weight, values[neighbors.index])) / total
    )
    mean = average(x)
    # shifted, so that the difference of squares does not cancel
    centre = jnp.mean(x, axis=0)
    variance = average((x - centre) ** 2) - (mean - centre) ** 2
    return jnp.concatenate([mean, jnp.sqrt(jnp.maximum(variance, 0) + 1e-10)], axis=-1)


def surroundings(
    frames: Sequence[Atoms],
    descriptor: Chebyshev,
    standardizer: Standardizer,
    nearest_distance: float,
) -> list[Float[np.ndarray, "n radii d"]]:
    """Pooled descriptors of every atom at both radii: what the coverage score compares.

    **Arguments:** `nearest_distance` (angstrom) of the material sets the radii.

    ```python
    y = surroundings(frames, descriptor, standardizer, nearest_distance=2.35)
    ```
    """
    structures = [from_atoms(atoms, descriptor.species) for atoms in frames]
    out: list[np.ndarray] = [np.empty(0)] * len(structures)
    one = _surroundings(descriptor, nearest_distance)
    scale = jax.tree.map(jnp.asarray, standardizer)
    for batch in batches(structures, reach(descriptor, nearest_distance)):
        pooled = np.asarray(one(scale, batch.structure, batch.neighbors))
        for values, mask, frame in zip(pooled, batch.structure.mask, batch.frame, strict=True):
            out[frame] = values[mask]
    return out


def reach(descriptor: Chebyshev, nearest_distance: float) -> float:
    """Cutoff (angstrom) of the neighbor list that `surroundings_of` needs."""
    return max(descriptor.cutoff, *(factor * nearest_distance for factor in POOLING_RADII))


def surroundings_of(
    descriptor: Chebyshev,
    standardizer: Standardizer,
    nearest_distance: float,
    structure: Structure,
    neighbors: NeighborList,
) -> Float[Array, "n radii d"]:
    """`surroundings` of one structure, under jit; differentiable in its positions.

    ```python
    fns = neighbor_list(reach(descriptor, 2.35))
    y = surroundings_of(descriptor, standardizer, 2.35, structure, fns.allocate(structure))
    ```
    """
    x = standardizer.apply(descriptor(structure, neighbors))
    radii = [factor * nearest_distance for factor in POOLING_RADII]
    return jnp.stack([pool(x, structure, neighbors, radius) for radius in radii], axis=1)


@lru_cache
def _surroundings(descriptor: Chebyshev, nearest_distance: float):
    def batch(standardizer, structure, neighbors):
        one = lambda frame: surroundings_of(descriptor, standardizer, nearest_distance, *frame)
        return lax.map(one, (structure, neighbors))

    return jax.jit(batch)


def fit(
    training: Sequence[Float[np.ndarray, "n radii d"]],
    kinds: Sequence[int] | np.ndarray,
    false_alarm: float = 0.02,
    seed: int = 0,
) -> CoverageModel:
    """The coverage model of a training set.

    **Arguments:** `training` the surroundings of each training structure; `kinds` a label index
    for each; `false_alarm` the share of training atoms that lie above the threshold when their
    own structure is left out. **Raises:** `InputError` for fewer than two structures.

    ```python
    model = fit(surroundings(frames, descriptor, standardizer, 2.35), kinds)
    ```
    """
    check_enough(training)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(len(y))[:_REFERENCES_PER_STRUCTURE] if len(y) else np.arange(0)
        for y in training
    ]
    size = max(len(rows) for rows in chosen)
    ratios = []
    for radius in range(training[0].shape[1]):
        reference = np.zeros((len(training), size, training[0].shape[2]))
        valid = np.zeros((len(training), size), bool)
        for s, (y, rows) in enumerate(zip(training, chosen, strict=True)):
            reference[s, : len(rows)] = y[rows, radius]
            valid[s, : len(rows)] = True
        ratios.append(_fit_ratio(jnp.asarray(reference), jnp.asarray(valid)))
    model = CoverageModel(tuple(ratios), jnp.zeros(()), jnp.zeros(()), jnp.asarray(kinds))

    valid = np.asarray(ratios[0].valid)
    own = jnp.asarray(np.nonzero(valid)[0])
    y = jnp.stack([ratio.reference[valid] for ratio in ratios], axis=1)
    left_out = np.asarray(score(model, y, own))
    threshold = np.quantile(left_out, 1 - false_alarm)
    return model._replace(
        threshold=jnp.asarray(threshold), false_alarm=jnp.asarray(np.mean(left_out > threshold))
    )


def check_enough(training: Sequence) -> None:
    """Raises `InputError` for fewer than two training structures."""
    if len(training) < 2:
        raise InputError(
            f"{len(training)} training frame: coverage compares structures with each other",
            remedy="give at least two training frames",
        )


@jax.jit
def score(
    model: CoverageModel,
    y: Float[Array, "m radii d"],
    own: Int[Array, " m"] | None = None,
) -> Float[Array, " m"]:
    """Coverage score of each environment: higher is less covered; differentiable.

    **Arguments:** `own` the training structure (its position in the training set) to which an
    environment belongs, which is then left out; -1 for none. Scores of training environments
    mean nothing without it.

    ```python
    novel = score(model, y) > model.threshold
    ```
    """
    own = jnp.full(len(y), -1) if own is None else own
    return lax.map(lambda one: _score_one(model, *one), (y, own), batch_size=256)


@jax.jit
def nearest_kind(model: CoverageModel, y: Float[Array, "m radii d"]) -> Int[Array, " m"]:
    """Label index of the training structures that look most alike: the majority of five.

    ```python
    labels[nearest_kind(model, y)[0]]
    ```
    """

    def one(y):
        d2 = _distance2(model.ratios[0], y[0]).min(axis=1)
        _, nearest = lax.top_k(-d2, min(5, len(d2)))
        votes = model.kind[nearest]
        same = jnp.sum(votes[:, None] == votes[None], axis=1)
        return votes[jnp.argmax(same)]

    return lax.map(one, y, batch_size=256)


class Verdict(NamedTuple):
    """What a person reads."""

    sentence: str
    outside: Bool[np.ndarray, " m"]
    """atoms whose score exceeds the threshold"""
    share: float


def verdict(
    model: CoverageModel,
    scores: Sequence[Float[Array, " n"]],
    kinds: Sequence[Int[Array, " n"]],
    labels: Sequence[str],
) -> Verdict:
    """A sentence or two on whether frames are covered by the training data.

    **Arguments:** `scores` and `kinds` of each frame's atoms, as `score` and `nearest_kind` give
    them; `labels` the names of the kinds. A frame stands out when more than a fifth of its atoms
    are outside.

    ```python
    print(verdict(model, [score(model, y)], [nearest_kind(model, y)], labels).sentence)
    ```
    """
    by_frame = [np.asarray(part) > float(model.threshold) for part in scores]
    outside, kind = np.concatenate(by_frame), np.concatenate([np.asarray(k) for k in kinds])
    share, expected = float(outside.mean()), float(model.false_alarm)
    standing_out = [i for i, part in enumerate(by_frame) if part.mean() > _CONSPICUOUS]
    if share <= 2 * expected and not standing_out:
        sentence = (
            f"NEW is covered: {share:.1%} of its {len(outside)} atoms look unlike the training "
            f"data, and {expected:.1%} would by chance."
        )
    else:
        names, counts = np.unique(kind[outside], return_counts=True)
        sentence = (
            f"{share:.1%} of the {len(outside)} atoms of NEW are outside the training data "
            f"({expected:.1%} would be by chance); most of these resemble "
            f"{labels[int(names[np.argmax(counts)])]} most."
        )
        if standing_out:
            sentence += (
                f" In {len(standing_out)} of {len(by_frame)} frames more than "
                f"{_CONSPICUOUS:.0%} of the atoms are outside, first in frame {standing_out[0]}."
            )
    return Verdict(sentence, outside, share)


def _distance2(ratio: LocalRatio, y: Float[Array, " d"]) -> Float[Array, "s m"]:
    """Squared distances to every reference atom, infinite for padding."""
    d2 = jnp.sum((ratio.reference - y) ** 2, axis=-1)
    # the constant keeps the gradient of the root finite on a training point
    return jnp.where(ratio.valid, d2 + 1e-10, jnp.inf)


def _without(d2: Float[Array, "s m"], own: Int[Array, ""]) -> Float[Array, "s m"]:
    """The distances with one structure left out."""
    return jnp.where((jnp.arange(len(d2)) == own)[:, None], jnp.inf, d2)


def _log_distance(d2: Float[Array, "s m"]) -> Float[Array, ""]:
    """l(y): mean log distance to the nearest structures."""
    per_structure = jnp.min(d2, axis=1)
    num = min(_NUM_NEAREST, len(per_structure) - 1)
    nearest, _ = lax.top_k(-per_structure, num)
    return jnp.mean(0.5 * jnp.log(-nearest))


def _score_one(model: CoverageModel, y: Float[Array, "radii d"], own: Int[Array, ""]):
    """Sum of LR over the radii; `own` is a structure to leave out, -1 for none."""
    total = jnp.zeros((), y.dtype)
    for ratio, part in zip(model.ratios, y, strict=True):
        d2 = _distance2(ratio, part)
        d2 = _without(d2, own)
        atom = jnp.argmin(d2, axis=1)
        num = min(_NUM_DENSITY, len(d2) - 1)
        _, structures = lax.top_k(-jnp.min(d2, axis=1), num)
        density = ratio.own[structures, atom[structures]]
        floored = lambda log, ratio=ratio: jnp.log(jnp.exp(log) + ratio.floor)
        total += floored(_log_distance(d2)) - jnp.mean(floored(density))
    return total


@jax.jit
def _fit_ratio(reference: Float[Array, "s m d"], valid: Bool[Array, "s m"]) -> LocalRatio:
    ratio = LocalRatio(reference, valid, jnp.zeros(valid.shape), jnp.zeros(()))

    def own(args):
        y, structure = args
        d2 = _distance2(ratio, y)
        return _log_distance(_without(d2, structure))

    structure = jnp.repeat(jnp.arange(len(reference)), reference.shape[1])
    flat = reference.reshape(-1, reference.shape[-1])
    values = lax.map(own, (flat, structure), batch_size=256).reshape(valid.shape)
    floor = 0.1 * jnp.exp(jnp.mean(values, where=valid))
    return ratio._replace(own=values, floor=floor)


class Novelty(NamedTuple):
    """Plain novelty of single descriptors: distance to the training data over their own d95."""

    reference: Float[Array, "m f"]
    d95: Float[Array, ""]
    """95th percentile of the data's own nearest distance, its own structure left out"""


def fit_novelty(
    training: Sequence[Float[np.ndarray, "n f"]], max_references: int = 4000, seed: int = 0
) -> Novelty:
    """Novelty of standardised descriptors, from those of each training structure.

    ```python
    model = fit_novelty(z_of_frames)
    n = novelty(model, z_new)  # above 1: further than 95 % of the data are from each other
    ```
    """
    x = np.concatenate(training)
    structure = np.repeat(np.arange(len(training)), [len(t) for t in training])
    if len(x) > max_references:
        rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:max_references])
        x, structure = x[rows], structure[rows]
    x, structure = jnp.asarray(x), jnp.asarray(structure)

    def left_out(args):
        y, own = args
        return jnp.min(jnp.where(structure == own, jnp.inf, jnp.sum((x - y) ** 2, axis=-1)))

    d2 = jax.jit(partial(lax.map, left_out, batch_size=256))((x, structure))
    return Novelty(x, jnp.sqrt(jnp.quantile(d2, 0.95)))


@jax.jit
def novelty(model: Novelty, x: Float[Array, "m f"]) -> Float[Array, " m"]:
    """Distance to the nearest training descriptor over d95."""
    one = lambda y: jnp.sqrt(jnp.min(jnp.sum((model.reference - y) ** 2, axis=-1)) + 1e-10)
    return lax.map(one, x, batch_size=256) / model.d95
