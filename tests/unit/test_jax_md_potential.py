from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from jax import ops
from jax_md import energy as jax_md_energy
from jax_md import partition, smap, space

from jaxvae_md import errors
from jaxvae_md.interop import PotentialCalculator, from_jax_md
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import lennard_jones, pair_energy, stillinger_weber
from jaxvae_md.structure import pad, to_atoms
from tests import oracles, systems
from tests.asserts import assert_close, assert_gradient

FREE, _ = space.free()
FORMATS = (partition.Dense, partition.Sparse, partition.OrderedSparse)
CUTOFF = 4.4
DEPTH = np.array([[0.5, 0.9], [0.9, 1.4]])


def two_species(make):
    structure = make()
    return structure._replace(species=(np.arange(len(structure.mask)) % 2).astype(np.int32))


def big():
    """64 atoms, wider than twice the cutoff: no atom meets its own image."""
    return systems.repeated(systems.si8(), (2, 2, 2))


SYSTEMS = {"big": big, **systems.ALL}
BY_SYSTEM = pytest.mark.parametrize("make", SYSTEMS.values(), ids=SYSTEMS)


def soft(r, depth):
    """A pair energy that vanishes smoothly at the cutoff; for jax_md and numpy alike."""
    return depth * (1 - r / CUTOFF) ** 4 * (r < CUTOFF)


def soft_slope(r, depth):
    return -4 / CUTOFF * depth * (1 - r / CUTOFF) ** 3 * (r < CUTOFF)


@lru_cache
def soft_model(format, **kwargs):
    energy_fn = smap.pair_neighbor_list(
        lambda dr, depth, **unused: soft(dr, depth),
        space.canonicalize_displacement_or_metric(FREE),
        depth=jnp.zeros((2, 2)),
    )
    return from_jax_md(("H", "He"), CUTOFF, energy_fn, {"depth": DEPTH}, format, **kwargs)


def inputs(model, structure, num=0, capacity=1):
    """Padded to a common shape, to compile once for many structures."""
    padded = pad(structure, max(num, len(structure.mask)))
    neighbors = neighbor_list(model.cutoff).allocate(padded, capacity=capacity)
    return padded, neighbors._replace(images=neighbors.images[:0])


@partial(jax.jit, static_argnums=0)
def evaluate(energy, params, structure, neighbors):
    """Energy, forces and stress."""

    def of(position, strain):
        turn = jnp.eye(3, dtype=strain.dtype) + 0.5 * (strain + strain.T)
        moved = structure._replace(position=position @ turn, cell=structure.cell @ turn)
        return energy(params, moved, neighbors)

    x = structure.position, jnp.zeros_like(structure.cell)
    value, (slope, virial) = jax.value_and_grad(of, (0, 1))(*x)
    return value, -slope, virial / jnp.abs(jnp.linalg.det(structure.cell))


@partial(jax.jit, static_argnums=0)
def energy_of(energy, params, structure, neighbors):
    return energy(params, structure, neighbors)


def assert_same(actual, expected, tolerance):
    for name, mine, reference in zip(("energy", "forces", "stress"), actual, expected, strict=True):
        if name == "forces":
            assert not np.any(mine[len(reference) :])
            mine = mine[: len(reference)]
        scale = max(np.abs(np.asarray(reference)).max(), 1e-3)
        error = np.abs(np.asarray(mine) - np.asarray(reference)).max() / scale
        assert error < tolerance, f"{name} off by {error:.2g}"


def pair_oracle(structure, phi, slope, table):
    """Energy, forces and stress of a sum over pairs, by a loop."""
    energy, forces, virial = 0.0, np.zeros((len(structure.mask), 3)), np.zeros((3, 3))
    for i, j, _, v in oracles.pairs(structure, CUTOFF):
        r, p = np.linalg.norm(v), table[structure.species[i], structure.species[j]]
        energy += 0.5 * phi(r, p)
        forces[i] += slope(r, p) * v / r
        virial += 0.5 * slope(r, p) * np.outer(v, v) / r
    return energy, forces, virial / abs(np.linalg.det(structure.cell))


# pairs


