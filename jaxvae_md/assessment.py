"""Are new structures covered by training data? The whole way from frames to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxvae_md import coverage
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.learn.config import label_of, nearest_distance
from jaxvae_md.structure import species_table
from jaxvae_md.vae import pca_reconstruction

if TYPE_CHECKING:
    from ase import Atoms


class Assessment(NamedTuple):
    """What `assess` found, frame by frame."""

    verdict: coverage.Verdict
    score: list[Float[np.ndarray, " n"]]
    """per atom; higher is less covered"""
    outside: list[Bool[np.ndarray, " n"]]
    nearest_kind: list[list[str]]
    """label of the training structures that each atom resembles most"""
    threshold: float
    map_training: Float[np.ndarray, "m 2"]
    """first two principal components of the training environments"""
    map_new: Float[np.ndarray, "k 2"]


def assess(
    training: Sequence[Atoms],
    new: Sequence[Atoms],
    *,
    order: int = 12,
    false_alarm: float = 0.02,
    seed: int = 0,
    progress: bool = False,
) -> Assessment:
    """Judges every atom of `new` against the environments of `training`.

    **Arguments:** `order` of the Chebyshev descriptors, whose cutoff is 2.55 nearest-neighbor
    distances; `false_alarm` the stated share of known environments above the threshold. Labels
    of the training frames, where there are any, name the kinds. **Raises:** `SpeciesError` for an
    element that the training data lack, `InputError` for fewer than two training frames.

    ```python
    result = assess(read_frames("train.extxyz"), read_frames("md.extxyz", labelled=False))
    print(result.verdict.sentence)
    ```
    """
    coverage.check_enough(training)
    nearest = nearest_distance(training)
    cutoff = round(2.55 * nearest, 1)
    descriptor = chebyshev(species_table(training), cutoff, order, cutoff, order)
    x_new = describe(new, descriptor, progress)
    x = describe(training, descriptor, progress)
    standardizer = fit_standardizer(np.concatenate(x))

    labels = sorted({label_of(atoms) for atoms in training})
    kinds = [labels.index(label_of(atoms)) for atoms in training]
    around = lambda frames: coverage.surroundings(frames, descriptor, standardizer, nearest)
    model = coverage.fit(around(training), kinds, false_alarm, seed)
    y = jnp.asarray(np.concatenate(around(new)))
    score = np.asarray(coverage.score(model, y))
    kind = np.asarray(coverage.nearest_kind(model, y))

    z, z_new = (np.asarray(standardizer.apply(np.concatenate(part))) for part in (x, x_new))
    cuts = np.cumsum([len(part) for part in x_new])[:-1]
    scores, kinds_new = np.split(score, cuts), np.split(kind, cuts)
    verdict = coverage.verdict(model, scores, kinds_new, labels)
    return Assessment(
        verdict=verdict,
        score=scores,
        outside=np.split(verdict.outside, cuts),
        nearest_kind=[[labels[k] for k in part] for part in kinds_new],
        threshold=float(model.threshold),
        map_training=pca_reconstruction(z, z, 2)[1],
        map_new=pca_reconstruction(z, z_new, 2)[1],
    )


def annotated(new: Sequence[Atoms], result: Assessment) -> list[Atoms]:
    """Copies of the frames with arrays `coverage_score`, `outside` and `nearest_kind`.

    ```python
    write_frames("scored.extxyz", annotated(new, result))
    ```
    """
    out = []
    columns = zip(new, result.score, result.outside, result.nearest_kind, strict=True)
    for atoms, score, outside, kind in columns:
        copy = atoms.copy()
        copy.set_array("coverage_score", np.asarray(score, float))
        copy.set_array("outside", np.asarray(outside, bool))
        copy.set_array("nearest_kind", np.asarray(kind, dtype=str))
        copy.info["coverage_threshold"] = result.threshold
        out.append(copy)
    return out
