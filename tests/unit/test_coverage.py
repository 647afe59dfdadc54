from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import assess, coverage, datasets, errors, from_atoms, neighbor_list
from jaxvae_md.coverage import CoverageModel, Nearest, Surroundings
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.neighbors import displacements
from tests import systems
from tests.asserts import assert_close, assert_gradient

DESCRIPTOR = chebyshev(("Si",), 6.0, 12, 6.0, 12)


class Judged(NamedTuple):
    """Silicon without its surfaces, and frames that were left out."""

    model: CoverageModel
    training: list[Surroundings]
    known: list[Surroundings]
    """of frames of the same kinds, not in the training set"""
    known_kind: np.ndarray
    surface: list[Surroundings]
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
    pick = lambda rows: [frames[i] for i in rows]
    standardizer = fit_standardizer(np.concatenate(describe(pick(training), DESCRIPTOR)))
    around = lambda rows: coverage.surroundings(pick(rows), DESCRIPTOR, standardizer, 2.35)
    kind = np.array([labels.index(name) for name in label])
    y = around(training)
    return Judged(
        model=coverage.fit(y, kind[training], method=coverage.latent_ratio(num_steps=500)),
        training=y,
        known=around(left_out),
        known_kind=kind[left_out],
        surface=around(surface),
        labels=labels,
    )


def scores(model, y, own=None) -> np.ndarray:
    return np.asarray(coverage.score(model, y, own))


def area_under_curve(positive, negative) -> float:
    """Chance that a positive scores above a negative."""
    return float(np.mean(np.searchsorted(np.sort(negative), positive)) / len(negative))


def test_surfaces_are_told_from_known_frames_by_their_score(silicon):
    known, surface = (
        scores(silicon.model, coverage.joined(y)) for y in (silicon.known, silicon.surface)
    )
    assert area_under_curve(surface, known) > 0.97
    assert np.mean(surface > float(silicon.model.threshold)) > 0.9
    frame = [coverage.frame_score(scores(silicon.model, y)) for y in silicon.surface]
    assert np.mean(np.array(frame) > float(silicon.model.frame_threshold)) == 1


def test_known_frames_raise_few_false_alarms(silicon):
    by_frame = [scores(silicon.model, y) for y in silicon.known]
    assert np.mean(np.concatenate(by_frame) > float(silicon.model.threshold)) < 0.12
    frame = np.array([coverage.frame_score(part) for part in by_frame])
    assert np.mean(frame > float(silicon.model.frame_threshold)) < 0.15


def test_the_stated_share_of_false_alarms_is_that_of_the_training_data():
    for share in (0.02, 0.2):
        model = cloud_model(false_alarm=share)
        own = jnp.asarray(np.repeat(np.arange(NUM), SIZE))
        left_out = scores(model, coverage.joined(clouds()), own)
        assert abs(np.mean(left_out > float(model.threshold)) - share) < 1 / (NUM * SIZE)


def test_the_verdict_of_known_frames_and_of_surfaces(silicon):
    def judged(y):
        found = [coverage.nearest(silicon.model, part) for part in y]
        score = [scores(silicon.model, part) for part in y]
        return coverage.verdict(silicon.model, score, found, y, silicon.labels)

    covered, outside = judged(silicon.known[:4]), judged(silicon.surface)
    assert covered.sentence.startswith("NEW is covered")
    assert "are outside the training data" in outside.sentence
    assert "Nearest to them are training frames" in outside.sentence
    assert outside.share > 0.9
    assert outside.left_at == 0
    assert outside.groups[0].size > 1
    assert len(outside.outside) == sum(len(y.own) for y in silicon.surface)


def test_the_likeliest_kind_is_mostly_right_and_as_often_as_it_says(silicon):
    found = coverage.nearest(silicon.model, coverage.joined(silicon.known))
    truth = np.repeat(silicon.known_kind, [len(y.own) for y in silicon.known])
    right = np.asarray(found.kind) == truth
    assert right.mean() > 0.9
    assert abs(np.asarray(found.probability).max(axis=1).mean() - right.mean()) < 0.07
    assert_close(np.sum(found.probability, axis=1), np.ones(len(truth)), 1e-9)