@BY_SYSTEM
def test_a_pair_function_equals_a_loop_over_images(make):
    structure = two_species(make)
    model = soft_model(partition.Sparse)
    found = evaluate(model.energy, model.init(None), *inputs(model, structure, 8, 90))
    assert_same(found, pair_oracle(structure, soft, soft_slope, DEPTH), 1e-12)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_counts_every_pair_once(format):
    model = soft_model(format)
    for structure in (two_species(systems.bcc), two_species(systems.triclinic)):
        found = evaluate(model.energy, model.init(None), *inputs(model, structure, 8, 90))
        assert_same(found, pair_oracle(structure, soft, soft_slope, DEPTH), 1e-12)


@pytest.mark.parametrize("format", FORMATS)
def test_neither_padding_nor_its_absence_changes_anything(format):
    structure, model = two_species(systems.triclinic), soft_model(format)
    energy, _, _ = pair_oracle(structure, soft, soft_slope, DEPTH)
    params = model.init(None)
    full = inputs(model, structure)
    assert_close(energy_of(model.energy, params, *full), energy, 1e-12)
    slope = jax.jit(jax.grad(model.energy))(params, *inputs(model, structure, 7, 60))["depth"]
    # the energy is linear in the depths
    assert_close(np.sum(slope * DEPTH), energy, 1e-12)


def test_jax_md_agrees_in_its_own_periodic_space():
    structure = systems.repeated(systems.fcc(2), (2, 2, 2))
    box = float(structure.cell[0, 0])
    table = jnp.array([[2.4, 2.2], [2.2, 2.0]])
    factory = partial(
        jax_md_energy.lennard_jones_neighbor_list,
        species=jnp.asarray(structure.species),
        sigma=table,
        epsilon=0.1 * table,
        r_cutoff=jnp.array(2.0),
        r_onset=jnp.array(1.5),
        format=partition.Sparse,
        disable_cell_list=True,
    )
    neighbor_fn, periodic = factory(space.periodic(box)[0], box)
    position = jnp.asarray(structure.position)
    reference = jax.jit(periodic)(position, neighbor=neighbor_fn.allocate(position % box))
    model = from_jax_md(
        ("Ar", "Kr"), 4.8, factory(FREE, box, species=None)[1], format=partition.Sparse
    )
    assert_close(energy_of(model.energy, {}, *inputs(model, structure)), reference, 1e-12)


def lj_oracle(structure, sigma, epsilon, onset, cutoff):
    """jax_md's formula: 4 epsilon (x^12 - x^6) times a polynomial that falls from the onset on."""
    total = 0.0
    for i, j, _, v in oracles.pairs(structure, cutoff):
        r, pair = np.linalg.norm(v), (structure.species[i], structure.species[j])
        x = (sigma[pair] / r) ** 6
        fall = (cutoff**2 - r**2) ** 2 * (cutoff**2 + 2 * r**2 - 3 * onset**2)
        fall = fall / (cutoff**2 - onset**2) ** 3 if r > onset else 1.0
        total += 0.5 * 4 * epsilon[pair] * (x**2 - x) * fall
    return total


@lru_cache
def lj_model(format=partition.Sparse, **kwargs):
    sigma, epsilon = jnp.array([[2.4, 2.2], [2.2, 2.0]]), jnp.array([[0.1, 0.2], [0.2, 0.3]])
    _, energy_fn = jax_md_energy.lennard_jones_neighbor_list(
        FREE, 1.0, sigma=sigma, epsilon=epsilon, r_onset=jnp.array(2.0), r_cutoff=jnp.array(2.5),
        format=format, **kwargs,
    )  # fmt: skip
    start = {"sigma": sigma, "epsilon": epsilon}
    return from_jax_md(("Ar", "Kr"), 6.0, energy_fn, start, format)


@pytest.mark.parametrize("make", [systems.fcc, systems.triclinic])
def test_lennard_jones_equals_its_formula(make):
    structure, model = two_species(make), lj_model()
    params = model.init(None)
    expected = lj_oracle(
        structure, np.array(params["sigma"]), np.array(params["epsilon"]), 2.0 * 2.4, 6.0
    )
    found = energy_of(model.energy, params, *inputs(model, structure, 5, 150))
    assert_close(found, expected, 1e-12)


