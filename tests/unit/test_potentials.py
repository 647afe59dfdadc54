"""What holds for every potential, and how potentials are put together."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md.descriptors import Standardizer, chebyshev
from jaxvae_md.errors import OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import (
    Potential,
    atomic_energy,
    chebyshev_nn,
    compose,
    energy_and_forces,
    fit_atomic_energy,
    lennard_jones,
    potential,
    stillinger_weber,
    stress,
)
from jaxvae_md.structure import pad
from tests import asserts, systems
from tests.asserts import assert_close


def network(species: tuple[str, ...]) -> Potential:
    descriptor = chebyshev(species, 4.0, 3, 3.0, 2)
    num = descriptor.num_features
    return chebyshev_nn(descriptor, Standardizer(np.full(num, 0.3), np.full(num, 2.0)), (6,))


MODELS = {
    "lennard_jones": lambda: lennard_jones(systems.SI, 4.5, 2.1, 0.7),
    "stillinger_weber": stillinger_weber,
    "chebyshev_nn": lambda: network(systems.SI),
    "compose": lambda: compose(
        reference=atomic_energy(systems.SI, [-5.4]),
        core=lennard_jones(systems.SI, 3.0, 1.9, 0.3),
        bonds=stillinger_weber(),
    ),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


def in_double(params):
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), params)


@lru_cache
def model(name: str):
    """The potential, its parameters, and everything it computes as one compiled function."""
    built = MODELS[name]()
    params = in_double(jax.jit(built.init)(jax.random.key(0)))
    allocate = neighbor_list(built.cutoff).allocate

    @jax.jit
    def run(structure, neighbors):
        energy, forces = energy_and_forces(built.energy, params, structure, neighbors)
        return {
            "energy": energy,
            "forces": forces,
            "stress": stress(built.energy, params, structure, neighbors),
        }

    def compute(structure):
        return jax.tree.map(np.asarray, run(structure, allocate(structure)))

    return built, params, compute


def evaluate(name: str, quantity: str) -> asserts.Evaluate:
    return lambda structure: model(name)[2](structure)[quantity]


@EVERY_MODEL
def test_forces_sum_to_zero(name):
    forces = evaluate(name, "forces")(systems.triclinic())
    assert np.abs(forces).max() > 1e-3
    assert_close(forces.sum(axis=0) / np.abs(forces).max(), np.zeros(3), 1e-12)


@EVERY_MODEL
def test_stress_is_symmetric(name):
    tensor = evaluate(name, "stress")(systems.triclinic())
    assert np.abs(tensor).max() > 1e-4
    assert_close(tensor, tensor.T, 1e-12)


@EVERY_MODEL
def test_force_is_minus_gradient_of_energy(name):
    structure = systems.triclinic()
    energy, forces = evaluate(name, "energy"), evaluate(name, "forces")(structure)
    direction = np.random.default_rng(0).normal(size=(4, 3))
    up, down = (
        energy(structure._replace(position=structure.position + h * direction))
        for h in (1e-5, -1e-5)
    )
    assert_close(np.sum(forces * direction), -(up - down) / 2e-5, 1e-7)


@EVERY_MODEL
def test_stress_is_the_strain_derivative_of_energy_per_volume(name):
    structure = systems.triclinic()
    energy, tensor = evaluate(name, "energy"), evaluate(name, "stress")(structure)
    strain = np.random.default_rng(0).normal(size=(3, 3))
    up, down = (
        energy(
            structure._replace(
                position=structure.position @ (np.eye(3) + h * strain),
                cell=structure.cell @ (np.eye(3) + h * strain),
            )
        )
        for h in (1e-6, -1e-6)
    )
    volume = abs(np.linalg.det(structure.cell))
    assert_close(np.sum(tensor * strain) * volume, (up - down) / 2e-6, 1e-6)


@EVERY_MODEL
def test_energy_forces_and_stress_have_the_symmetries_of_space(name):
    structure = systems.triclinic()
    energy, forces, tensor = (evaluate(name, q) for q in ("energy", "forces", "stress"))
    for of in (energy, forces, tensor):
        asserts.assert_translation_invariant(of, structure, 1e-11)
        asserts.assert_wrapping_invariant(of, structure, 1e-11)
    asserts.assert_rotation_invariant(energy, structure, 1e-11)
    asserts.assert_rotation_invariant(forces, structure, 1e-11, vector=True)
    asserts.assert_permutation_equivariant(energy, structure, 1e-11)
    asserts.assert_permutation_equivariant(forces, structure, 1e-11)


@EVERY_MODEL
def test_energy_is_extensive(name):
    asserts.assert_supercell_consistent(evaluate(name, "energy"), systems.triclinic(), 1e-12)
    asserts.assert_supercell_consistent(evaluate(name, "forces"), systems.triclinic(), 1e-11)


@EVERY_MODEL
def test_padding_atoms_get_zero_force_and_do_not_change_the_energy(name):
    structure = systems.triclinic()
    before, after = (model(name)[2](s) for s in (structure, pad(structure, 7)))
    assert_close(after["energy"], before["energy"], 1e-13)
    assert_close(after["stress"], before["stress"], 1e-12)
    assert (after["forces"][4:] == 0).all()
    assert_close(after["forces"][:4], before["forces"], 1e-12)


@EVERY_MODEL
def test_predict_on_what_prepare_keeps_equals_the_energy_gradient(name):
    built, params, compute = model(name)
    structure = pad(systems.triclinic(), 6)
    neighbors = neighbor_list(built.cutoff + 0.5).allocate(structure, extra=1.3)
    energy, forces, tension = jax.jit(lambda s, n: built.predict(params, built.prepare(s, n)))(
        structure, neighbors
    )
    exact = compute(systems.triclinic())
    # networks keep their features in float32
    assert_close(energy, exact["energy"], 1e-6)
    assert_close(forces[:4], exact["forces"], 1e-5)
    assert (np.asarray(forces)[4:] == 0).all()
    assert_close(tension, exact["stress"], 1e-5)


@pytest.mark.parametrize("name", ["lennard_jones", "stillinger_weber", "chebyshev_nn"])
def test_dtype_follows_positions_and_parameters(name):
    built, params, _ = model(name)
    structure = systems.single(systems.bcc())
    neighbors = neighbor_list(built.cutoff).allocate(structure)
    params = jax.tree.map(lambda a: a.astype(jnp.float32), params)
    energy, forces = jax.eval_shape(
        lambda s, n: energy_and_forces(built.energy, params, s, n), structure, neighbors
    )
    assert energy.dtype == forces.dtype == np.float32


def test_perfect_silicon_has_its_cohesive_energy_at_5_431_angstrom():
    cohesive = {}
    for a in (5.42, 5.431, 5.44):
        perfect = systems.si8(rattle=0.0)
        scale = a / perfect.cell[0, 0]
        perfect = perfect._replace(position=perfect.position * scale, cell=perfect.cell * scale)
        cohesive[a] = float(evaluate("stillinger_weber", "energy")(perfect)) / 8
    assert cohesive[5.431] == pytest.approx(-4.3366, abs=1e-4)
    assert cohesive[5.431] == min(cohesive.values())


def test_compose_is_the_sum_of_its_terms():
    built, params, compute = model("compose")
    structure = systems.triclinic()
    terms = {
        "reference": atomic_energy(systems.SI),
        "core": lennard_jones(systems.SI, 3.0),
        "bonds": stillinger_weber(),
    }
    assert set(params) == set(terms)
    assert built.cutoff == max(term.cutoff for term in terms.values())
    neighbors = neighbor_list(built.cutoff).allocate(structure)

    @jax.jit
    def of_terms(structure, neighbors):
        return [
            energy_and_forces(t.energy, params[name], structure, neighbors)
            for name, t in terms.items()
        ]

    parts = of_terms(structure, neighbors)
    assert all(e != 0 for e, _ in parts)
    assert_close(compute(structure)["energy"], sum(e for e, _ in parts), 1e-13)
    assert_close(compute(structure)["forces"], sum(f for _, f in parts), 1e-12)


def test_compose_predicts_the_sum_of_what_its_terms_predict():
    terms = {"core": lennard_jones(systems.SI, 3.0, 1.9, 0.3), "network": network(systems.SI)}
    built = compose(**terms)
    structure = systems.triclinic()
    neighbors = neighbor_list(built.cutoff).allocate(structure)

    @jax.jit
    def both(key):
        params = built.init(key)
        features = built.prepare(structure, neighbors)
        parts = [t.predict(params[name], features[name]) for name, t in terms.items()]
        return built.predict(params, features), parts

    whole, parts = both(jax.random.key(0))
    assert all(np.abs(part.forces).max() > 0 for part in parts)
    for mine, *theirs in zip(whole, *parts, strict=True):
        assert_close(mine, sum(theirs), 1e-13)


def test_compose_projects_every_term():
    built, params, _ = model("compose")
    bad = params | {"core": jax.tree.map(lambda a: -a, params["core"])}
    mended = built.project(bad)
    assert (mended["core"]["epsilon"] > 0).all()
    assert jax.tree.all(jax.tree.map(jnp.array_equal, mended["bonds"], params["bonds"]))


def test_compose_refuses_different_species_tables():
    with pytest.raises(OptionError, match="2 species tables"):
        compose(a=atomic_energy(("O", "Si")), b=atomic_energy(("Si",)))


def test_every_species_has_a_network_of_its_own():
    built = network(systems.SIO2)
    structure = systems.sio2()
    neighbors = neighbor_list(built.cutoff).allocate(structure)
    energy = jax.jit(lambda p, s: built.energy(p, s, neighbors))
    params = jax.jit(built.init)(jax.random.key(0))
    assert set(params) == set(systems.SIO2)
    shifted = jax.tree.map(lambda a: a, params)
    shifted["O"]["out"]["bias"] = params["O"]["out"]["bias"] + 1.0
    assert_close(energy(shifted, structure) - energy(params, structure), 6.0, 1e-6)
    all_silicon = structure._replace(species=np.ones(9, np.int32))
    assert energy(shifted, all_silicon) == energy(params, all_silicon)


def test_network_parameters_are_float32_and_follow_the_key():
    built = network(systems.SI)
    first, again, other = (jax.jit(built.init)(jax.random.key(k)) for k in (0, 0, 1))
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(first))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, first, other))


def test_atomic_energy_counts_real_atoms_by_species():
    reference = atomic_energy(systems.SIO2, [-2.0, -5.0])
    structure = pad(systems.sio2(), 12)
    neighbors = neighbor_list(3.0).allocate(structure)
    energy, forces = energy_and_forces(reference.energy, reference.init(None), structure, neighbors)
    assert energy == 6 * -2.0 + 3 * -5.0
    assert (forces == 0).all()


def test_atomic_energies_are_recovered_from_compositions():
    counts = np.array([[2, 1], [4, 2], [0, 8], [6, 3]])
    found = fit_atomic_energy(counts, counts @ np.array([-2.0, -5.0]))
    assert_close(found, np.array([-2.0, -5.0]), 1e-12)


def test_atomic_energies_split_evenly_where_the_composition_does_not_vary():
    found = fit_atomic_energy(np.array([[1, 1], [2, 2]]), np.array([-6.0, -12.0]))
    assert_close(found, np.array([-3.0, -3.0]), 1e-12)


def test_potential_from_an_energy_alone_predicts_by_its_gradient():
    built, _, _ = model("lennard_jones")
    own = potential(built.species, built.cutoff, built.init, built.energy)
    structure = systems.triclinic()
    neighbors = neighbor_list(own.cutoff).allocate(structure)
    features = own.prepare(structure, neighbors)
    energy, forces, tension = jax.jit(own.predict)(own.init(None), features)
    assert_close(energy, evaluate("lennard_jones", "energy")(structure), 1e-13)
    assert_close(forces, evaluate("lennard_jones", "forces")(structure), 1e-12)
    assert_close(tension, evaluate("lennard_jones", "stress")(structure), 1e-12)
    assert own.project({"k": 1}) == {"k": 1}
