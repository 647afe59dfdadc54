"""What a label would change, against fits that have it, and the ascent of latent points."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxvae_md import fit
from jaxvae_md.batching import batches
from jaxvae_md.descriptors import Standardizer, chebyshev
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import chebyshev_nn, compose, energy_and_forces, lennard_jones
from tests import systems
from tests.argon import ARGON, CUTOFF, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient
from tests.tiers import some_slow

KEY = jax.random.key(0)
TRUTH = lennard_jones(("Ar",), CUTOFF, 3.42, 0.0108, "shift")


MODELS = some_slow(["lennard_jones", "network"], "lennard_jones")


def prepared(potential, seeds, rattle=0.15, size=1.0):
    """Distorted crystals with labels of a potential that ours cannot be."""
    frames = []
    for seed in seeds:
        structure = crystal((1, 1, 1))
        noise = np.random.default_rng(seed).normal(0, rattle, structure.position.shape)
        scale = size * (1 + 0.01 * (seed % 3))
        frames.append(systems.make(scale * structure.position + noise, scale * structure.cell))
    allocate = neighbor_list(CUTOFF).allocate
    found = [energy_and_forces(TRUTH.energy, TRUTH.init(None), s, allocate(s)) for s in frames]
    labels = np.array([float(e) for e, _ in found]), [np.asarray(f) for _, f in found]
    return fit.prepare(potential, batches(frames, CUTOFF, 1), *labels)


@cache
def setting(name: str):
    """A potential, its parameters, frames of a fit, held-out frames, one more frame, and terms."""
    if name == "lennard_jones":
        potential, params = ARGON, PARAMS
    else:
        descriptor = chebyshev(("Ar",), CUTOFF, 3, CUTOFF, 2)
        scale = Standardizer(np.zeros(descriptor.num_features), np.full(descriptor.num_features, 5))
        network = chebyshev_nn(descriptor, scale, hidden=(3,))
        potential = compose(core=ARGON, network=network)
        params = jax.tree.map(lambda a: jnp.asarray(a, float), potential.init(KEY))
    data, held_out = prepared(potential, range(6)), prepared(potential, range(10, 14), 0.25, 1.02)
    more = prepared(potential, [20], 0.4)
    return potential, params, data, held_out, more, fit.terms_of(data, 3.0, 0.0)


def mean_loss(potential, flat, unravel, parts, terms):
    of_frame = lambda one: jnp.sum(fit.residuals(potential, unravel(flat), one, terms) ** 2)
    return jnp.mean(jnp.concatenate([jax.vmap(of_frame)(part) for part in parts]))


def minimum(loss, flat, scale):
    """By Newton's method."""
    step = jax.jit(lambda x: x - scale * jnp.linalg.solve(*curvature(loss, x, scale)))
    for _ in range(30):
        flat = step(flat)
    return flat


def curvature(loss, x, scale):
    scaled = lambda y: loss(scale * y)
    return jax.hessian(scaled)(x / scale), jax.grad(scaled)(x / scale)


@pytest.mark.slow
def test_a_label_changes_the_held_out_error_as_predicted():
    potential, params, data, held_out, more, terms = setting("lennard_jones")
    flat, unravel = ravel_pytree(params)
    scale, of = jnp.abs(flat), partial(mean_loss, potential)
    fitted = minimum(lambda x: of(x, unravel, data, terms), flat, scale)
    num = len(data[0].energy)

    def after(weight):
        """The held-out error of a fit that counts the further frame so much."""
        joint = lambda x: of(x, unravel, data, terms) + weight / num * of(x, unravel, more, terms)
        return of(minimum(joint, fitted, scale), unravel, held_out, terms)

    measured = num * (after(1e-3) - after(-1e-3)) / 2e-3
    options = {"damping": 1e-12}
    direction = fit.held_out_direction(potential, unravel(fitted), data, held_out, terms, **options)
    (frame,) = [jax.tree.map(lambda leaf: leaf[0], part) for part in more]
    structure, neighbors = frame.features
    found = fit.answer(potential, unravel(fitted), direction, structure, neighbors)
    e, f, _ = potential.predict(unravel(fitted), frame.features)
    change = fit.predicted_change(found, terms, frame.mask, e - frame.energy, f - frame.forces)
    # the Gauss-Newton matrix leaves out how the residuals bend
    assert_close(change, measured, 0.1)
    assert abs(float(change)) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lennard_jones", "network"])