def test_gradients_are_derivatives_by_position_cell_and_parameters():
    structure, model = two_species(systems.triclinic), lj_model()
    # slots that are padded, of which jax_md's own parameter gradients are NaN
    structure, neighbors = inputs(model, structure, 5, 150)
    assert not neighbors.mask.all(axis=1).any()

    def of(x):
        moved = structure._replace(position=x["position"], cell=x["cell"])
        return model.energy(x["params"], moved, neighbors)

    x = {
        "position": structure.position,
        "cell": structure.cell,
        "params": {name: np.array(table) for name, table in model.init(None).items()},
    }
    assert_gradient(of, x)
    second = jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(of)(x)["position"] ** 2)))(x)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(second))


def test_padded_slots_are_far_away_wherever_the_atoms_are():
    structure = two_species(systems.fcc)
    gradients = []
    for format, corner in [(partition.Sparse, 0.0), (partition.Dense, 18.0)]:
        model = lj_model(format)
        moved = structure._replace(position=structure.position - structure.position[1] + corner)
        state = model.init(None), *inputs(model, moved, 5, 60)
        gradients.append(jax.jit(jax.grad(model.energy))(*state))
    for name in gradients[0]:
        assert_close(gradients[1][name], gradients[0][name], 1e-12)


def test_energies_of_rows_are_summed_over_real_atoms():
    structure = two_species(systems.triclinic)
    whole, rows = lj_model(), lj_model(per_particle=True)
    params = whole.init(None)
    state = params, *inputs(whole, structure, 5, 150)
    assert_close(energy_of(rows.energy, *state), energy_of(whole.energy, *state), 1e-12)


# many atoms


SW = stillinger_weber()


@lru_cache
def jax_md_silicon(num_ghosts=None):
    _, energy_fn = jax_md_energy.stillinger_weber_neighbor_list(
        FREE, 1.0, epsilon=2.1683, cutoff=SW.cutoff
    )
    return from_jax_md(("Si",), SW.cutoff, energy_fn, num_ghosts=num_ghosts)


@pytest.mark.parametrize("make", systems.ALL.values(), ids=systems.ALL)
def test_stillinger_weber_equals_ours(make):
    structure = make()
    model = jax_md_silicon(num_ghosts=300)
    state = inputs(SW, structure, 8, 32)
    found = evaluate(model.energy, {}, *state)
    expected = evaluate(SW.energy, SW.init(None), *state)
    expected = expected[0], expected[1][: len(structure.mask)], expected[2]
    # jax_md adds 1e-7 angstrom to the distances in its cosines
    assert_same(found, expected, 2e-6)


def test_the_number_of_ghosts_changes_nothing_unless_it_is_too_small():
    model = soft_model(partition.Dense)
    structure, neighbors = inputs(model, two_species(systems.bcc))
    pairs = np.column_stack([neighbors.index[neighbors.mask], neighbors.shift[neighbors.mask]])
    needed = len(np.unique(pairs[np.any(pairs[:, 1:] != 0, axis=1)], axis=0))
    params = model.init(None)
    every = energy_of(model.energy, params, structure, neighbors)
    enough = soft_model(partition.Dense, num_ghosts=needed)
    assert_close(energy_of(enough.energy, params, structure, neighbors), every, 1e-13)
    short = soft_model(partition.Dense, num_ghosts=needed - 1)
    assert all(
        np.isnan(leaf).all() for leaf in evaluate(short.energy, params, structure, neighbors)
    )


def density(r, width):
    return jnp.exp(-r / width) * (1 - r / CUTOFF) ** 3 * (r < CUTOFF)


def embedding(charge):
    """Not zero for an isolated atom."""
    return -jnp.sqrt(charge + 0.25)


def eam_model(format, mask_self):
    def energy_fn(position, neighbor, width):
        _, eam = jax_md_energy.eam_neighbor_list(
            FREE, 1.0, partial(density, width=width), embedding, lambda r: soft(r, 0.7), CUTOFF
        )
        return eam(position, neighbor)

    start = {"width": jnp.array(1.5)}
    return from_jax_md(("W",), CUTOFF, energy_fn, start, format, mask_self)


def eam_oracle(structure, own: bool):
    charge = np.full(len(structure.mask), 1.0 if own else 0.0)
    energy = 0.0
    for i, _, _, v in oracles.pairs(structure, CUTOFF):
        r = np.linalg.norm(v)
        charge[i] += np.exp(-r / 1.5) * (1 - r / CUTOFF) ** 3
        energy += 0.5 * soft(r, 0.7)
    return energy - np.sqrt(charge + 0.25).sum()


