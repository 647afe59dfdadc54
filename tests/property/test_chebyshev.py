"""What holds for Chebyshev descriptors of any structure."""

from functools import lru_cache

import jax
import numpy as np
import pytest

from jaxvae_md.descriptors import chebyshev
from jaxvae_md.errors import OptionError, SpeciesError
from jaxvae_md.neighbors import neighbor_list
from tests import asserts, oracles, systems
from tests.asserts import assert_close, evaluator

SETTING = (5.0, 6, 4.0, 5)
STRUCTURES = systems.ALL | {"sio2": systems.sio2}
PERIODIC = [name for name in STRUCTURES if name != "cluster"]


@lru_cache
def evaluate(species: tuple[str, ...]):
    descriptor = chebyshev(species, *SETTING)
    return evaluator(descriptor, descriptor.cutoff)


def case(name: str):
    return evaluate(systems.SIO2 if name == "sio2" else systems.SI), STRUCTURES[name]()


@pytest.mark.parametrize("name", STRUCTURES)
def test_values_equal_the_sum_over_triples(name):
    of, structure = case(name)
    weights = [-1.0, 1.0] if name == "sio2" else [1.0]
    expected = oracles.chebyshev(structure, SETTING, weights)
    assert_close(of(structure), expected, 1e-12, np.abs(expected).max(axis=0))


