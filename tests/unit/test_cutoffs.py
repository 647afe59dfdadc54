import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import cutoffs
from jaxvae_md.neighbors import FAR
from tests.asserts import assert_close


def test_switch_goes_from_one_over_a_half_to_zero():
    r = jnp.array([0.0, 2.0, 4.0, 5.0, FAR])
    np.testing.assert_allclose(cutoffs.cosine(r, 4.0), [1, 0.5, 0, 0, 0], atol=1e-16)


def test_switch_equals_its_formula_and_falls():
    r = np.linspace(0, 4, 101)[:-1]
    value = np.asarray(cutoffs.cosine(jnp.asarray(r), 4.0))
    assert_close(value, 0.5 * (np.cos(np.pi * r / 4) + 1), 1e-15)
    assert (np.diff(value) < 0).all()


def test_slope_vanishes_at_and_beyond_the_cutoff():
    slope = jax.vmap(jax.grad(lambda r: cutoffs.cosine(r, 4.0)))
    inside, outside = slope(jnp.array([2.0, 4 - 1e-6])), slope(jnp.array([4.0, 4.1, FAR]))
    assert_close(inside[0], -np.pi / 8, 1e-14)
    assert abs(inside[1]) < 1e-6
    assert (outside == 0).all()


def test_the_slope_is_the_derivative():
    r = jnp.linspace(0.01, 4.5, 101)
    value, slope = cutoffs.cosine_and_slope(r, 4.0)
    assert_close(value, cutoffs.cosine(r, 4.0), 0)
    exact = np.where(r < 4, -np.pi / 8 * np.sin(np.pi * np.asarray(r) / 4), 0)
    assert_close(slope, exact, 1e-15)
    assert_close(slope, jax.vmap(jax.grad(lambda r: cutoffs.cosine(r, 4.0)))(r), 1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_preserved(dtype):
    assert cutoffs.cosine(jnp.ones(3, dtype), 4.0).dtype == dtype


def test_smooth_step_is_one_to_its_onset_and_zero_from_the_cutoff():
    square = jnp.array([0.0, 8.99, 9.0, 12.5, 16.0, 25.0, FAR**2])
    factor, slope = cutoffs.switch(square, 3.0, 4.0)
    assert_close(factor, np.array([1, 1, 1, 0.5, 0, 0, 0]), 1e-15)
    assert_close(slope, np.array([0, 0, 0, -30 / 7 / 16, 0, 0, 0]), 1e-15)


def test_smooth_step_falls_and_its_slope_is_the_derivative():
    square = jnp.linspace(9.0, 16.0, 101)
    factor, slope = cutoffs.switch(square, 3.0, 4.0)
    assert (np.diff(factor) < 0).all()
    by_grad = jax.vmap(jax.grad(lambda s: cutoffs.switch(s, 3.0, 4.0)[0]))(square[1:-1])
    assert_close(slope[1:-1], by_grad, 1e-13)
