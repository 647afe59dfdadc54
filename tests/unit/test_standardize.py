import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import Standardizer, chebyshev, fit_span, fit_standardizer
from jaxvae_md.errors import InputError
from jaxvae_md.neighbors import neighbor_list
from tests import systems
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


@pytest.mark.parametrize("x", [np.zeros((0, 3)), np.array([[1.0, np.nan]])])
def test_what_cannot_be_standardised_is_refused(x):
    with pytest.raises(InputError):
        fit_standardizer(x)


def test_what_lies_outside_the_span_of_the_data_is_the_residual():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(300, 3))
    z = hidden @ rng.normal(size=(3, 5))
    span = fit_span(z)
    assert span.direction.shape == (3, 5)
    assert np.abs(span.residual(z)).max() < 1e-12 * np.abs(z).max()
    outside = np.linalg.svd(z)[2][-1]
    assert_close(span.residual(z[:4] + 2.5 * outside), np.tile(2.5 * outside, (4, 1)), 1e-12)
    assert_close(span.coordinates(z).std(axis=0)[0], np.linalg.svd(z)[1][0] / 300**0.5, 0.1)
    assert fit_span(np.zeros((4, 2))).direction.shape == (0, 2)


def test_one_species_in_a_basis_of_two_has_the_span_of_one():
    # its weighted columns repeat the others, up to the sign of the weight
    structure = systems.sio2()
    alone = structure._replace(species=np.ones(9, np.int32))
    both = chebyshev(systems.SIO2, 4.0, 4, 4.0, 3)
    neighbors = neighbor_list(4.0).allocate(structure)
    x, mixed = (np.asarray(jax.jit(both)(s, neighbors)) for s in (alone, structure))
    standardizer = fit_standardizer(x)
    span = fit_span(standardizer.apply(x))
    assert len(span.direction) <= 9
    size = lambda x: np.linalg.norm(span.residual(standardizer.apply(x)), axis=1)
    assert size(x).max() < 1e-2
    assert size(mixed).min() > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_that_of_the_input(dtype):
    standardizer = Standardizer(np.zeros(2), np.ones(2))
    x = jnp.ones((3, 2), dtype)
    assert standardizer.apply(x).dtype == standardizer.invert(x).dtype == dtype
