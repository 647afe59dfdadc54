"""Distances between sets of points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.fit import energy_distance, fisher_discrepancy, maximum_mean_discrepancy
from tests.asserts import assert_close, assert_gradient

DISTANCES = pytest.mark.parametrize("distance", [maximum_mean_discrepancy, energy_distance])


def points(num: int, seed: int, shift: float = 0.0):
    return np.random.default_rng(seed).normal(shift, 1.0, (num, 3))


def test_they_are_their_definitions():
    x, y = points(7, 0), points(9, 1, 0.5)
    norm = lambda a, b: np.linalg.norm(a[:, None] - b, axis=-1)
    off = lambda k: k[~np.eye(len(k), dtype=bool)].mean()
    expected = 2 * norm(x, y).mean() - off(norm(x, x)) - off(norm(y, y))
    assert_close(energy_distance(x, y), expected, 1e-12)
    unit = off(norm(y, y) ** 2)
    kernel = lambda a, b: np.exp(-(norm(a, b) ** 2) / (2 * 0.7**2 * unit))
    expected = off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean()
    assert_close(maximum_mean_discrepancy(x, y, [0.7]), expected, 1e-12)


@DISTANCES
def test_of_one_distribution_they_are_zero_on_average(distance):
    same = [float(distance(points(50, s), points(60, 100 + s))) for s in range(40)]
    other = [float(distance(points(50, s), points(60, 100 + s, 0.5))) for s in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 40**0.5
    assert np.mean(other) > 10 * abs(np.mean(same))


def test_features_of_one_distribution_differ_by_what_their_noise_allows():
    same = [float(fisher_discrepancy(points(50, s), points(400, 100 + s), 8)) for s in range(40)]
    # 16 features, each with the variance of its mean; some are all but one
    expected = 16 * (1 / 50 + 1 / 400)
    assert 0.5 * expected < np.mean(same) < 1.2 * expected
    other = float(fisher_discrepancy(points(50, 1, 1.0), points(400, 2), 8))
    assert other > 2 * max(same)
    assert_gradient(lambda x: fisher_discrepancy(x, points(60, 1), 8), points(6, 0, 0.5))


@DISTANCES
def test_slopes_are_finite_where_points_coincide(distance):
    x, y = points(6, 0), points(8, 1, 0.5)
    x[1] = x[0]
    y[2] = x[3]
    slope = jax.grad(lambda x: distance(x, y))(jnp.asarray(x))
    assert np.isfinite(slope).all()
    assert_gradient(lambda x: distance(x, points(8, 1, 0.5)), points(6, 0))
