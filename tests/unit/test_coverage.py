from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import coverage, datasets, errors
from jaxvae_md.coverage import CoverageModel
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.neighbors import displacements, neighbor_list
from tests import systems
from tests.asserts import assert_close, assert_gradient


class Judged(NamedTuple):
    """Silicon without its surfaces, and frames that were left out."""

    model: CoverageModel
    training: list[np.ndarray]
    known: np.ndarray
    """surroundings in frames of the same kinds, not in the training set"""
    known_kind: np.ndarray
    surface: np.ndarray
    labels: list[str]


@pytest.fixture(scope="module")
def silicon() -> Judged:
    frames = datasets.silicon()
    label = np.array([atoms.info["label"] for atoms in frames])
    labels = sorted(set(label))
    inside = np.nonzero(label != "surface")[0]
    left_out = inside[3::6]
    training = np.setdiff1d(inside, left_out)
    surface = np.nonzero(label == "surface")[0][::3]
    descriptor = chebyshev(("Si",), 6.0, 12, 6.0, 12)
    pick = lambda rows: [frames[i] for i in rows]
    standardizer = fit_standardizer(np.concatenate(describe(pick(training), descriptor)))
    around = lambda rows: coverage.surroundings(pick(rows), descriptor, standardizer, 2.35)
    kind = np.array([labels.index(name) for name in label])
    y = around(training)
    known = around(left_out)
    return Judged(
        model=coverage.fit(y, kind[training]),
        training=y,
        known=np.concatenate(known),
        known_kind=np.repeat(kind[left_out], [len(part) for part in known]),
        surface=np.concatenate(around(surface)),
        labels=labels,
    )


def scores(model, y, own=None) -> np.ndarray:
    return np.asarray(coverage.score(model, jnp.asarray(y), own))


def area_under_curve(positive, negative) -> float:
    """Chance that a positive scores above a negative."""
    return float(np.mean(np.searchsorted(np.sort(negative), positive)) / len(negative))


def test_surfaces_are_told_from_known_frames_by_their_score(silicon):
    known, surface = scores(silicon.model, silicon.known), scores(silicon.model, silicon.surface)
    assert area_under_curve(surface, known) > 0.95
    assert np.mean(surface > float(silicon.model.threshold)) > 0.9


def test_known_frames_raise_few_false_alarms(silicon):
    assert np.mean(scores(silicon.model, silicon.known) > float(silicon.model.threshold)) < 0.06
    assert abs(float(silicon.model.false_alarm) - 0.02) < 0.003


def test_the_stated_share_of_false_alarms_moves_the_threshold(silicon):
    thresholds = [
        float(coverage.fit(silicon.training, np.zeros(len(silicon.training), int), share).threshold)
        for share in (0.01, 0.1)
    ]
    assert thresholds[0] > float(silicon.model.threshold) > thresholds[1]


def test_the_verdict_of_known_frames_and_of_surfaces(silicon):
    def sentence(y):
        kind = coverage.nearest_kind(silicon.model, jnp.asarray(y))
        return coverage.verdict(silicon.model, [scores(silicon.model, y)], [kind], silicon.labels)

    covered, outside = sentence(silicon.known), sentence(silicon.surface)
    assert covered.sentence.startswith("NEW is covered")
    assert "are outside the training data" in outside.sentence
    assert outside.share > 0.9
    assert outside.outside.shape == (len(silicon.surface),)


def test_the_nearest_kind_of_an_environment_is_its_own(silicon):
    kind = np.asarray(coverage.nearest_kind(silicon.model, jnp.asarray(silicon.known)))
    for name in ("melt", "strained"):
        of = silicon.known_kind == silicon.labels.index(name)
        assert np.mean(kind[of] == silicon.known_kind[of]) > 0.6
    assert np.mean(kind == silicon.known_kind) > 0.6


# small clouds of points stand in for structures

NUM, SIZE, WIDTH = 8, 12, 4


