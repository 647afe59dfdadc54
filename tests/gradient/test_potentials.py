"""Derivatives of potentials in float64, by positions, cell and every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import Standardizer, chebyshev
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import (
    chebyshev_nn,
    energy_and_forces,
    lennard_jones,
    pair_energy,
    stillinger_weber,
)
from jaxvae_md.structure import pad
from tests import systems
from tests.asserts import assert_close, assert_gradient

CUTOFF = 6.0
SIGMA = np.array([[3.4, 3.1], [3.1, 2.8]])
EPSILON = np.array([[1.0, 1.3], [1.3, 0.6]])


def argon(num_species: int, **options):
    """Lennard-Jones in a cell of 5.3 angstrom, smaller than the cutoff."""
    structure = systems.fcc(num_species)
    table = slice(0, num_species)
    potential = lennard_jones(
        ("Ar", "Ne")[:num_species], CUTOFF, SIGMA[table, table], EPSILON[table, table], **options
    )
    assert structure.cell[0, 0] < CUTOFF
    return structure, potential, neighbor_list(CUTOFF).allocate(structure, extra=1.2)


def force_loss(energy, structure, neighbors):
    """Squared deviation of the forces from arbitrary ones, as a function of the parameters."""
    target = np.random.default_rng(3).normal(size=structure.position.shape)

    def loss(params):
        _, forces = energy_and_forces(energy, params, structure, neighbors)
        return jnp.mean(jnp.where(structure.mask[:, None], forces - target, 0) ** 2)

    return loss


def energy_of(potential, structure, neighbors):
    def energy(at):
        moved = structure._replace(position=at["position"], cell=at["cell"])
        return potential.energy(at["params"], moved, neighbors)

    return energy


@pytest.mark.parametrize("num_species", [1, 2])
def test_lennard_jones_by_position_cell_sigma_and_epsilon(num_species):
    structure, lj, neighbors = argon(num_species)
    at = {"position": structure.position, "cell": structure.cell, "params": lj.init(None)}
    assert_gradient(energy_of(lj, structure, neighbors), at)


@pytest.mark.parametrize("num_species", [1, 2])
def test_force_loss_of_lennard_jones_by_sigma_and_epsilon(num_species):
    structure, lj, neighbors = argon(num_species)
    assert_gradient(force_loss(lj.energy, structure, neighbors), lj.init(None))


WITHOUT_TAIL = {"switch": {"scheme": "switch"}, "shift": {"scheme": "shift"}}


@pytest.mark.parametrize("options", WITHOUT_TAIL.values(), ids=WITHOUT_TAIL)
def test_every_scheme_of_lennard_jones_to_second_order(options):
    structure, lj, neighbors = argon(2, **options)
    at = {"position": structure.position, "cell": structure.cell, "params": lj.init(None)}
    energy = energy_of(lj, structure, neighbors)
    assert_gradient(energy, at, max_directions=4)
    assert_gradient(along_a_direction(energy, at), at, max_directions=4)


def test_lennard_jones_with_its_tail_to_second_order():
    # not by the cell: that derivative is defined to be the pressure's
    structure, lj, neighbors = argon(2, scheme="cut", tail=True)
    energy = lambda at: energy_of(lj, structure, neighbors)(at | {"cell": structure.cell})
    at = {"position": structure.position, "params": lj.init(None)}
    assert_gradient(energy, at, max_directions=4)
    assert_gradient(along_a_direction(energy, at), at, max_directions=4)
    no_pairs = neighbors._replace(mask=np.zeros_like(neighbors.mask))
    tail = lambda params: lj.energy(params, structure, no_pairs)
    assert_gradient(tail, lj.init(None))


def along_a_direction(f, at):
    """The slope of `f` along an arbitrary direction: its gradient is of second order."""
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), at)
    return lambda at: jax.jvp(f, (at,), (direction,))[1]


@pytest.mark.parametrize("scheme", ["cut", "shift", "force_shift", "switch"])
def test_pair_energy_by_distance_sigma_and_epsilon(scheme):
    r = jnp.array([3.0, 3.8, 5.5, 7.0])
    f = lambda at: jnp.sum(pair_energy(at["r"], at["sigma"], at["epsilon"], CUTOFF, scheme))
    assert_gradient(f, {"r": r, "sigma": 3.4, "epsilon": 1.2})


def test_stillinger_weber_by_position_cell_and_every_parameter():
    structure, sw = systems.triclinic(), stillinger_weber()
    # the skin keeps the pairs that enter when sigma grows
    neighbors = neighbor_list(sw.cutoff, skin=0.2).allocate(structure, extra=1.2)
    params = sw.init(None)
    assert set(params) == {"epsilon", "sigma", "lambda", "gamma", "cos_theta", "A", "B"}
    at = {"position": structure.position, "cell": structure.cell, "params": params}
    assert_gradient(energy_of(sw, structure, neighbors), at)


def test_force_loss_of_stillinger_weber_by_every_parameter():
    structure, sw = systems.triclinic(), stillinger_weber()
    neighbors = neighbor_list(sw.cutoff, skin=0.2).allocate(structure)
    assert_gradient(force_loss(sw.energy, structure, neighbors), sw.init(None))


@pytest.fixture(scope="module")
def network():
    descriptor = chebyshev(systems.SIO2, 4.0, 3, 3.0, 2)
    scale = Standardizer(np.full(14, 0.3), np.full(14, 2.0))
    potential = chebyshev_nn(descriptor, scale, hidden=(5,))
    params = jax.jit(potential.init)(jax.random.key(1))
    # larger than at the start, so that no layer is next to linear
    params = jax.tree.map(lambda a: 2 * np.asarray(a, np.float64) + 0.05, params)
    return descriptor, potential, params


def test_force_loss_of_the_network_by_its_parameters(network):
    descriptor, potential, params = network
    structure = systems.sio2()
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    features = jax.jit(potential.prepare)(structure, neighbors)
    features = features._replace(
        descriptor=np.asarray(features.descriptor, np.float64),
        derivative=np.asarray(features.derivative, np.float64),
        displacement=np.asarray(features.displacement, np.float64),
        volume=np.asarray(features.volume, np.float64),
    )
    target = np.random.default_rng(3).normal(size=(9, 3))

    def loss(params):
        energy, forces, stress = potential.predict(params, features)
        return jnp.mean((forces - target) ** 2) + 0.01 * energy**2 + jnp.sum(stress**2)

    # the last bias moves the energy only, so the loss holds both
    assert_gradient(loss, params, max_directions=4)


def test_network_by_position_and_cell(network):
    descriptor, potential, params = network
    structure = systems.sio2()
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    energy = energy_of(potential, structure, neighbors)
    f = lambda at: energy(at | {"params": params})
    assert_gradient(f, {"position": structure.position, "cell": structure.cell})


@pytest.mark.parametrize("name", ["lennard_jones", "stillinger_weber"])
def test_padded_slots_leave_gradients_of_every_order_finite_and_unchanged(name):
    if name == "lennard_jones":
        potential = lennard_jones(systems.SI, 4.0, 2.1, 1.0)
    else:
        potential = stillinger_weber()
    structure = systems.triclinic()
    padded = pad(structure, 6)
    allocate = neighbor_list(4.0).allocate

    @jax.jit
    def derivatives(structure, neighbors, target):
        def loss(params, position):
            moved = structure._replace(position=position)
            energy, forces = energy_and_forces(potential.energy, params, moved, neighbors)
            return energy + jnp.sum((forces - target) ** 2)

        by_params, by_position = jax.grad(loss, (0, 1))(potential.init(None), structure.position)
        return by_position, jax.tree.leaves(by_params)

    target = np.zeros((6, 3))
    target[:4] = np.random.default_rng(0).normal(size=(4, 3))
    position, params = derivatives(structure, allocate(structure), target[:4])
    padded_position, padded_params = derivatives(padded, allocate(padded, extra=1.7), target)
    assert (padded_position[4:] == 0).all()
    assert_close(padded_position[:4], position, 1e-12)
    assert_close(np.stack(padded_params), np.stack(params), 1e-12)


def test_collinear_atoms_have_finite_second_derivatives():
    structure = systems.make(np.outer([0.0, 2.3, 4.6], [0, 0, 1]), np.eye(3), pbc=False)
    sw = stillinger_weber()
    neighbors = neighbor_list(sw.cutoff).allocate(structure, extra=2.0)
    energy = lambda p: sw.energy(sw.init(None), structure._replace(position=p), neighbors)
    gradient, hessian = jax.jit(lambda p: (jax.grad(energy)(p), jax.hessian(energy)(p)))(
        structure.position
    )
    assert np.isfinite(gradient).all()
    assert np.isfinite(hessian).all()
    assert np.abs(hessian).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stillinger_weber_is_smooth_through_its_cutoff(dtype):
    sw = stillinger_weber()
    params = jax.tree.map(lambda a: a.astype(dtype), sw.init(None))
    edge = np.nextafter(np.array([sw.cutoff] * 4, dtype), 0) - np.array(
        [0, 1e-6, 1e-3, -1e-3], dtype
    )

    @jax.jit
    @jax.vmap
    def of_distance(r):
        pair = systems.dimer(1.0)
        neighbors = neighbor_list(5.0).allocate(pair)
        pair = pair._replace(cell=np.eye(3, dtype=dtype))
        energy = lambda r: sw.energy(
            params, pair._replace(position=pair.position.astype(dtype) * r), neighbors
        )
        return energy(r), jax.grad(energy)(r), jax.grad(jax.grad(energy))(r)

    for value in of_distance(edge):
        assert value.dtype == dtype
        assert np.abs(value).max() < 1e-6


def test_coincident_atoms_are_not_hidden():
    structure = systems.dimer(0.0)
    lj = lennard_jones(systems.SI, 4.0, 2.1, 1.0)
    neighbors = neighbor_list(4.0).allocate(systems.dimer(2.0))
    energy = jax.jit(lambda s: lj.energy(lj.init(None), s, neighbors))
    assert not np.isfinite(energy(structure))