@pytest.mark.parametrize("name", ["si8", "sio2"])
@pytest.mark.parametrize("orders", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_low_orders_equal_the_sum_over_triples(name, orders):
    species, weights = (systems.SIO2, [0.5, 2.0]) if name == "sio2" else (systems.SI, [3.0])
    setting = (3.0, orders[0], 3.5, orders[1])
    descriptor = chebyshev(species, *setting, weights=weights)
    structure = STRUCTURES[name]()
    expected = oracles.chebyshev(structure, setting, weights)
    assert descriptor.num_features == expected.shape[1]
    x = evaluator(descriptor, 3.5)(structure)
    assert_close(x, expected, 1e-12, np.abs(expected).max(axis=0))


def test_angular_order_20_equals_the_sum_over_triples():
    setting = (5.0, 20, 4.5, 20)
    structure = systems.triclinic()
    expected = oracles.chebyshev(structure, setting, [1.0])
    x = evaluator(chebyshev(systems.SI, *setting), 5.0)(structure)
    assert_close(x, expected, 1e-11, np.abs(expected).max(axis=0))


@pytest.mark.parametrize("name", STRUCTURES)
def test_rotation_changes_nothing(name):
    asserts.assert_rotation_invariant(*case(name))


@pytest.mark.parametrize("name", STRUCTURES)
def test_translation_changes_nothing(name):
    asserts.assert_translation_invariant(*case(name))


@pytest.mark.parametrize("name", STRUCTURES)
def test_values_follow_permuted_atoms(name):
    asserts.assert_permutation_equivariant(*case(name))


@pytest.mark.parametrize("name", PERIODIC)
def test_wrapping_changes_nothing(name):
    asserts.assert_wrapping_invariant(*case(name))


@pytest.mark.parametrize("name", ["triclinic", "slab", "bcc", "sio2"])
def test_supercell_repeats_the_values(name):
    asserts.assert_supercell_consistent(*case(name))


@pytest.mark.parametrize("name", ["triclinic", "sio2"])
def test_padding_atoms_get_zeros_and_change_nothing(name):
    asserts.assert_padding_invariant(*case(name))


def test_reflection_changes_nothing():
    of, structure = case("triclinic")
    mirror = np.diag([1.0, 1.0, -1.0])
    reflected = structure._replace(
        position=structure.position @ mirror, cell=structure.cell @ mirror
    )
    assert_close(of(reflected), of(structure), 1e-12)


def test_unweighted_half_does_not_see_the_species():
    of, structure = case("sio2")
    x, y = of(structure), of(structure._replace(species=1 - structure.species))
    half = x.shape[1] // 2
    assert_close(y[:, :half], x[:, :half], 1e-13)
    radial = slice(half, half + SETTING[1] + 1)
    assert_close(y[:, radial], -x[:, radial], 1e-13)


def test_descriptors_of_some_atoms_are_rows_of_all():
    of, structure = case("sio2")
    descriptor = chebyshev(systems.SIO2, *SETTING)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    atoms = np.array([7, 2])
    assert_close(jax.jit(descriptor.at)(structure, neighbors, atoms), of(structure)[atoms], 1e-13)


def test_neighbors_beyond_the_cutoff_contribute_nothing():
    descriptor = chebyshev(systems.SI, *SETTING)
    structure = systems.si8()
    f = jax.jit(descriptor)
    exact = f(structure, neighbor_list(descriptor.cutoff).allocate(structure))
    wide = f(structure, neighbor_list(descriptor.cutoff + 1.5).allocate(structure))
    assert_close(wide, exact, 1e-13)


def test_single_precision_is_within_1e_5_of_double_up_to_order_10():
    structure = systems.sio2()
    descriptor = chebyshev(systems.SIO2, 5.2, 10, 5.2, 10)
    of = evaluator(descriptor, descriptor.cutoff)
    double, single = of(structure), of(systems.single(structure))
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    assert_close(single, double, 1e-5, np.abs(double).max(axis=0))


def test_padded_slots_do_not_overflow_at_high_order_in_single_precision():
    structure = systems.single(systems.cluster())
    descriptor = chebyshev(systems.SI, 3.0, 16, 2.5, 3)
    allocate = neighbor_list(descriptor.cutoff).allocate

    @jax.jit
    def both(structure, neighbors):
        total = lambda p: descriptor(structure._replace(position=p), neighbors).sum()
        return descriptor(structure, neighbors), jax.grad(total)(structure.position)

    padded = both(structure, allocate(structure, extra=2.0))
    for mine, exact in zip(padded, both(structure, allocate(structure)), strict=True):
        assert_close(mine, exact, 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_of_values_and_derivatives_is_that_of_the_positions(dtype):
    structure = systems.sio2()
    structure = structure if dtype == "float64" else systems.single(structure)
    descriptor = chebyshev(systems.SIO2, *SETTING)
    neighbors = neighbor_list(descriptor.cutoff).allocate(structure)
    x, derivative = jax.eval_shape(descriptor.linearise, structure, neighbors)
    assert jax.eval_shape(descriptor, structure, neighbors).dtype == dtype
    assert x.dtype == derivative.dtype == dtype
    assert x.shape == (9, descriptor.num_features)
    assert derivative.shape == (9, descriptor.num_features, *neighbors.index.shape[1:], 3)


@pytest.mark.parametrize(
    ("num_species", "weights"),
    [(1, (0,)), (2, (-1, 1)), (3, (-1, 0, 1)), (4, (-2, -1, 1, 2)), (5, (-2, -1, 0, 1, 2))],
)
def test_default_weights_are_integers_symmetric_about_zero(num_species, weights):
    species = ("H", "C", "N", "O", "F")[:num_species]
    assert chebyshev(species, 4.0, 2, 4.0, 2).weights == weights


@pytest.mark.parametrize("species", [(), "Si", ("Si", "Si")])
def test_what_is_no_species_table_is_refused(species):
    with pytest.raises(SpeciesError, match="is not a species table\n  remedy: "):
        chebyshev(species, 4.0, 3, 4.0, 3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"radial_cutoff": 0.0}, "radial_cutoff is 0.0"),
        ({"angular_cutoff": -1.0}, "angular_cutoff is -1.0"),
        ({"radial_cutoff": float("nan")}, "radial_cutoff is nan"),
        ({"radial_order": -1}, "radial_order is -1"),
        ({"angular_order": -2}, "angular_order is -2"),
        ({"angular_order": 1.5}, "angular_order is 1.5"),
        ({"radial_cutoff": 2000.0}, "radial_cutoff is 2000.0"),
        ({"radial_cutoff": "6"}, "radial_cutoff is '6'"),
        ({"angular_order": 41}, "angular_order is 41"),
        ({"angular_order": float("inf")}, "angular_order is inf"),
        ({"weights": (1.0, 2.0)}, r"weights \(1.0, 2.0\) for 1 species"),
        ({"weights": (float("nan"),)}, r"weights \(nan,\) for 1 species"),
        ({"weights": {"Si": 1.0}}, r"weights \('Si',\) for 1 species"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(changed, words):
    good = {
        "species": systems.SI,
        "radial_cutoff": 4.0,
        "radial_order": 3,
        "angular_cutoff": 4.0,
        "angular_order": 3,
    }
    with pytest.raises(OptionError, match=f"{words}.*\n  remedy: "):
        chebyshev(**good | changed)


def test_equal_settings_are_equal_and_hash_alike():
    first, second = chebyshev(systems.SI, *SETTING), chebyshev(["Si"], *SETTING)
    assert first == second
    assert hash(first) == hash(second)
    assert first != chebyshev(systems.SI, 5.1, *SETTING[1:])
