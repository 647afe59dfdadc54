import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import errors
from jaxvae_md.implicit import extreme_eigenvalues, minimize
from tests.asserts import assert_close, assert_gradient


def rosenbrock(x, a):
    return jnp.sum((a - x[:-1]) ** 2 + 5.0 * (x[1:] - x[:-1] ** 2) ** 2)


def spd(size: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(size, size))
    return a @ a.T + np.eye(size)


def test_minimum_of_a_quadratic_is_the_solution():
    matrix, b = spd(6), np.arange(6.0)
    result = minimize(lambda x, b: 0.5 * x @ matrix @ x - b @ x, jnp.zeros(6), b)
    assert_close(result.x, np.linalg.solve(matrix, b), 1e-8)
    assert int(result.error) == 0
    assert 0 < int(result.num_steps) < 50
    assert float(result.gradient_norm) <= 1e-8


def test_derivative_of_a_quadratics_minimum_is_the_inverse():
    matrix = spd(6)
    solve = lambda b: minimize(lambda x, b: 0.5 * x @ matrix @ x - b @ x, jnp.zeros(6), b).x
    assert_close(jax.jacrev(solve)(jnp.arange(6.0)), np.linalg.inv(matrix), 1e-10)


def test_minimum_of_a_curved_valley():
    result = minimize(rosenbrock, jnp.full(3, -0.5), 1.0)
    assert_close(result.x, np.ones(3), 1e-7)
    assert int(result.error) == 0


def test_derivative_of_a_curved_valleys_minimum():
    # the minimum of the first term moves with a, that of the others follows
    weights = jnp.array([1.0, -2.0, 0.5])
    loss = lambda a: weights @ minimize(rosenbrock, jnp.full(3, 0.5), a, tolerance=1e-12).x
    assert_gradient(loss, 1.1)


def test_derivative_by_a_tree_of_arguments_of_any_shape():
    def objective(x, args):
        return jnp.sum(jnp.cosh(x - args["center"]) + args["slope"] * x)

    def loss(args):
        x = minimize(objective, jnp.zeros((2, 3)), args, tolerance=1e-12).x
        return jnp.sum(x**2 * jnp.arange(6.0).reshape(2, 3))

    center = np.random.default_rng(0).normal(size=(2, 3))
    assert_gradient(loss, {"center": center, "slope": np.array(0.3)})


def test_values_that_the_objective_closes_over_are_differentiated():
    def loss(a):
        x = minimize(lambda x, _: jnp.sum((x**2 - a) ** 2), jnp.ones(3), None, tolerance=1e-12).x
        return jnp.sum(x)

    assert_close(jax.grad(loss)(jnp.full(3, 2.0)), np.full(3, 0.5 / 2**0.5), 1e-8)


def test_start_carries_no_gradient_and_does_not_matter():
    loss = lambda start: jnp.sum(minimize(rosenbrock, start, 1.0, tolerance=1e-10).x)
    starts = jnp.array([[0.5, 0.5], [1.5, 2.0]])
    assert_close(loss(starts[0]), loss(starts[1]), 1e-8)
    assert (jax.grad(loss)(starts[0]) == 0).all()


def test_vmap_minimises_each_and_differentiates_each():
    objective = lambda x, a: jnp.sum((x**2 - a) ** 2)
    a = jnp.array([1.0, 2.0, 9.0])
    root = lambda a: minimize(objective, jnp.ones(2), jnp.full(2, a))
    together = jax.vmap(root)(a)
    assert_close(together.x[:, 0], np.sqrt(a), 1e-7)
    assert (together.error == 0).all()
    slope = jax.vmap(jax.grad(lambda a: root(a).x[0]))(a)
    assert_close(slope, 0.5 / np.sqrt(a), 1e-7)


def test_vmap_keeps_a_bad_member_to_itself():
    root = lambda a: minimize(lambda x, a: jnp.sum((x**2 - a) ** 2), jnp.ones(2), a)
    both = jax.vmap(root)(jnp.array([jnp.nan, 2.0]))
    assert int(both.error[0]) & errors.NOT_FINITE
    assert int(both.error[1]) == 0
    assert_close(both.x[1], np.full(2, 2**0.5), 1e-7)


def test_too_few_steps_do_not_converge():
    few = minimize(rosenbrock, jnp.full(3, -0.5), 1.0, max_steps=3)
    assert int(few.error) & errors.NOT_CONVERGED
    assert int(few.num_steps) == 3


def test_a_start_at_the_minimum_is_converged():
    result = minimize(lambda x, a: jnp.sum((x - a) ** 2), jnp.ones(3), jnp.ones(3))
    assert int(result.error) == 0
    assert (result.x == 1).all()