def test_the_direction_solves_the_normal_equations(name):
    potential, params, data, held_out, _, terms = setting(name)
    flat, unravel = ravel_pytree(params)
    sizes = [np.full(np.shape(p), np.sqrt(np.mean(p**2)) or 1.0) for p in jax.tree.leaves(params)]
    size = np.concatenate([s.ravel() for s in sizes])

    def all_residuals(x):
        one = lambda frame: fit.residuals(potential, unravel(size * x), frame, terms)
        return jnp.concatenate([jax.vmap(one)(part).reshape(-1) for part in data])

    jacobian = np.asarray(jax.jacfwd(all_residuals)(flat / size))
    matrix = 2 * jacobian.T @ jacobian / len(data[0].energy)
    slope = jax.grad(lambda x: mean_loss(potential, size * x, unravel, held_out, terms))
    matrix += 1e-2 * np.linalg.eigvalsh(matrix)[-1] * np.eye(len(size))
    expected = size * np.linalg.solve(matrix, slope(flat / size))
    found = fit.held_out_direction(potential, params, data, held_out, terms, damping=1e-2)
    assert_close(ravel_pytree(found)[0], expected, 1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_influence_is_that_of_labels_of_unit_error_and_has_a_slope(name):
    potential, params, data, held_out, _, terms = setting(name)
    direction = fit.held_out_direction(potential, params, data, held_out, terms, damping=1e-2)
    structure = crystal((1, 1, 1), rattle=0.3)
    neighbors = neighbor_list(CUTOFF, 0.5).allocate(structure)
    found = jax.jit(partial(fit.answer, potential))(params, direction, structure, neighbors)
    both = lambda p: energy_and_forces(potential.energy, p, structure, neighbors)
    step = lambda t: jax.tree.map(lambda p, d: p + t * d, params, direction)
    unit = 1e-4 / np.max(np.abs(ravel_pytree(direction)[0]))
    for mine, plus, minus in zip(found, both(step(unit)), both(step(-unit)), strict=True):
        assert_close(mine, (plus - minus) / (2 * unit), 1e-5)
    changes = np.append(terms.energy / 4 * found.energy, terms.forces / 12**0.5 * found.forces)
    value = fit.influence(found, terms, structure.mask)
    assert_close(value, 2 * np.linalg.norm(changes), 1e-9)

    def of_position(x):
        moved = structure._replace(position=x)
        answer = fit.answer(potential, params, direction, moved, neighbors)
        return fit.influence(answer, terms, moved.mask) / value

    assert_gradient(of_position, structure.position, rtol=1e-5)


def test_points_climb_within_their_radius_and_past_no_error():
    def value_fn(z, start):
        value = -jnp.sum((z - start) ** 2)
        return value, jnp.where(z[0] > 0.5, 1, 0)

    z = jnp.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    starts = jnp.array([[0.2, 0.3], [-3.0, 0.0], [2.0, 0.0], [2.5, 0.0]])
    ascent = jax.jit(partial(fit.ascend, value_fn, num_steps=40))(z, starts)
    assert_close(ascent.z[0], starts[0], 1e-3)
    assert_close(ascent.z[1], np.array([-1.0, 0.0]), 1e-9)
    assert 0.45 < float(ascent.z[2, 0]) <= 0.5
    assert (ascent.z[3] == z[3]).all()
    assert (np.asarray(ascent.error) == [0, 0, 0, 1]).all()
    assert (ascent.value[:3] > ascent.start[:3]).all()