def test_the_score_is_a_function_of_positions_with_a_slope(silicon):
    frame = datasets.silicon()[0]
    frame.rattle(0.05, seed=1)
    structure = from_atoms(frame, ("Si",))
    standardizer = fit_standardizer(np.concatenate(describe(datasets.silicon()[::9], DESCRIPTOR)))
    neighbors = neighbor_list(coverage.reach(DESCRIPTOR, 2.35)).allocate(structure)

    @jax.jit
    def loss(position):
        moved = structure._replace(position=position)
        y = coverage.surroundings_of(DESCRIPTOR, standardizer, 2.35, moved, neighbors)
        return coverage.score(silicon.model, y)[:2].sum()

    assert_gradient(loss, structure.position, step=1e-5, rtol=1e-4, max_directions=3)


# small clouds of points stand in for structures

NUM, SIZE, WIDTH = 8, 12, 4


def cloud(rng, centre, size=SIZE) -> Surroundings:
    x = rng.normal(size=(size, WIDTH // 2)) + centre[: WIDTH // 2]
    near, region = rng.normal(size=(2, size, WIDTH)) + centre
    return Surroundings(x, near, np.abs(region))


@cache
def clouds() -> list[Surroundings]:
    """Each structure a cloud around its own centre."""
    rng = np.random.default_rng(0)
    return [cloud(rng, rng.normal(size=WIDTH)) for _ in range(NUM)]


def points(seed=1, num=5) -> Surroundings:
    return cloud(np.random.default_rng(seed), np.zeros(WIDTH), num)


def cloud_model(rows=range(NUM), kinds=None, **options) -> CoverageModel:
    kinds = np.zeros(len(rows), int) if kinds is None else kinds
    options = {"method": coverage.local_ratio(), **options}
    return coverage.fit([clouds()[i] for i in rows], kinds, **options)


def reference_ratio(density, y, own=-1) -> float:
    """LR in plain numpy."""

    def distances(point, without):
        d = np.sqrt(np.sum((np.asarray(density.references.point) - point) ** 2, axis=-1) + 1e-10)
        d[~np.asarray(density.references.valid)] = np.inf
        d[[s for s in without if s >= 0]] = np.inf
        return d

    log = lambda d: np.mean(np.log(np.sort(d.min(axis=1))[:3]))
    d = distances(y, [own])
    near = np.argsort(d.min(axis=1))[: min(20, len(d) - 1)]
    atoms = d.argmin(axis=1)[near]
    around = [
        log(distances(np.asarray(density.references.point)[s, a], [own, s]))
        for s, a in zip(near, atoms, strict=True)
    ]
    floor = float(density.floor)
    return np.log(np.exp(log(d)) + floor) - np.mean(np.log(np.exp(around) + floor))


def reference_score(model: CoverageModel, y: Surroundings, i: int, own=-1) -> float:
    mean, deviation = np.split(y.region[i], 2)
    contrast = 0.5 * np.log1p(np.mean((y.own[i] - mean) ** 2 / (deviation**2 + 0.01)))
    region = reference_ratio(model.method.region, y.region[i], own)
    return region + 0.5 * reference_ratio(model.method.near, y.near[i], own) + contrast


def test_score_is_the_formula():
    model, y = cloud_model(), points()
    assert_close(scores(model, y), [reference_score(model, y, i) for i in range(5)], 1e-9)
    own = [0, 1, 2, 3, -1]
    expected = [reference_score(model, y, i, own[i]) for i in range(5)]
    assert_close(scores(model, y, jnp.array(own)), expected, 1e-9)


def test_a_training_environment_without_its_structure_scores_as_a_foreign_one():
    model, rest = cloud_model(), cloud_model(range(NUM - 1))
    y = clouds()[-1]
    last = jnp.full(len(y.own), NUM - 1)
    assert scores(model, y).mean() < scores(model, y, last).mean() - 1
    # the same but for g, which all structures decide
    assert np.abs(scores(model, y, last) - scores(rest, y)).max() < 0.1


def test_score_rises_with_distance_from_the_data():
    model, y = cloud_model(), points(num=1)
    moved = [jax.tree.map(lambda leaf, by=by: leaf + by, y) for by in (0.0, 5.0, 10.0, 100.0)]
    assert (np.diff([scores(model, one)[0] for one in moved]) > 0).all()


METHODS = {
    "latent": coverage.latent_ratio(2, num_steps=20),
    "local": coverage.local_ratio(),
    "knn": coverage.nearest_neighbors(),
    "quests": coverage.quests(),
    "mahalanobis": coverage.mahalanobis(),
    "reconstruction": coverage.reconstruction(1, num_steps=20),
    "elbo": coverage.negative_elbo(1, num_steps=20),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_scores_and_has_the_slope_of_finite_differences(name):
    model, y = cloud_model(method=METHODS[name]), points(num=2)
    far = jax.tree.map(lambda leaf: leaf + 30, y)
    assert (scores(model, far) > scores(model, y)).all()
    weights = jnp.array([1.0, -2.0])
    # baselines see nothing but the descriptor itself
    seen = y._asdict() if name in ("latent", "local") else {"own": y.own}
    loss = lambda seen: weights @ coverage.score(model, y._replace(**seen))
    assert_gradient(loss, seen, step=1e-6, max_directions=6)
    on_data = jax.grad(lambda y: coverage.score(model, y)[0])(
        jax.tree.map(jnp.asarray, clouds()[2])
    )
    assert all(np.isfinite(leaf).all() for leaf in on_data)


@pytest.mark.parametrize("name", ["latent", "local"])
def test_single_precision_stays_single_and_close(name):
    model, y = cloud_model(method=METHODS[name]), points()
    single = lambda leaf: jnp.asarray(leaf, jnp.float32) if leaf.dtype == np.float64 else leaf
    found = coverage.score(jax.tree.map(single, model), jax.tree.map(single, y))
    assert found.dtype == jnp.float32
    assert np.abs(found - scores(model, y)).max() < 1e-3


def test_the_baselines_are_their_formulas():
    y, x = points(), np.stack([part.own for part in clouds()])
    d = np.linalg.norm(y.own[:, None] - x.reshape(-1, WIDTH // 2), axis=-1)
    assert_close(
        scores(cloud_model(method=METHODS["knn"]), y), np.sort(d)[:, :3].mean(axis=1), 1e-8
    )
    model = cloud_model(method=coverage.quests(0.5))
    expected = -np.log(np.exp(-(d**2) / (2 * 0.25)).sum(axis=1))
    assert_close(scores(model, y), expected, 1e-7)
    assert_close(coverage.delta_entropy(y.own, x.reshape(-1, WIDTH // 2), 0.5), expected, 1e-7)
    flat = x.reshape(-1, WIDTH // 2)
    apart = y.own - flat.mean(axis=0)
    inverse = np.linalg.inv(np.cov(flat.T))
    expected = np.sqrt(np.einsum("mf,fg,mg->m", apart, inverse, apart))
    assert_close(scores(cloud_model(method=METHODS["mahalanobis"]), y), expected, 1e-4)


def test_structures_of_different_size_are_padded_without_effect():
    sizes = (SIZE, 3, 1, 5, SIZE, 7, 2, 9)
    pairs = zip(clouds(), sizes, strict=True)
    cut = [jax.tree.map(lambda leaf, n=n: leaf[:n], y) for y, n in pairs]
    model, y = coverage.fit(cut, np.zeros(NUM, int), method=coverage.local_ratio()), points()
    assert [int(n) for n in model.method.near.references.valid.sum(axis=1)] == list(sizes)
    assert_close(scores(model, y), [reference_score(model, y, i) for i in range(5)], 1e-9)


def test_two_structures_are_enough_and_fewer_are_an_error():
    two = cloud_model([0, 1])
    assert np.isfinite(scores(two, clouds()[2])).all()
    assert np.isfinite(float(two.threshold))
    for few in ([], [0]):
        with pytest.raises(errors.InputError, match="training frame") as caught:
            cloud_model(few)
        assert "at least two" in caught.value.remedy


def test_what_is_wrong_with_training_data_is_said():
    broken = list(clouds())
    own = broken[3].own.copy()
    own[5, 1] = np.nan
    broken[3] = broken[3]._replace(own=own)
    with pytest.raises(errors.InputError, match="not finite") as caught:
        coverage.fit(broken, np.zeros(NUM, int))
    assert (caught.value.frame, caught.value.atom) == (3, 5)
    with pytest.raises(errors.InputError, match="7 kinds for 8 training frames"):
        coverage.fit(clouds(), np.zeros(NUM - 1, int))
    wide = Surroundings(np.ones((1, 5)), np.ones((1, 10)), np.ones((1, 10)))
    for function in (coverage.score, coverage.nearest):
        with pytest.raises(errors.InputError, match="the model knows 2"):
            function(cloud_model(), wide)


def test_the_nearest_training_environment_is_found():
    model = cloud_model(kinds=np.arange(NUM) % 3)
    rows = np.asarray(model.kinds.atom)
    y = jax.tree.map(lambda leaf: leaf[rows[5, :3]] + 1e-4, clouds()[5])
    found = coverage.nearest(model, y)
    assert np.asarray(found.structure).tolist() == [5, 5, 5]
    assert np.asarray(found.atom).tolist() == rows[5, :3].tolist()
    assert np.asarray(found.kind).tolist() == [2, 2, 2]
    without = coverage.nearest(model, y, jnp.full(3, 5))
    assert 5 not in np.asarray(without.structure)


def alike(kind, structure) -> Nearest:
    kind = np.asarray(kind)
    return Nearest(kind, np.eye(2)[kind], np.asarray(structure), 0 * kind)


def test_verdict_counts_the_outsiders_and_says_what_they_are_like():
    model = cloud_model()._replace(
        threshold=jnp.asarray(1.0), frame_threshold=jnp.asarray(1.5), false_alarm=jnp.asarray(0.1)
    )
    labels, y = ["crystal", "melt"], points(num=4)
    part = lambda a, b: jax.tree.map(lambda leaf: leaf[a:b], y)
    score, found = np.array([0.0, 2.0, 3.0, 0.5]), alike([0, 1, 1, 0], [4, 6, 6, 2])
    bad = coverage.verdict(
        model,
        [score[:1], score[1:]],
        [alike([0], [4]), alike([1, 1, 0], [6, 6, 2])],
        [part(0, 1), part(1, 4)],
        labels,
    )
    assert bad.sentence.startswith(
        "50.0% of the 4 atoms of NEW are outside the training data (10% would by chance); 1 of 2 "
        "frames are outside as a whole, the first of them frame 1."
    )
    assert "The highest scores are those of atoms 1, 0 and 2 in frame 1." in bad.sentence
    assert "most like melt of what is known (100%)" in bad.sentence
    assert bad.sentence.endswith("Nearest to them are training frame 6.")
    assert bad.share == 0.5
    assert bad.outside.tolist() == [False, True, True, False]
    assert bad.frames.tolist() == [1]
    good = coverage.verdict(model, [score - 2.5], [found], [y], labels)
    assert good.sentence == (
        "NEW is covered: 0.0% of its 4 atoms look unlike the training data, and 10% would by "
        "chance."
    )
    assert good.groups == [] and good.left_at is None


def test_groups_are_of_atoms_that_look_alike():
    model = cloud_model()._replace(threshold=jnp.asarray(1.0))
    near = np.concatenate([np.zeros((5, WIDTH)), 9 + np.zeros((3, WIDTH))])
    near += 0.1 * np.random.default_rng(0).normal(size=near.shape)
    y = Surroundings(near[:, :2], near, near)
    found = alike([0] * 5 + [1] * 3, [1] * 8)
    groups = coverage.verdict(model, [np.full(8, 2.0)], [found], [y], ["a", "b"]).groups
    assert [group.kind for group in groups[:1]] == [0]
    assert sum(group.size for group in groups) == 8
    assert all(group.atom < 5 for group in groups if group.kind == 0)


@pytest.mark.parametrize(
    ("beyond", "expected"),
    [
        ("000", None),
        ("010111", 3),
        ("0101010", None),
        ("000011", 4),
        ("111", 0),
        ("0001", None),
        ("1", None),
    ],
)
def test_a_trajectory_has_left_when_it_stays_out(beyond, expected):
    assert coverage.left_at(np.array([c == "1" for c in beyond])) == expected


def test_the_seed_decides_the_model():
    big = [points(seed, 50) for seed in range(4)]
    fit = lambda seed: np.asarray(
        coverage.fit(big, [0] * 4, seed=seed, method=METHODS["local"]).method.near.references.point
    )
    assert np.array_equal(fit(0), fit(0))
    assert not np.array_equal(fit(0), fit(1))


@pytest.mark.slow
def test_elements_that_the_training_data_lack_are_outside():
    frames = datasets.silicon()
    training, new = frames[:20:2], [frames[1].copy(), frames[3].copy(), frames[5].copy()]
    new[1].symbols[7] = "Ge"
    new[2].symbols[:] = "C"
    result = assess(
        training, new, order=4, method=METHODS["local"], map_steps=20, name="new.extxyz"
    )
    assert "new.extxyz holds C and Ge, which the training data lack" in result.verdict.sentence
    assert result.outside[1][7] and np.isinf(result.score[1][7])
    apart = new[1].get_distances(7, range(len(new[1])), mic=True)
    assert result.outside[1][apart < result.descriptor.cutoff].all()
    assert result.outside[2].all() and np.isinf(result.score[2]).all()
    assert result.nearest[1].structure[7] == -1
    assert np.isnan(result.latent.new[-1]).all()
    assert np.isfinite(result.score[0]).all()


def test_without_steps_the_map_is_of_principal_components():
    frames = datasets.silicon()[:4]
    options = {"order": 4, "method": METHODS["local"]}
    result = assess(frames[:3], frames[3:], map_steps=0, **options)
    assert result.latent is result.pca
    assert result.pca.new.shape == (len(frames[3]), 2)


def weights_of(structure, neighbors, radius):
    r = np.linalg.norm(displacements(structure, neighbors), axis=-1)
    return np.where(r < radius, 0.5 * (np.cos(np.pi * r / radius) + 1), 0)


def test_pooling_is_the_weighted_mean_and_deviation():
    structure = systems.si8()
    neighbors = neighbor_list(4.0).allocate(structure, extra=1.2)
    x = np.random.default_rng(0).normal(size=(8, 3))
    matrix = np.eye(8)
    for i, row in enumerate(weights_of(structure, neighbors, 4.0)):
        np.add.at(matrix[i], np.asarray(neighbors.index[i]), row)
    matrix /= matrix.sum(axis=1, keepdims=True)
    for num_hops in (1, 3):
        weight = np.linalg.matrix_power(matrix, num_hops)
        mean = weight @ x
        deviation = np.sqrt(weight @ x**2 - mean**2 + 1e-10)
        pooled = coverage.pool(jnp.asarray(x), structure, neighbors, 4.0, num_hops)
        assert_close(pooled, np.concatenate([mean, deviation], axis=1), 1e-9)


def test_pooling_by_values_and_positions():
    structure = systems.si8()
    neighbors = neighbor_list(4.0).allocate(structure)
    weights = np.random.default_rng(1).normal(size=(8, 6))

    def loss(at):
        moved = structure._replace(position=at["position"])
        return jnp.sum(weights * coverage.pool(at["x"], moved, neighbors, 4.0, 2))

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
