"""The coverage model: a score with calibrated thresholds, and the known kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxvae_md._typing import Array
from jaxvae_md.coverage import kinds as known_kinds
from jaxvae_md.coverage.kinds import Kinds, Nearest
from jaxvae_md.coverage.ratio import LatentRatio, LocalRatio, latent_ratio
from jaxvae_md.coverage.references import PER_STRUCTURE, by_rows, choose
from jaxvae_md.coverage.surroundings import Surroundings, joined
from jaxvae_md.errors import InputError

_NUM_HIGHEST = 8
"""atoms that a defect is seen by; the score of a structure is their mean"""


class Fitted(Protocol):
    """A score that was fitted on training data: a pytree with this method."""

    def score(self, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
        """Higher is less covered; `own` a training structure to leave out, -1 for none."""
        ...


Method: TypeAlias = Callable[[Sequence[Surroundings], int], Fitted]
"""(training, seed) -> fitted score: `latent_ratio()`, `local_ratio()`, or a baseline"""


class CoverageModel(NamedTuple):
    """What `fit` returns and `score` takes; a pytree of arrays."""

    method: LatentRatio | LocalRatio
    """or another fitted score"""
    threshold: Float[Array, ""]
    """scores of atoms above it are outside the data"""
    frame_threshold: Float[Array, ""]
    """scores of structures (`frame_score`) above it are outside the data"""
    false_alarm: Float[Array, ""]
    """stated share of known atoms, and of known structures, above the thresholds"""
    kinds: Kinds


def fit(
    training: Sequence[Surroundings],
    kinds: Sequence[int] | np.ndarray,
    false_alarm: float = 0.05,
    seed: int = 0,
    method: Method | None = None,
) -> CoverageModel:
    """The coverage model of a training set.

    The thresholds are quantiles of the training structures' own scores, each with its structure
    left out: they hold for new structures that are as different from the training structures as
    those are from each other. A set of frames of one MD run is less different than that.

    **Arguments:** `training` the surroundings of each training structure; `kinds` a label index
    for each; `false_alarm` the share of known atoms, and of known structures, that lie above the
    thresholds; `method` how to score, by default `latent_ratio()`. Methods that leave nothing
    out (`mahalanobis`, `reconstruction`, `negative_elbo`) have thresholds that are too low.
    **Raises:** `InputError` for fewer than two structures, one without atoms, a label index
    missing, or what is not finite.

    ```python
    model = fit(surroundings(frames, descriptor, standardizer, 2.35), kinds)
    ```
    """
    check_enough(training)
    _check(training, kinds)
    kinds = np.asarray(kinds, int)
    sizes = [len(y.own) for y in training]
    rows = choose(sizes, PER_STRUCTURE, seed)
    fitted = (method or latent_ratio())(training, seed)
    own = np.repeat(np.arange(len(training)), sizes)
    left_out = np.asarray(plain_score(fitted, joined(training), jnp.asarray(own)))
    by_frame = [frame_score(part) for part in np.split(left_out, np.cumsum(sizes)[:-1])]
    quantile = lambda values: jnp.asarray(np.quantile(values, 1 - false_alarm))
    return CoverageModel(
        fitted,  # type: ignore[arg-type]
        threshold=quantile(left_out),
        frame_threshold=quantile(by_frame),
        false_alarm=jnp.asarray(false_alarm),
        kinds=known_kinds.fit_kinds(training, kinds, rows, int(kinds.max()) + 1),
    )


def check_enough(training: Sequence) -> None:
    """Raises `InputError` for fewer than two training structures."""
    if len(training) < 2:
        raise InputError(
            f"{len(training)} training frame: coverage compares structures with each other",
            remedy="give at least two training frames",
        )


def score(
    model: CoverageModel, y: Surroundings, own: Int[Array, " m"] | None = None
) -> Float[Array, " m"]:
    """Coverage score of each environment: higher is less covered; jit-compiled, differentiable.

    **Arguments:** `own` the training structure (its position in the training set) to which an
    environment belongs, which is then left out; -1 for none. Scores of training environments
    mean nothing without it. **Raises:** `InputError` for surroundings of another descriptor.

    ```python
    novel = score(model, y) > model.threshold
    ```
    """
    _check_width(model, y)
    return plain_score(model.method, y, _none_left_out(y, own))


def frame_score(scores: Float[Array, " n"]) -> float:
    """Score of a structure: the mean of its eight highest, as many as a small defect reaches.

    ```python
    outside = frame_score(score(model, y)) > model.frame_threshold
    ```
    """
    return float(np.mean(np.sort(np.asarray(scores))[-_NUM_HIGHEST:]))


def nearest(model: CoverageModel, y: Surroundings, own: Int[Array, " m"] | None = None) -> Nearest:
    """The known kind that each environment is most like, with the probability of every kind.

    Probabilities are votes of the twenty nearest training structures, calibrated on training
    environments with their own structure left out.

    ```python
    like = nearest(model, y)
    labels[like.kind[0]], like.probability[0], like.structure[0]
    ```
    """
    _check_width(model, y)
    return _nearest(model.kinds, y, _none_left_out(y, own))


_nearest = jax.jit(known_kinds.nearest)


@jax.jit
def plain_score(fitted: Fitted, y: Surroundings, own: Int[Array, " m"]) -> Float[Array, " m"]:
    """Scores of a fitted method alone, without thresholds; `own` as in `score`.

    ```python
    plain_score(local_ratio()(training, 0), y, jnp.full(len(y.own), -1))
    ```
    """
    return by_rows(fitted.score, Surroundings(*map(jnp.asarray, y)), own)


def _none_left_out(y: Surroundings, own: Int[Array, " m"] | None) -> Int[Array, " m"]:
    return jnp.full(len(y.own), -1) if own is None else jnp.asarray(own)


def _check(training: Sequence[Surroundings], kinds: Sequence[int] | np.ndarray) -> None:
    if len(kinds) != len(training):
        raise InputError(
            f"{len(kinds)} kinds for {len(training)} training frames",
            remedy="give one label index for each frame",
        )
    for number, y in enumerate(training):
        if not len(y.own):
            raise InputError("no atoms", frame=number, remedy="remove the frame")
        finite = np.all([np.isfinite(np.asarray(part)).all(axis=1) for part in y], axis=0)
        if not finite.all():
            raise InputError(
                "the descriptor is not finite",
                frame=number,
                atom=int(np.argmin(finite)),
                remedy="look at the structure, or remove the frame",
            )


def _check_width(model: CoverageModel, y: Surroundings) -> None:
    expected = model.kinds.references.point.shape[-1]
    found = y.near.shape[-1] + y.region.shape[-1]
    if expected != found:
        raise InputError(
            f"surroundings of {y.own.shape[-1]} descriptor columns, and the model knows "
            f"{expected // 4}",
            remedy="take the descriptor that the model was fitted with",
        )
