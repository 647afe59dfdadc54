import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import datasets, errors
from jaxvae_md.descriptors import chebyshev, describe, fit_standardizer
from jaxvae_md.learn.config import split
from jaxvae_md.vae import (
    active_dims,
    elbo,
    pca_reconstruction,
    reconstruction_r2,
    reconstruction_report,
    refine,
    train,
    vae,
)
from tests.asserts import assert_close, assert_gradient

KEY = jax.random.key(0)
SMALL = vae(6, 2, hidden=(16,))


def curved_sheet(num: int = 400, seed: int = 0) -> np.ndarray:
    """Six columns that two numbers decide, standardised, with a little noise."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(num, 2))
    x = np.concatenate([u, u[:, :1] * u[:, 1:], u**2, np.sin(u[:, :1])], axis=1)
    x = x + 0.05 * rng.normal(size=x.shape)
    return (x - x.mean(axis=0)) / x.std(axis=0)


fit = partial(train, SMALL, num_steps=160, batch_size=50)
"""Twenty epochs of eight steps."""


def flat(params) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def test_training_raises_the_bound_on_known_and_on_new_data():
    params, history = fit(curved_sheet(), key=KEY, x_test=curved_sheet(seed=1))
    assert len(history.elbo_train) == len(history.elbo_test) == 20
    assert history.elbo_test[-1] > history.elbo_test[0] + 1
    assert history.elbo_train[-1] > history.elbo_train[0] + 1
    new = jnp.asarray(curved_sheet(seed=1), jnp.float32)

    def bound(params):
        parts = elbo(SMALL, params, new)
        return float(jnp.mean(parts.log_likelihood - jnp.sum(parts.kl, axis=-1)))

    assert bound(params) > bound(SMALL.init(KEY)) + 1


def test_training_follows_from_its_key():
    x = curved_sheet()
    first, again, other = (fit(x, key=jax.random.key(seed))[0] for seed in (0, 0, 1))
    assert np.array_equal(flat(first), flat(again))
    assert not np.array_equal(flat(first), flat(other))


def test_the_best_epoch_is_returned_and_training_stops_when_it_is_past():
    # new data of another kind: the bound falls as soon as the noise scale shrinks
    foreign = 3 * np.random.default_rng(0).normal(size=(100, 6))
    params, history = fit(curved_sheet(), key=KEY, x_test=foreign, num_steps=100 * 8)
    best = int(np.argmax(history.elbo_test))
    assert best < len(history.elbo_test) - 1 < 99
    drawn = jax.random.fold_in(KEY, 0)
    parts = elbo(SMALL, params, jnp.asarray(foreign, jnp.float32), drawn)
    bound = jnp.mean(parts.log_likelihood - jnp.sum(parts.kl, axis=-1))
    assert_close(bound, history.elbo_test[best], 1e-5)


def test_training_again_compiles_nothing():
    x, x_test = curved_sheet(), curved_sheet(seed=1)
    once = partial(fit, x, x_test=x_test, num_steps=16)
    once(key=KEY)
    module = sys.modules["jaxvae_md.vae.train"]
    before = module._epoch._cache_size(), module._mean_parts._cache_size()
    once(key=jax.random.key(1))
    after = module._epoch._cache_size(), module._mean_parts._cache_size()
    assert after == before


def test_data_that_are_not_finite_are_an_error():
    x = curved_sheet()
    x[7, 3] = np.nan
    with pytest.raises(errors.InputError, match="x is not finite in 1 of 400") as caught:
        fit(x, key=KEY)
    assert caught.value.atom == 7
    with pytest.raises(errors.InputError, match="takes 6 columns"):
        fit(curved_sheet()[:, :5], key=KEY)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    x, place = curved_sheet(), tmp_path / "vae"
    whole, history = fit(x, key=KEY, x_test=curved_sheet(seed=1))

    again = partial(fit, x, key=KEY, x_test=curved_sheet(seed=1), checkpoint=place)
    module = sys.modules["jaxvae_md.vae.train"]
    epochs = []
    epoch = module._epoch

    def counted(*args):
        epochs.append(1)
        if len(epochs) == 13:
            raise KeyboardInterrupt
        return epoch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_epoch", counted)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert place.is_dir()
    with pytest.raises(errors.OptionError, match="another training"):
        again(key=jax.random.key(5))
    params, resumed = again()
    assert np.array_equal(flat(params), flat(whole))
    assert np.array_equal(resumed.elbo_test, history.elbo_test)
    assert np.array_equal(resumed.kl, history.kl)
    assert not place.exists()


def test_a_smaller_weight_of_the_divergence_lets_it_grow():
    kl = [fit(curved_sheet(), key=KEY, beta=beta)[1].kl[-1].sum() for beta in (0.1, 1.0, 10.0)]
    assert kl[0] > kl[1] > kl[2]


def test_refined_codes_reconstruct_better_and_have_a_slope():
    x = curved_sheet()
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), fit(x, key=KEY)[0])
    code = SMALL.encode(params, jnp.asarray(x))[0]
    missing = lambda code: float(jnp.mean((SMALL.decode(params, code) - x) ** 2))
    refined = refine(SMALL, params, jnp.asarray(x), code)
    assert missing(refined) < missing(code)
    assert missing(refine(SMALL, params, jnp.asarray(x), code, 3)) <= missing(refined) + 1e-9
    some = lambda x: jnp.sum(
        refine(SMALL, params, x, SMALL.encode(params, x)[0]) * jnp.array([1.0, -2.0])
    )
    assert_gradient(some, x[:3], max_directions=4)


def test_the_report_is_that_of_the_reconstructions():
    x, new = curved_sheet(), curved_sheet(seed=1)
    params, _ = fit(x, key=KEY)
    report = reconstruction_report(SMALL, params, x, new)
    assert_close(report.r2, reconstruction_r2(new, report.by_vae), 1e-12)
    assert_close(report.r2_pca, reconstruction_r2(new, pca_reconstruction(x, new, 2)[0]), 1e-12)
    assert report.kl.shape == (2,)
    refined = reconstruction_report(SMALL, params, x, new, num_refinements=1)
    assert refined.r2.mean() > report.r2.mean()


def test_fewer_environments_than_a_batch_are_enough():
    params, history = fit(curved_sheet(num=30), key=KEY, num_steps=3)
    assert np.isfinite(flat(params)).all()
    assert np.isfinite(history.elbo_train).all()


def test_shapes_and_precision_of_codes():
    params = SMALL.init(KEY)
    for dtype in (jnp.float32, jnp.float64):
        cast = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
        mean, log_variance = SMALL.encode(cast, jnp.ones((5, 4, 6), dtype))
        assert mean.shape == log_variance.shape == (5, 4, 2)
        assert SMALL.decode(cast, mean).shape == (5, 4, 6)
        assert mean.dtype == log_variance.dtype == SMALL.decode(cast, mean).dtype == dtype


def test_bound_is_that_of_the_paper():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), SMALL.init(KEY))
    params["log_noise"] = jnp.asarray(-0.7)
    x = jnp.asarray(curved_sheet(num=3))
    mean, log_variance = map(np.asarray, SMALL.encode(params, x))
    parts = elbo(SMALL, params, x)
    difference = np.asarray(x - SMALL.decode(params, mean)) / np.exp(-0.7)
    density = -0.5 * difference**2 + 0.7 - 0.5 * np.log(2 * np.pi)
    assert_close(parts.log_likelihood, density.sum(axis=1), 1e-12)
    variance = np.exp(log_variance)
    assert_close(parts.kl, 0.5 * (variance + mean**2 - 1 - np.log(variance)), 1e-12)


def test_divergence_is_that_of_the_drawn_codes():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), SMALL.init(KEY))
    x = jnp.asarray(curved_sheet(num=2))
    drawn = [elbo(SMALL, params, x, jax.random.key(seed)) for seed in range(2)]
    assert np.array_equal(drawn[0].kl, drawn[1].kl)
    assert not np.array_equal(drawn[0].log_likelihood, drawn[1].log_likelihood)


def test_bound_by_parameters_and_data():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), SMALL.init(KEY))

    def loss(at):
        parts = elbo(SMALL, at["params"], at["x"], KEY)
        return jnp.mean(parts.log_likelihood - jnp.sum(parts.kl, axis=-1))

    assert_gradient(loss, {"params": params, "x": curved_sheet(num=4)}, max_directions=4)


def test_r2_is_one_minus_the_unexplained_variance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1.0, 5.0, 0.1]
    guess = x + rng.normal(size=x.shape) * [0.0, 2.0, 0.3]
    expected = 1 - np.mean((x - guess) ** 2, axis=0) / np.var(x, axis=0)
    assert_close(reconstruction_r2(x, guess), expected, 1e-12)
    assert reconstruction_r2(x, guess)[0] == 1
    assert_close(reconstruction_r2(x, np.broadcast_to(x.mean(axis=0), x.shape)), np.zeros(3), 1e-12)


def test_active_dimensions_are_those_with_information():
    kl = np.array([[0.0, 0.06, 1.0, 0.2], [0.0, 0.06, 3.0, 0.0]])
    assert active_dims(kl) == 3
    assert active_dims(kl, threshold=0.08) == 2
    assert active_dims(kl, threshold=5.0) == 0


def test_pca_is_the_best_linear_reconstruction():
    x, x_new = curved_sheet() + 2.0, curved_sheet(seed=1, num=50)
    mean = x.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(x.T))
    top = vectors[:, np.argsort(eigenvalues)[::-1][:3]]
    back, scores = pca_reconstruction(x, x_new, 3)
    assert_close(back, (x_new - mean) @ top @ top.T + mean, 1e-10)
    assert_close(np.abs(scores), np.abs((x_new - mean) @ top), 1e-10)
    assert_close(pca_reconstruction(x, x_new, 6)[0], x_new, 1e-12)


@pytest.mark.slow
def test_on_silicon_every_dimension_is_active_and_the_vae_beats_pca():
    frames = datasets.silicon()
    train_frames, test_frames = split(frames, 0.1, 0)
    x = describe(frames, chebyshev(("Si",), 6.0, 12, 6.0, 12))
    known, new = (np.concatenate([x[i] for i in part]) for part in (train_frames, test_frames))
    standardizer = fit_standardizer(known)
    known, new = (np.asarray(standardizer.apply(part), np.float32) for part in (known, new))
    model = vae(26, 8)
    params, _ = train(model, known, key=KEY, x_test=new, num_steps=2000)
    back = model.decode(params, model.encode(params, jnp.asarray(new))[0])
    r2 = reconstruction_r2(new, back).mean()
    by_pca = reconstruction_r2(new, pca_reconstruction(known, new, 8)[0]).mean()
    assert active_dims(elbo(model, params, jnp.asarray(new)).kl) == 8
    assert r2 > 0.95
    assert r2 > by_pca