@cache
def clouds() -> list[np.ndarray]:
    """Each structure a cloud around its own centre."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(SIZE, 2, WIDTH)) + rng.normal(size=WIDTH) for _ in range(NUM)]


def cloud_model(rows=range(NUM), kinds=None) -> CoverageModel:
    kinds = np.zeros(len(rows), int) if kinds is None else kinds
    return coverage.fit([clouds()[i] for i in rows], kinds)


def reference_score(model: CoverageModel, y, own=-1) -> float:
    """The formula of the module, in plain numpy."""
    total = 0.0
    for ratio, part in zip(model.ratios, y, strict=True):
        d = np.sqrt(np.sum((np.asarray(ratio.reference) - part) ** 2, axis=-1) + 1e-10)
        d[~np.asarray(ratio.valid)] = np.inf
        if own >= 0:
            d[own] = np.inf
        nearest = d.min(axis=1)
        order = np.argsort(nearest)
        log = np.mean(np.log(nearest[order[:3]]))
        near = order[: min(20, len(d) - 1)]
        density = np.asarray(ratio.own)[near, d.argmin(axis=1)[near]]
        floor = float(ratio.floor)
        total += np.log(np.exp(log) + floor) - np.mean(np.log(np.exp(density) + floor))
    return total


def test_score_is_the_formula():
    model = cloud_model()
    y = np.random.default_rng(1).normal(size=(5, 2, WIDTH))
    assert_close(scores(model, y), [reference_score(model, part) for part in y], 1e-10)
    own = jnp.array([0, 1, 2, 3, -1])
    expected = [reference_score(model, part, int(o)) for part, o in zip(y, own, strict=True)]
    assert_close(scores(model, y, own), expected, 1e-10)


def test_own_distances_leave_the_own_structure_out():
    model = cloud_model()
    for ratio, radius in zip(model.ratios, range(2), strict=True):
        reference = np.asarray(ratio.reference)
        for s, a in ((0, 0), (3, 7)):
            assert any((reference[s, a] == point[radius]).all() for point in clouds()[s])
            d = np.linalg.norm(np.delete(reference, s, axis=0) - reference[s, a], axis=-1)
            expected = np.mean(np.log(np.sort(d.min(axis=1))[:3]))
            assert_close(ratio.own[s, a], expected, 1e-8)


def test_a_training_environment_without_its_structure_scores_as_a_foreign_one():
    model, rest = cloud_model(), cloud_model(range(NUM - 1))
    y = clouds()[-1]
    last = jnp.full(len(y), NUM - 1)
    assert scores(model, y).mean() < scores(model, y, last).mean() - 1
    # the density of the others knows of the structure that is left out, hence not equal
    assert np.abs(scores(model, y, last) - scores(rest, y)).mean() < 0.3


def test_score_rises_with_distance_from_the_data():
    model = cloud_model()
    y = np.zeros((4, 2, WIDTH)) + np.array([0.0, 5.0, 10.0, 100.0])[:, None, None]
    assert (np.diff(scores(model, y)) > 0).all()


def test_score_has_the_slope_of_finite_differences():
    model = cloud_model()
    y = np.random.default_rng(1).normal(size=(2, 2, WIDTH))
    weights = jnp.array([1.0, -2.0])
    assert_gradient(lambda y: weights @ coverage.score(model, y), y, step=1e-6)


def test_score_has_a_finite_slope_on_a_training_environment():
    model = cloud_model()
    y = jnp.stack([ratio.reference[2, 3] for ratio in model.ratios])[None]
    value, slope = jax.value_and_grad(lambda y: coverage.score(model, y)[0])(y)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert_gradient(lambda y: coverage.score(model, y)[0], np.asarray(y), step=1e-7, rtol=1e-4)


def test_structures_of_different_size_are_padded_without_effect():
    sizes = (SIZE, 3, 1, 5, SIZE, 7, 2, 9)
    model = coverage.fit([y[:n] for y, n in zip(clouds(), sizes, strict=True)], np.zeros(NUM, int))
    assert [int(np.sum(valid)) for valid in model.ratios[0].valid] == list(sizes)
    y = np.random.default_rng(1).normal(size=(3, 2, WIDTH))
    assert_close(scores(model, y), [reference_score(model, part) for part in y], 1e-10)
    # were padding taken for environments, zero would be known best
    assert scores(model, np.zeros((1, 2, WIDTH)))[0] > scores(model, clouds()[0][:1])[0]


def test_two_structures_are_enough_and_fewer_are_an_error():
    two = cloud_model([0, 1])
    assert np.isfinite(scores(two, clouds()[2])).all()
    assert np.isfinite(float(two.threshold))
    for few in ([], [0]):
        with pytest.raises(errors.InputError, match="training frame") as caught:
            cloud_model(few)
        assert "at least two" in caught.value.remedy


def test_nearest_kind_is_the_majority_of_the_five_nearest_structures():
    model = cloud_model(kinds=np.array([3, 1, 1, 2, 3, 2, 2, 0]))
    y = np.random.default_rng(1).normal(size=(20, 2, WIDTH))
    found = np.asarray(coverage.nearest_kind(model, jnp.asarray(y)))
    reference = np.asarray(model.ratios[0].reference)
    for point, kind in zip(y[:, 0], found, strict=True):
        nearest = np.argsort(np.linalg.norm(reference - point, axis=-1).min(axis=1))[:5]
        votes = np.bincount(np.asarray(model.kind)[nearest], minlength=4)
        assert votes[kind] == votes.max()
    assert len(set(found.tolist())) > 1


def test_verdict_counts_the_outsiders_and_names_whom_they_resemble():
    model = cloud_model()._replace(threshold=jnp.asarray(1.0), false_alarm=jnp.asarray(0.1))
    labels = ["crystal", "melt"]
    score, kind = np.array([0.0, 2.0, 3.0, 0.5]), np.array([0, 1, 1, 0])
    bad = coverage.verdict(model, [score[:1], score[1:]], [kind[:1], kind[1:]], labels)
    assert bad.sentence == (
        "50.0% of the 4 atoms of NEW are outside the training data (10.0% would be by chance); "
        "most of these resemble melt most. In 1 of 2 frames more than 20% of the atoms are "
        "outside, first in frame 1."
    )
    assert bad.share == 0.5
    assert bad.outside.tolist() == [False, True, True, False]
    good = coverage.verdict(model, [score - 2], [kind], labels)
    assert good.sentence.startswith("NEW is covered: 0.0% of its 4 atoms")
    assert "10.0% would by chance" in good.sentence


def test_the_seed_decides_the_model():
    big = [np.random.default_rng(s).normal(size=(50, 2, WIDTH)) for s in range(4)]
    fit = lambda seed: np.asarray(coverage.fit(big, [0] * 4, seed=seed).ratios[0].reference)
    assert np.array_equal(fit(0), fit(0))
    assert not np.array_equal(fit(0), fit(1))


def test_pooling_is_the_weighted_mean_and_deviation():
    structure = systems.si8()
    neighbors = neighbor_list(4.0).allocate(structure, extra=1.2)
    x = np.random.default_rng(0).normal(size=(8, 3))
    r = np.linalg.norm(displacements(structure, neighbors), axis=-1)
    weight = np.where(r < 4.0, 0.5 * (np.cos(np.pi * r / 4.0) + 1), 0)
    pooled = np.asarray(coverage.pool(jnp.asarray(x), structure, neighbors, 4.0))
    for i in range(8):
        w = np.concatenate([[1.0], weight[i]])
        values = np.concatenate([x[i : i + 1], x[neighbors.index[i]]])
        mean = np.average(values, axis=0, weights=w)
        deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=w) + 1e-10)
        assert_close(pooled[i], np.concatenate([mean, deviation]), 1e-9)


def test_pooling_by_values_and_positions():
    structure = systems.si8()
    neighbors = neighbor_list(4.0).allocate(structure)
    weights = np.random.default_rng(1).normal(size=(8, 6))

    def loss(at):
        moved = structure._replace(position=at["position"])
        return jnp.sum(weights * coverage.pool(at["x"], moved, neighbors, 4.0))

    x = np.random.default_rng(0).normal(size=(8, 3))
    assert_gradient(loss, {"x": x, "position": structure.position})


def test_surroundings_of_equal_atoms_have_no_spread():
    pooled = coverage.pool(
        jnp.ones((8, 3)), systems.si8(), neighbor_list(4.0).allocate(systems.si8()), 4.0
    )
    assert_close(pooled[:, :3], np.ones((8, 3)), 1e-12)
    assert (np.asarray(pooled[:, 3:]) < 1e-4).all()


def test_novelty_is_the_distance_over_the_data_s_own():
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(20, 3)) for _ in range(5)]
    model = coverage.fit_novelty(frames)
    x = np.concatenate(frames)
    own = np.repeat(np.arange(5), 20)
    d = np.linalg.norm(x[:, None] - x, axis=-1)
    nearest = np.where(own[:, None] == own, np.inf, d).min(axis=1)
    assert_close(model.d95, np.sqrt(np.quantile(nearest**2, 0.95)), 1e-9)
    new = rng.normal(size=(7, 3)) * 3
    expected = np.linalg.norm(new[:, None] - x, axis=-1).min(axis=1) / float(model.d95)
    assert_close(coverage.novelty(model, jnp.asarray(new)), expected, 1e-6)
    assert (np.asarray(coverage.novelty(model, jnp.asarray(x))) < 1e-3).all()


def test_novelty_has_a_slope_everywhere():
    model = coverage.fit_novelty([np.random.default_rng(s).normal(size=(20, 3)) for s in range(3)])
    slope = jax.grad(lambda x: jnp.sum(coverage.novelty(model, x)))
    assert np.isfinite(slope(model.reference)).all()
    x = np.random.default_rng(9).normal(size=(2, 3)) * 3
    assert_gradient(lambda x: jnp.sum(coverage.novelty(model, x)), x, step=1e-6)


def test_novelty_of_many_environments_keeps_a_sample():
    frames = [np.random.default_rng(s).normal(size=(50, 3)) for s in range(4)]
    model = coverage.fit_novelty(frames, max_references=60)
    assert model.reference.shape == (60, 3)
    assert np.isfinite(float(model.d95))