@pytest.mark.parametrize("mask_self", [True, False])
@pytest.mark.parametrize("format", FORMATS[:2])
def test_an_embedded_atom_model_equals_a_loop_over_images(format, mask_self):
    model = eam_model(format, mask_self)
    for make in (systems.bcc, systems.triclinic, systems.slab):
        found = energy_of(model.energy, model.init(None), *inputs(model, make(), 8, 70))
        assert_close(found, eam_oracle(make(), own=not mask_self), 1e-12)


def test_gradients_of_an_embedded_atom_model_are_derivatives():
    model = eam_model(partition.Sparse, True)
    structure, neighbors = inputs(model, systems.bcc(), 3)

    def of(x):
        moved = structure._replace(position=x["position"], cell=x["cell"])
        return model.energy({"width": x["width"]}, moved, neighbors)

    x = {"position": structure.position, "cell": structure.cell, "width": np.array(1.5)}
    assert_gradient(of, x)


def test_an_isolated_atom_keeps_its_energy():
    model = eam_model(partition.Dense, True)
    structure = systems.make([[1.0, 2.0, 3.0]], 30 * np.eye(3))
    energy = energy_of(model.energy, model.init(None), *inputs(model, structure, 4))
    assert_close(energy, -0.5, 1e-14)


# in use


def test_ase_sees_derivatives_by_finite_differences():
    model = soft_model(partition.OrderedSparse)
    atoms = to_atoms(two_species(systems.triclinic), model.species)
    atoms.calc = PotentialCalculator(model, model.init(None))
    numeric = calculate_numerical_forces(atoms, eps=1e-5)
    assert np.abs(numeric).max() > 0.01
    assert_close(atoms.get_forces(), numeric, 1e-8)
    assert_close(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), 1e-8)


def test_single_precision_stays_single():
    structure, model = two_species(systems.triclinic), soft_model(partition.Sparse)
    exact = evaluate(model.energy, model.init(None), *inputs(model, structure))
    params = jax.tree.map(jnp.float32, model.init(None))
    found = evaluate(model.energy, params, *inputs(model, systems.single(structure)))
    assert [leaf.dtype for leaf in found] == 3 * [np.float32]
    assert_same(found, exact, 1e-5)
    with jax.enable_x64(False):
        energy = energy_of(model.energy, params, *inputs(model, systems.single(structure)))
        assert_close(energy, exact[0], 1e-5)


def test_a_batch_is_its_structures():
    model = soft_model(partition.Sparse)
    made = [inputs(model, two_species(m), 8, 90) for m in (systems.si8, systems.triclinic)]
    params = model.init(None)
    batched = jax.jit(jax.vmap(lambda p, state: model.energy(p, *state), (None, 0)))(
        params, jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    )
    single = [evaluate(model.energy, params, *state)[0] for state in made]
    assert_close(batched, np.array(single), 1e-13)


def test_a_list_with_a_skin_gives_the_same():
    structure, model = two_species(systems.si8), soft_model(partition.Sparse)
    params = model.init(None)
    skin = neighbor_list(CUTOFF, skin=1.0).allocate(structure)
    exact = energy_of(model.energy, params, *inputs(model, structure, 8, 90))
    assert_close(energy_of(model.energy, params, structure, skin), exact, 1e-13)


def test_nan_is_not_hidden():
    # jax_md's lennard_jones makes 0 of NaN
    model = lj_model()
    params = model.init(None)
    structure, neighbors = inputs(model, two_species(systems.triclinic))
    lost = structure._replace(position=structure.position.copy())
    lost.position[2, 0] = np.nan
    gradient = jax.jit(jax.value_and_grad(model.energy))
    for value, _ in (
        gradient(params, lost, neighbors),
        gradient({**params, "sigma": params["sigma"].at[0, 1].set(np.nan)}, structure, neighbors),
    ):
        assert np.isnan(value)


