"""Derivatives through dynamics, relaxation and generated structures, in float64."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import chebyshev, fit_standardizer
from jaxvae_md.generate import realise
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import compose, lennard_jones
from jaxvae_md.simulate import npt_langevin, nve, nvt_langevin, relax, rollout
from jaxvae_md.vae import vae
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close, assert_gradient
from tests.tiers import some_slow

KEY = jax.random.key(3)
TOLERANCE = 1e-4
WEIGHTS = np.random.default_rng(5).normal(size=(32, 3))

SIMULATORS = {
    "nve": nve(ARGON, dt=5.0, skin=0.3),
    "langevin": nvt_langevin(ARGON, dt=5.0, temperature=60.0, friction=0.01, skin=0.3),
    "constant pressure": npt_langevin(ARGON, 5.0, 60.0, compressibility=0.5, skin=0.3),
}


def after_50_steps(simulator, params, structure, kelvin=60.0, adjoint="stored"):
    neighbors = simulator.neighbor_fns.allocate(structure, extra=1.5)
    state = simulator.init(KEY, params, structure, neighbors, kelvin)
    return rollout(simulator, params, state, 50, record_every=10, adjoint=adjoint)


def loss_of(position):
    """Sensitive to every coordinate."""
    return jnp.sum(jnp.asarray(WEIGHTS[: len(position)]) * position**2)


@pytest.mark.parametrize("name", some_slow([*SIMULATORS], "nve", "constant pressure"))
def test_positions_after_50_steps_by_sigma_and_epsilon(name):
    simulator, structure = SIMULATORS[name], crystal(rattle=0.05)
    run = partial(after_50_steps, simulator, structure=structure)
    final, trajectory = jax.jit(run)(PARAMS)
    assert int(trajectory.error) == 0
    moved = np.abs(final.neighbors.reference_position - structure.position).max()
    assert moved > 0.01, "the neighbor list was never built again"

    loss = lambda params: loss_of(run(params)[0].structure.position)
    assert_gradient(loss, PARAMS, step=1e-6, rtol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATORS)
def test_a_checkpointed_rollout_has_the_same_gradient(name):
    simulator, structure = SIMULATORS[name], crystal(rattle=0.05)

    @partial(jax.jit, static_argnums=1)
    def gradient(params, adjoint):
        run = partial(after_50_steps, simulator, structure=structure, adjoint=adjoint)
        return jax.value_and_grad(lambda p: loss_of(run(p)[0].structure.position))(params)

    plain, saving = gradient(PARAMS, "stored"), gradient(PARAMS, "checkpointed")
    for a, b in zip(jax.tree.leaves(saving), jax.tree.leaves(plain), strict=True):
        assert_close(a, b, 1e-9)


def test_recorded_energies_by_sigma_and_epsilon():
    simulator, structure = SIMULATORS["nve"], crystal(rattle=0.05)

    def loss(params):
        trajectory = after_50_steps(simulator, params, structure)[1]
        return jnp.mean(trajectory.potential_energy) + 1e-3 * jnp.mean(trajectory.temperature)

    assert_gradient(loss, PARAMS, step=1e-6, rtol=TOLERANCE)


# a generated structure: eight argon atoms, whose requested codes have three dimensions

# of one Lennard-Jones term alone, epsilon scales the energy and moves no minimum
SUM = compose(
    core=lennard_jones(("Ar",), 6.5, 3.4, 0.0103), soft=lennard_jones(("Ar",), 6.5, 2.5, 0.02)
)
DESCRIPTOR = chebyshev(("Ar",), 6.5, 4, 6.5, 4)
SKIN = 2.0
START = crystal((2, 1, 1), rattle=0.15)
NEIGHBORS = neighbor_list(DESCRIPTOR.cutoff, SKIN).allocate(START)


@cache
def features_fn():
    """Standardizer and the encoder of a tiny VAE, in float64."""
    fns = neighbor_list(DESCRIPTOR.cutoff)
    samples = [crystal((2, 1, 1), rattle=r) for r in (0.1, 0.2, 0.3, 0.4)]
    x = np.concatenate([np.asarray(DESCRIPTOR(s, fns.allocate(s))) for s in samples])
    standardizer = fit_standardizer(x)
    model = vae(DESCRIPTOR.num_features, latent_dim=3, hidden=(16,))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model.init(jax.random.key(1)))
    return lambda x: model.encode(params, standardizer.apply(x))[0]


def code_of(structure):
    """Latent code of the central atom."""
    return features_fn()(DESCRIPTOR(structure, NEIGHBORS)[0])


@cache
def request():
    """Parameters, and a code some way off that of the start."""
    features_fn()  # made before it is traced
    z = jax.jit(code_of)(START) + jnp.array([0.3, -0.2, 0.25])
    return {"z": z, "params": SUM.init(KEY)}


def realised(z):
    return realise(
        DESCRIPTOR,
        features_fn(),
        z,
        START,
        NEIGHBORS,
        center=0,
        min_distance=jnp.array([[2.8]]),
        skin=SKIN,
        tolerance=1e-12,
    )


def central_atom_and_first_neighbors():
    """The central atom and its four nearest."""
    vector = START.position - START.position[0]
    vector = vector - np.round(vector / np.diag(START.cell)) * np.diag(START.cell)
    fixed = np.zeros(len(vector), bool)
    fixed[np.argsort(np.linalg.norm(vector, axis=1))[:5]] = True
    return fixed


FIXED = central_atom_and_first_neighbors()


def relaxed_around_the_request(at):
    """The requested surroundings are kept; the other atoms relax."""
    made = realised(at["z"])
    return made, relax(
        SUM, at["params"], made.structure, NEIGHBORS, fixed=FIXED, skin=SKIN, tolerance=1e-12
    )


def moved_by_50_steps(at):
    made = realised(at["z"])
    simulator = nve(SUM, dt=5.0, skin=SKIN)
    state = simulator.init(KEY, at["params"], made.structure, NEIGHBORS, 30.0)
    return made, *rollout(simulator, at["params"], state, 50, record_every=10)


@pytest.mark.slow
def test_a_request_moves_atoms_and_is_met():
    made = jax.jit(realised)(request()["z"])
    assert int(made.error) == 0
    before = jnp.sqrt(jnp.mean((code_of(START) - request()["z"]) ** 2))
    assert float(made.residual) < 0.3 * float(before)
    assert np.abs(made.structure.position - START.position).max() > 0.05
    off = jnp.sqrt(jnp.mean((code_of(made.structure) - request()["z"]) ** 2))
    assert_close(made.residual, off, 1e-9)


def test_a_realised_structure_by_the_requested_code():
    loss = lambda z: loss_of(realised(z).structure.position)
    assert_gradient(loss, request()["z"], rtol=TOLERANCE)


@pytest.mark.slow
def test_positions_relaxed_around_a_request_by_sigma_epsilon_and_code():
    made, relaxed = jax.jit(relaxed_around_the_request)(request())
    assert (int(made.error), int(relaxed.error)) == (0, 0)
    assert np.abs(relaxed.structure.position - made.structure.position).max() > 1e-2
    assert (relaxed.structure.position[FIXED] == made.structure.position[FIXED]).all()

    loss = lambda at: loss_of(relaxed_around_the_request(at)[1].structure.position)
    assert_gradient(loss, request(), rtol=TOLERANCE)


@pytest.mark.slow
def test_positions_50_steps_after_a_request_by_sigma_epsilon_and_code():
    made, final, trajectory = jax.jit(moved_by_50_steps)(request())
    assert (int(made.error), int(trajectory.error)) == (0, 0)
    assert np.abs(final.structure.position - made.structure.position).max() > 1e-2

    loss = lambda at: loss_of(moved_by_50_steps(at)[1].structure.position)
    assert_gradient(loss, request(), rtol=TOLERANCE)


def mixture():
    """A crystal of two kinds of atoms, off its minimum, whose relaxed positions depend on both."""
    structure = crystal((2, 1, 1), rattle=0.1)
    table = np.array([[3.4, 3.2], [3.2, 2.9]])
    potential = lennard_jones(("Ar", "Ne"), 6.0, table, np.array([[1.0, 0.8], [0.8, 0.5]]) * 0.01)
    return potential, structure._replace(species=np.array([0, 0, 1, 0, 0, 1, 0, 0], np.int32))


@pytest.mark.slow
def test_relaxed_positions_without_fixed_atoms_by_sigma_epsilon_and_cell():
    potential, structure = mixture()
    neighbors = neighbor_list(potential.cutoff, 2.0).allocate(structure)

    def relaxed(at):
        strained = structure._replace(cell=at["cell"])
        return relax(potential, at["params"], strained, neighbors, skin=2.0, tolerance=1e-12)

    at = {"params": potential.init(None), "cell": structure.cell}
    result = jax.jit(relaxed)(at)
    assert int(result.error) == 0
    assert float(result.max_force) < 1e-12
    assert np.abs(result.structure.position - structure.position).max() > 0.05
    assert_gradient(lambda at: loss_of(relaxed(at).structure.position), at, rtol=TOLERANCE)


def test_relaxation_without_fixed_atoms_keeps_the_centre():
    potential, structure = mixture()
    neighbors = neighbor_list(potential.cutoff, 2.0).allocate(structure)
    params = potential.init(None)

    @jax.jit
    def centre_and_derivative(position):
        moved = structure._replace(position=position)
        mean = lambda p: jnp.mean(
            relax(
                potential, params, moved._replace(position=p), neighbors, skin=2.0
            ).structure.position[:, 1]
        )
        return mean(position), jax.grad(mean)(position)

    mean, slope = centre_and_derivative(structure.position)
    assert abs(mean - structure.position[:, 1].mean()) < 1e-7
    assert_close(slope, np.tile([0, 1 / 8, 0], (8, 1)), 1e-6)


def test_the_minimum_does_not_depend_on_where_free_atoms_started():
    potential, structure = mixture()
    neighbors = neighbor_list(potential.cutoff, 2.0).allocate(structure)
    fixed = np.arange(8) < 2

    def loss(position):
        moved = structure._replace(position=position)
        result = relax(
            potential,
            potential.init(None),
            moved,
            neighbors,
            fixed=fixed,
            skin=2.0,
            tolerance=1e-12,
        )
        return loss_of(result.structure.position)

    slope = np.asarray(jax.jit(jax.grad(loss))(structure.position))
    assert np.abs(slope[fixed]).max() > 0.1
    assert np.abs(slope[~fixed]).max() < 1e-8
    direction = np.where(fixed[:, None], np.random.default_rng(2).normal(size=(8, 3)), 0)
    along = jax.jit(lambda t: loss(structure.position + t * direction))
    numeric = (along(1e-5) - along(-1e-5)) / 2e-5
    assert_close(np.sum(slope * direction), numeric, TOLERANCE)
