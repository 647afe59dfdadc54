import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import Standardizer, fit_standardizer
from tests.asserts import assert_close


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal([1.0, -20.0, 300.0], [1.0, 5.0, 20.0], (500, 3))


def test_standardised_columns_have_mean_zero_and_deviation_one(x):
    z = np.asarray(fit_standardizer(x).apply(jnp.asarray(x)))
    assert_close(z.mean(axis=0), np.zeros(3), 1e-12)
    assert_close(z.std(axis=0), np.ones(3), 1e-12)


def test_invert_undoes_apply(x):
    standardizer = fit_standardizer(x)
    assert_close(standardizer.invert(standardizer.apply(jnp.asarray(x))), x, 1e-14)


def test_column_without_variance_is_divided_by_the_floor(x):
    x[:, 0] = 7.0
    standardizer = fit_standardizer(x, floor=1e-2)
    assert standardizer.scale[0] == pytest.approx(1e-2 * x[:, 2].std())
    assert (np.asarray(standardizer.apply(jnp.asarray(x)))[:, 0] == 0).all()


def test_data_without_any_variance_is_only_shifted():
    standardizer = fit_standardizer(np.full((4, 2), 3.0))
    np.testing.assert_array_equal(standardizer.scale, [1, 1])
    np.testing.assert_array_equal(standardizer.apply(jnp.full((1, 2), 3.5)), [[0.5, 0.5]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_that_of_the_input(dtype):
    standardizer = Standardizer(np.zeros(2), np.ones(2))
    x = jnp.ones((3, 2), dtype)
    assert standardizer.apply(x).dtype == standardizer.invert(x).dtype == dtype
