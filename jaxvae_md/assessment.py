"""Are new structures covered by training data? The whole way from frames to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvae_md import coverage
from jaxvae_md.coverage import Nearest, Surroundings
from jaxvae_md.descriptors import Chebyshev, chebyshev, describe, fit_standardizer
from jaxvae_md.learn.config import label_of, nearest_distance
from jaxvae_md.structure import species_table
from jaxvae_md.vae import pca_reconstruction, train, vae

if TYPE_CHECKING:
    from ase import Atoms


class Plane(NamedTuple):
    """Environments of training and new frames in two dimensions."""

    training: Float[np.ndarray, "m 2"]
    new: Float[np.ndarray, "k 2"]


class Assessment(NamedTuple):
    """What `assess` found, frame by frame."""

    verdict: coverage.Verdict
    score: list[Float[np.ndarray, " n"]]
    """per atom; higher is less covered, infinite at elements that the training data lack"""
    outside: list[Bool[np.ndarray, " n"]]
    frame_score: Float[np.ndarray, " k"]
    nearest: list[Nearest]
    """likeliest known kind and nearest training environment of each atom; -1 where there is none"""
    labels: list[str]
    """names of the kinds"""
    threshold: float
    frame_threshold: float
    latent: Plane
    """what a VAE makes of each atom and its nearest neighbors, learned without labels"""
    pca: Plane
    """principal components of the same"""
    label_training: list[str]
    """of every training environment"""
    confidence: Float[np.ndarray, " m"]
    """probability of the likeliest kind of each training environment, its structure left out"""
    right: Bool[np.ndarray, " m"]
    """and whether it was the right one"""
    step: Int[np.ndarray, " k"]
    """`info["step"]` of every frame, else its number"""
    descriptor: Chebyshev
    x_group: Float[np.ndarray, "2 f"] | None
    """descriptors of the largest group's central atom, and of the training atom nearest to it"""


def assess(
    training: Sequence[Atoms],
    new: Sequence[Atoms],
    *,
    order: int = 12,
    false_alarm: float = 0.05,
    method: coverage.Method | None = None,
    map_steps: int = 1500,
    seed: int = 0,
    name: str = "NEW",
    progress: bool = False,
) -> Assessment:
    """Judges every atom of `new` against the environments of `training`.

    Elements of `new` that the training data lack are outside, and so is every atom within the
    cutoff of one.

    **Arguments:** `order` of the Chebyshev descriptors, whose cutoff is 2.55 nearest-neighbor
    distances; `false_alarm` the stated share of known environments above the threshold; `method`
    of `coverage.fit`; `map_steps` to train the map's VAE with, 0 for none: `latent` is `pca`
    then. Labels of the training frames, where there are any, name the kinds. **Raises:**
    `InputError` for fewer than two training frames.

    ```python
    result = assess(read_frames("train.extxyz"), read_frames("md.extxyz", labelled=False))
    print(result.verdict.sentence)
    ```
    """
    coverage.check_enough(training)
    near = nearest_distance(training)
    cutoff = round(2.55 * near, 1)
    descriptor = chebyshev(species_table(training), cutoff, order, cutoff, order)
    known, foreign, unknown = _without_unknown(new, descriptor)
    # the new frames first: what is wrong with them is said before anything takes long
    x_new = describe(known, descriptor, progress) if known else []
    x = describe(training, descriptor, progress)
    standardizer = fit_standardizer(np.concatenate(x))
    around = lambda frames: coverage.surroundings(frames, descriptor, standardizer, near)

    y = around(training)
    labels = sorted({label_of(atoms) for atoms in training})
    kinds = np.array([labels.index(label_of(atoms)) for atoms in training])
    model = coverage.fit(y, kinds, false_alarm, seed, method)
    y_new = _spread(around(known) if known else [], foreign, y[0])
    # all at once: what is compiled for the size of a frame would serve no other
    cuts = np.cumsum([len(part.own) for part in y_new])[:-1]
    together = coverage.joined(y_new)
    lost = np.concatenate(foreign)
    apart = lambda values: np.split(values, cuts)
    score = apart(np.where(lost, np.inf, np.asarray(coverage.score(model, together))))
    like = jax.tree.map(np.asarray, coverage.nearest(model, together))
    hidden = lambda values: np.where(lost, -1, values)
    like = like._replace(
        kind=hidden(like.kind), structure=hidden(like.structure), atom=hidden(like.atom)
    )
    found = [Nearest(*parts) for parts in zip(*map(apart, like), strict=True)]
    verdict = coverage.verdict(model, score, found, y_new, labels, name)
    if unknown:
        count = sum(int(lost.sum()) for lost in foreign)
        verdict = verdict._replace(
            sentence=f"{verdict.sentence} {name} holds {' and '.join(unknown)}, which the training "
            f"data lack: {count} atoms are such or within {cutoff} angstrom of one."
        )
    size = [len(part.own) for part in y]
    own = np.repeat(np.arange(len(y)), size)
    known_like = coverage.nearest(model, coverage.joined(y), jnp.asarray(own))
    latent, pca = _planes(y, y_new, foreign, map_steps, seed)
    return Assessment(
        verdict=verdict,
        score=score,
        outside=apart(verdict.outside),
        frame_score=np.array([coverage.frame_score(part) for part in score]),
        nearest=found,
        labels=labels,
        threshold=float(model.threshold),
        frame_threshold=float(model.frame_threshold),
        latent=latent,
        pca=pca,
        label_training=[labels[k] for k in np.repeat(kinds, size)],
        confidence=np.asarray(known_like.probability).max(axis=1),
        right=np.asarray(known_like.kind) == np.repeat(kinds, size),
        step=np.array([int(atoms.info.get("step", i)) for i, atoms in enumerate(new)]),
        descriptor=descriptor,
        x_group=_of_largest_group(verdict, found, x, x_new, foreign),
    )