def test_what_is_not_finite_is_said():
    result = minimize(lambda x, a: jnp.sum(jnp.sqrt(x) + a), jnp.full(3, -1.0), 1.0)
    assert int(result.error) & errors.NOT_FINITE
    assert int(result.error) & errors.NOT_CONVERGED


def test_a_flat_direction_is_ill_conditioned():
    flat = minimize(lambda x, a: (x[0] - a) ** 2 + 0 * x[1], jnp.zeros(2), 1.0)
    assert int(flat.error) == errors.ILL_CONDITIONED


def test_a_derivative_that_is_not_determined_is_not_a_number():
    objective = lambda x, a: (x[0] - a) ** 2 + 0 * x[1]
    slope = jax.jacrev(lambda a: minimize(objective, jnp.zeros(2), a).x)(1.0)
    assert_close(slope[0], 1.0, 1e-10)
    assert np.isnan(slope[1])


def test_a_saddle_is_ill_conditioned():
    saddle = minimize(lambda x, a: a * (x[0] ** 2 - x[1] ** 2), jnp.zeros(2), 1.0)
    assert int(saddle.error) == errors.ILL_CONDITIONED


def test_condition_beyond_the_limit_is_ill_conditioned():
    objective = lambda x, a: x[0] ** 2 + a * x[1] ** 2
    for limit, expected in ((1e3, errors.ILL_CONDITIONED), (1e5, 0)):
        result = minimize(objective, jnp.zeros(2), 1e-4, max_condition=limit)
        assert int(result.error) == expected


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_damping_biases_the_derivative_by_stiffness_over_stiffness_and_damping(damping):
    stiffness = jnp.array([1.0, 4.0])
    objective = lambda x, a: 0.5 * jnp.sum(stiffness * (x - a) ** 2)
    solve = lambda a: minimize(objective, jnp.zeros(2), a, damping=damping).x
    expected = np.diag(stiffness / (stiffness + damping))
    assert_close(jax.jacrev(solve)(jnp.ones(2)), expected, 1e-10)
    assert_close(solve(jnp.ones(2)), np.ones(2), 1e-8)


def test_damping_keeps_a_flat_direction_finite():
    objective = lambda x, a: (x[0] - a) ** 2 + 0 * x[1]
    result = minimize(objective, jnp.zeros(2), 1.0, damping=1e-3)
    assert int(result.error) == 0
    slope = jax.jacrev(lambda a: minimize(objective, jnp.zeros(2), a, damping=1e-3).x)(1.0)
    assert_close(slope, [2 / 2.001, 0.0], 1e-10)


SPECTRA = {
    "one": [3.0],
    "one negative": [-2.0],
    "zero": [0.0, 0.0, 0.0],
    "identity": [1.0] * 7,
    "two values": [1.0] * 5 + [6.0] * 5,
    "plus and minus": [-1.0] * 4 + [1.0] * 4,
    "one negative of many": [-0.5] + [1.0] * 29,
    "saddle": [-1.0, 1e-3, 2.0],
    "flat": [0.0, 1.0, 5.0],
    "wide": list(np.geomspace(1e-6, 1e6, 12)),
    "large": list(np.linspace(0.1, 4.0, 40)),
    "huge numbers": [1e12, 3e12, 3e12],
    "tiny numbers": [1e-12, 3e-12, 3e-12],
}


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_extreme_eigenvalues_are_those_of_numpy(spectrum):
    spectrum = np.array(spectrum)
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(len(spectrum),) * 2))
    matrix = q @ np.diag(spectrum) @ q.T
    expected = np.linalg.eigvalsh(matrix)[[0, -1]]
    found = jax.jit(lambda: extreme_eigenvalues(lambda v: matrix @ v, jnp.zeros(len(spectrum))))()
    assert_close(np.array(found), expected, 1e-9)


def test_extreme_eigenvalues_of_an_operator_on_an_array():
    low, high = extreme_eigenvalues(lambda v: 2 * v, jnp.zeros((4, 3)))
    assert_close([low, high], [2.0, 2.0], 1e-12)


def test_extreme_eigenvalues_of_a_large_operator_lie_within_its_spectrum():
    spectrum = np.linspace(1.0, 10.0, 400)
    low, high = extreme_eigenvalues(lambda v: spectrum * v, jnp.zeros(400))
    assert 1.0 <= low < 1.1
    assert 9.9 < high <= 10.0


def test_a_single_negative_direction_of_a_large_operator_is_found():
    spectrum = np.concatenate([[-0.1], np.linspace(1.0, 10.0, 399)])
    low, _ = extreme_eigenvalues(lambda v: spectrum * v, jnp.zeros(400))
    assert low < 0
