"""Derivatives of Chebyshev descriptors in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import chebyshev
from jaxvae_md.neighbors import displacements, neighbor_list
from jaxvae_md.structure import pad
from tests import systems
from tests.asserts import assert_close, assert_gradient

SETTING = (5.0, 5, 4.0, 4)


def descriptor_of(structure):
    return chebyshev(systems.SIO2 if structure.species.any() else systems.SI, *SETTING)


@pytest.mark.parametrize("make", [systems.triclinic, systems.slab, systems.sio2])
def test_gradient_by_position_and_strain_equals_finite_differences(make):
    structure = make()
    descriptor = descriptor_of(structure)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure, extra=1.2)
    w = np.random.default_rng(0).normal(size=(len(structure.mask), descriptor.num_features))

    def weighted(at):
        deformation = jnp.eye(3) + at["strain"]
        strained = structure._replace(
            position=at["position"] @ deformation, cell=structure.cell @ deformation
        )
        return jnp.sum(w * descriptor(strained, neighbors))

    assert_gradient(weighted, {"position": structure.position, "strain": np.zeros((3, 3))})


def test_second_derivative_equals_finite_differences():
    structure = systems.bcc()
    descriptor = chebyshev(systems.SI, 3.0, 3, 3.0, 3)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    w = np.random.default_rng(0).normal(size=(2, descriptor.num_features))

    def weighted(position):
        return jnp.sum(w * descriptor(structure._replace(position=position), neighbors))

    assert_gradient(lambda p: jnp.sum(jax.grad(weighted)(p) ** 2), structure.position)


def test_linearise_equals_the_jacobian_by_displacement():
    structure = systems.sio2()
    descriptor = descriptor_of(structure)
    forward = replace(descriptor, forward_mode=True)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)

    @jax.jit
    def both(structure):
        values, derivative = descriptor.linearise(structure, neighbors)
        # only the displacements depend on the positions, so these two must agree
        tangent = np.random.default_rng(0).normal(size=(9, 3))
        move = lambda p: structure._replace(position=p)
        _, by_position = jax.jvp(
            lambda p: forward(move(p), neighbors), (structure.position,), (tangent,)
        )
        _, moved = jax.jvp(
            lambda p: displacements(move(p), neighbors), (structure.position,), (tangent,)
        )
        return values, jnp.einsum("nfkc,nkc->nf", derivative, moved), by_position

    values, chained, by_position = both(jax.tree.map(jnp.asarray, structure))
    assert_close(values, jax.jit(descriptor)(structure, neighbors), 1e-13)
    assert_close(chained, by_position, 1e-12)


@pytest.mark.slow
def test_the_rule_and_its_twin_have_the_same_values_and_derivatives():
    structure = jax.tree.map(jnp.asarray, systems.sio2())
    descriptor = chebyshev(systems.SIO2, 4.0, 3, 3.5, 3)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure, extra=1.2)
    vector = displacements(structure, neighbors)
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.normal(size=vector.shape[:2]))
    cotangent = rng.normal(size=(len(vector), descriptor.num_features))
    direction = jnp.asarray(rng.normal(size=vector.shape))

    # unoptimised: compiling is what this test spends its time on
    @partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    def everything(descriptor, vector):
        """Values, derivatives, products with the Hessian both ways, and derivatives by vmap."""
        scalar = lambda v, w: jnp.sum(cotangent * descriptor.of_environments(v, w))
        slope = lambda v: jax.grad(scalar)(v, weight)
        return {
            "values": descriptor.of_environments(vector, weight),
            "gradient": jax.grad(scalar, argnums=(0, 1))(vector, weight),
            "forward over reverse": jax.jvp(slope, (vector,), (direction,))[1],
            "reverse over reverse": jax.grad(lambda v: jnp.sum(direction * slope(v)))(vector),
            "vmap": jax.vmap(slope)(jnp.stack([vector, 1.01 * vector])),
        }

    forward = replace(descriptor, forward_mode=True)
    with_rule, twin = everything(descriptor, vector), everything(forward, vector)
    for name in twin:
        for one, other in zip(*map(jax.tree.leaves, (with_rule[name], twin[name])), strict=True):
            assert_close(one, other, 1e-12)
    product = with_rule["forward over reverse"]
    assert_close(product, with_rule["reverse over reverse"], 1e-12)


def test_only_the_twin_has_a_forward_mode():
    structure = systems.si8()
    descriptor = chebyshev(systems.SI, 3.0, 1, 3.0, 1)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    at = lambda descriptor: lambda p: descriptor(structure._replace(position=p), neighbors)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(at(descriptor), (structure.position,), (structure.position,))
    forward = jax.jit(at(replace(descriptor, forward_mode=True)))
    direction = np.random.default_rng(0).normal(size=(8, 3))
    _, tangent = jax.jvp(forward, (structure.position,), (direction,))
    step = 1e-5 * direction
    ends = [forward(structure.position + sign * step) for sign in (1, -1)]
    assert_close(tangent, (ends[0] - ends[1]) / 2e-5, 1e-8)


def test_cotangents_have_the_types_of_what_they_belong_to():
    descriptor = chebyshev(systems.SIO2, 3.0, 2, 3.0, 2)
    vector, weight = jnp.ones((1, 2, 3), jnp.float32), jnp.ones((1, 2), jnp.float64)
    scalar = lambda v, w: jnp.sum(descriptor.of_environments(v, w))
    by_vector, by_weight = jax.grad(scalar, argnums=(0, 1))(vector, weight)
    assert (by_vector.dtype, by_weight.dtype) == (jnp.float32, jnp.float64)


def test_no_environments_have_no_descriptors():
    descriptor = chebyshev(systems.SI, 3.0, 2, 3.0, 2)
    for shape in ((0, 4, 3), (2, 0, 4, 3), (3, 0, 3)):
        x = descriptor.of_environments(jnp.zeros(shape), jnp.zeros(shape[:-1]))
        assert x.shape == (*shape[:-2], 6)
        assert not x.any()


def test_many_environments_are_those_of_few():
    rng = np.random.default_rng(0)
    structure = systems.make(
        rng.uniform(0, 11, size=(70, 3)), 11 * np.eye(3), species=rng.integers(2, size=70)
    )
    position = structure.position
    descriptor = chebyshev(systems.SIO2, 4.0, 2, 4.0, 2)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    cotangent = np.random.default_rng(1).normal(size=(70, descriptor.num_features))

    @partial(jax.jit, static_argnums=0)
    def both(parts, position):
        moved = structure._replace(position=position)
        some = lambda p: jnp.concatenate(
            [descriptor.at(moved._replace(position=p), neighbors, np.arange(*ab)) for ab in parts]
        )
        x, pull = jax.vjp(some, position)
        return x, pull(cotangent)[0]

    whole, halves = (both(parts, position) for parts in (((0, 70),), ((0, 35), (35, 70))))
    for one, other in zip(whole, halves, strict=True):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize("direction", np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 2, -2]]))
def test_gradient_of_collinear_atoms_is_right_on_and_off_the_axes(direction):
    """Angles of 0 and 180 degrees, where arccos is singular; poles of the harmonics."""
    u = direction / np.linalg.norm(direction)
    structure = systems.make(np.outer([0.0, 1.5, 3.2, -1.7], u), np.eye(3), pbc=False)
    descriptor = chebyshev(systems.SI, *SETTING)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure, extra=2.0)
    w = np.random.default_rng(0).normal(size=(4, descriptor.num_features))
    f = lambda p: jnp.sum(w * descriptor(structure._replace(position=p), neighbors))
    assert_gradient(f, structure.position)


def test_padding_atoms_get_no_gradient_and_change_none():
    structure = systems.triclinic()
    padded = pad(structure, 6)
    descriptor = descriptor_of(structure)
    fns = neighbor_list(descriptor.cutoff)
    w = np.random.default_rng(0).normal(size=(6, descriptor.num_features))

    @jax.jit
    def gradient(structure, neighbors, w):
        f = lambda p: jnp.sum(w * descriptor(structure._replace(position=p), neighbors))
        return jax.grad(f)(structure.position)

    exact = gradient(structure, fns.allocate(structure), w[:4])
    after = gradient(padded, fns.allocate(padded, extra=1.5), w)
    assert (after[4:] == 0).all()
    assert_close(after[:4], exact, 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_at_and_beyond_the_cutoff_is_zero(dtype):
    descriptor = chebyshev(systems.SI, 3.0, 6, 3.0, 6)

    @jax.jit
    @jax.value_and_grad
    def total(v):
        return jnp.sum(descriptor.of_environments(v, jnp.ones(2, dtype)))

    vector = jnp.asarray([[3.0, 0, 0], [0, 0, 3.0 + 1e-6]], dtype)
    value, gradient = total(vector)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    "make", [systems.si8, lambda: pad(systems.repeated(systems.sio2(), (2, 2, 2)), 77)]
)
def test_the_total_of_a_function_of_descriptors_has_every_derivative(make):
    """By arguments, positions and both: what forces, fits and fits to forces need."""
    structure = make()
    descriptor = descriptor_of(structure)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    fn = lambda a, x, species: jnp.tanh(x @ a) * (1 + species)
    args = 0.1 * jax.random.normal(jax.random.key(0), (descriptor.num_features,))
    move = jax.random.normal(jax.random.key(1), structure.position.shape)
    move = move * structure.mask[:, None]

    def total(args, position):
        return descriptor.total(fn, args, structure._replace(position=position), neighbors)

    def plain(args, position):
        x = descriptor(structure._replace(position=position), neighbors)
        return jnp.sum(jnp.where(structure.mask, fn(args, x, structure.species), 0))

    at = (args, jnp.asarray(structure.position))
    assert_close(total(*at), plain(*at), 1e-12)
    for argnum in (0, 1):
        found, expected = (jax.grad(f, argnums=argnum)(*at) for f in (total, plain))
        assert_close(found, expected, 1e-11)
    along = lambda f: lambda args, position: jnp.vdot(jax.grad(f, argnums=1)(args, position), move)
    for argnum in (0, 1):
        found, expected = (jax.grad(along(f), argnums=argnum)(*at) for f in (total, plain))
        assert_close(found, expected, 1e-10)
    # forward over reverse: a product with the Hessian
    product = lambda f: jax.jvp(lambda p: jax.grad(f, argnums=1)(args, p), at[1:], (move,))[1]
    assert_close(product(total), product(plain), 1e-10)
    assert_gradient(lambda at: total(*at), at)