def annotated(new: Sequence[Atoms], result: Assessment) -> list[Atoms]:
    """Copies of the frames with what was found of every atom.

    Arrays `coverage_score`, `outside`, `nearest_kind`, `kind_probability`, and the training frame
    and atom that are most alike (`nearest_frame`, `nearest_atom`, -1 where there is none).

    ```python
    write_frames("scored.extxyz", annotated(new, result))
    ```
    """
    out = []
    columns = zip(new, result.score, result.outside, result.nearest, strict=True)
    for number, (atoms, score, outside, like) in enumerate(columns):
        copy = atoms.copy()
        copy.set_array("coverage_score", np.asarray(score, float))
        copy.set_array("outside", np.asarray(outside, bool))
        names = np.array([*result.labels, "none"])
        copy.set_array("nearest_kind", names[np.asarray(like.kind)])
        copy.set_array("kind_probability", np.asarray(like.probability).max(axis=1))
        copy.set_array("nearest_frame", np.asarray(like.structure))
        copy.set_array("nearest_atom", np.asarray(like.atom))
        copy.info["coverage_threshold"] = result.threshold
        copy.info["frame_score"] = float(result.frame_score[number])
        copy.info["frame_threshold"] = result.frame_threshold
        out.append(copy)
    return out


def _without_unknown(new: Sequence[Atoms], descriptor: Chebyshev):
    """Frames of known elements only; atoms that are not, or see one that is not; and which."""
    from ase.neighborlist import neighbor_list

    known, foreign, unknown = [], [], set()
    for atoms in new:
        lacks = ~np.isin(atoms.get_chemical_symbols(), descriptor.species)
        lost = lacks.copy()
        if lacks.any():
            unknown |= {str(symbol) for symbol in np.array(atoms.get_chemical_symbols())[lacks]}
            i, j = neighbor_list("ij", atoms, descriptor.cutoff)
            lost[i[lacks[j]]] = True
        foreign.append(lost)
        if lost.any():
            atoms = atoms[~lost]
        if len(atoms):
            known.append(atoms)
    return known, foreign, sorted(unknown)


def _spread(
    known: list[Surroundings], foreign: list[Bool[np.ndarray, " n"]], like: Surroundings
) -> list[Surroundings]:
    """Surroundings of every atom, zeros where an unknown element is seen."""
    out, left = [], iter(known)
    for lost in foreign:
        part = None if lost.all() else next(left)
        full = []
        for i, model in enumerate(like):
            values = np.zeros((len(lost), model.shape[1]))
            if part is not None:
                values[~lost] = part[i]
            full.append(values)
        out.append(Surroundings(*full))
    return out


def _planes(
    y: list[Surroundings],
    y_new: list[Surroundings],
    foreign: list[Bool[np.ndarray, " n"]],
    num_steps: int,
    seed: int,
) -> tuple[Plane, Plane]:
    near = np.concatenate([part.near for part in y])
    scale = fit_standardizer(near, floor=1e-6)
    z, z_new = (
        np.asarray(scale.apply(part), np.float32)
        for part in (near, np.concatenate([part.near for part in y_new]))
    )
    # an atom that sees an unknown element has no place on a map
    hidden = np.concatenate(foreign)[:, None]
    plane = lambda known, new: Plane(known, np.where(hidden, np.nan, new))
    pca = plane(*(pca_reconstruction(z, part, 2)[1] for part in (z, z_new)))
    if num_steps == 0:
        return pca, pca
    model = vae(z.shape[1], 2, hidden=(128, 128))
    params, _ = train(model, z, key=jax.random.key(seed), num_steps=num_steps, learning_rate=2e-3)
    return plane(*(np.asarray(model.encode(params, part)[0]) for part in (z, z_new))), pca


def _of_largest_group(
    verdict: coverage.Verdict,
    found: list[Nearest],
    x: list[np.ndarray],
    x_new: list[np.ndarray],
    foreign: list[Bool[np.ndarray, " n"]],
) -> np.ndarray | None:
    if not verdict.groups:
        return None
    first, like = verdict.groups[0], found[verdict.groups[0].frame]
    described = [i for i, lost in enumerate(foreign) if not lost.all()].index(first.frame)
    row = int(np.sum(~foreign[first.frame][: first.atom]))
    structure, atom = int(like.structure[first.atom]), int(like.atom[first.atom])
    return np.stack([x_new[described][row], x[structure][atom]])