def test_parameters_start_as_given_and_are_projected():
    model = from_jax_md(
        ("H", "He"),
        CUTOFF,
        smap.pair_neighbor_list(
            lambda dr, depth, **unused: soft(dr, depth), space.metric(FREE), depth=1.0
        ),
        {"depth": 2.0},
        partition.Sparse,
        project=lambda params: {"depth": jnp.maximum(params["depth"], 0.0)},
    )
    assert model.init(None)["depth"] == 2.0
    assert model.project({"depth": -1.0})["depth"] == 0.0
    assert (model.species, model.cutoff) == (("H", "He"), CUTOFF)


# what is refused


@pytest.mark.parametrize(
    "factory", [jax_md_energy.lennard_jones_pair, jax_md_energy.stillinger_weber]
)
def test_a_function_without_a_list_is_refused(factory):
    with pytest.raises(errors.OptionError, match="lennard_jones_neighbor_list"):
        from_jax_md(("Si",), 5.0, factory(FREE))
    with pytest.raises(errors.OptionError, match="neighbor"):
        from_jax_md(("Si",), 1.0, jax_md_energy.soft_sphere_pair(FREE))


@pytest.mark.parametrize("wrong", [lambda position: 0.0, lambda position, pairs: 0.0])
def test_a_function_that_cannot_be_called_is_refused(wrong):
    with pytest.raises(errors.OptionError, match=r"energy_fn\(R, neighbor=.*\n.*_neighbor_list"):
        from_jax_md(("Si",), 5.0, wrong)


def test_the_pair_of_functions_is_refused():
    both = jax_md_energy.morse_neighbor_list(FREE, 1.0)
    with pytest.raises(errors.OptionError, match="not a callable"):
        from_jax_md(("Si",), 5.0, both)


def messages(position, neighbor, **unused):
    """Two rounds of messages: an atom hears of the neighbors of its neighbors."""
    center, other = neighbor.idx
    num = len(position)
    r = space.distance(space.map_bond(FREE)(position[center], position[other]))
    weight = jnp.where(center < num, soft(r, 1.0), 0.0)
    for_each = partial(ops.segment_sum, segment_ids=center, num_segments=num)
    first = jnp.tanh(for_each(weight))
    return jnp.sum(jnp.tanh(for_each(weight * first[other])))


def test_a_message_passing_network_is_refused():
    with pytest.raises(errors.OptionError, match=r"across the boundary.*\n.*message-passing"):
        from_jax_md(("Si",), CUTOFF, messages, format=partition.Sparse)


def test_energies_that_belong_to_no_atom_are_refused():
    _, energy_fn = jax_md_energy.bks_silica_neighbor_list(
        FREE, 1.0, jnp.array([0, 1, 1, 0, 1, 1]), cutoff=6.0, format=partition.Sparse
    )
    with pytest.raises(errors.OptionError, match=r"belong to no atom(.|\n)*no species"):
        from_jax_md(("Si", "O"), 6.0, energy_fn, format=partition.Sparse)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cutoff": 0.0}, "cutoff is 0.0"),
        ({"cutoff": np.inf}, "cutoff is inf"),
        ({"format": "Sparse"}, "format is 'Sparse'"),
        ({"num_ghosts": 0}, "num_ghosts is 0"),
        ({"species": "Si"}, "'Si' is not a species table"),
        ({"energy_fn": lambda R, neighbor: jnp.ones(2)}, r"shape \(2,\)"),
    ],
)
def test_options_that_cannot_work_are_refused(change, words):
    energy_fn = lambda R, neighbor: jnp.zeros(())
    given = {"species": ("Si",), "cutoff": 3.0, "energy_fn": energy_fn, **change}
    with pytest.raises((errors.OptionError, errors.SpeciesError), match=words):
        from_jax_md(**given)


def test_ours_by_way_of_jax_md_is_ours():
    """The truncation of the package in a jax_md function: forces and stress of lennard_jones."""
    own = lennard_jones(("Ar",), 5.0, 2.6, 0.1)
    energy_fn = smap.pair_neighbor_list(
        partial(pair_energy, cutoff=5.0), space.metric(FREE), sigma=2.6, epsilon=0.1
    )
    start = {"sigma": 2.6, "epsilon": 0.1}
    model = from_jax_md(("Ar",), 5.0, energy_fn, start, partition.OrderedSparse)
    structure = systems.fcc()
    found = evaluate(model.energy, model.init(None), *inputs(model, structure))
    assert_same(found, evaluate(own.energy, own.init(None), *inputs(own, structure)), 1e-12)
