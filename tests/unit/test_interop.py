import copy
import subprocess
import sys

import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import UnitCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import LBFGS
from ase.stress import full_3x3_to_voigt_6_stress
from jax import lax

from jaxvae_md import errors, simulate, units
from jaxvae_md.interop import PotentialCalculator, jax_md_pair
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import (
    energy_and_forces,
    lennard_jones,
    potential,
    stillinger_weber,
    stress,
)
from jaxvae_md.structure import from_atoms, to_atoms
from tests import systems
from tests.asserts import assert_close, assert_gradient

SW = stillinger_weber()
SW_PARAMS = SW.init(None)
BINARY = lennard_jones(
    systems.SIO2, 5.0, sigma=[[1.8, 1.5], [1.5, 2.0]], epsilon=[[0.02, 0.05], [0.05, 0.03]]
)
CASES = {
    **{name: (SW, make) for name, make in systems.ALL.items() if name != "bcc"},
    "sio2": (BINARY, systems.sio2),
    "binary fcc": (BINARY, lambda: systems.fcc(2)),
}
BY_CASE = pytest.mark.parametrize(("model", "make"), CASES.values(), ids=CASES)


def atoms_of(structure, species=systems.SI):
    """ASE Atoms; a structure without periodicity becomes a molecule without a cell."""
    atoms = to_atoms(structure, species)
    if not structure.pbc.any():
        atoms.cell = None
    return atoms


def silicon(rattle=0.05):
    return atoms_of(systems.si8(rattle))


def counted(model=SW):
    """The potential, and a list that grows whenever its energy is traced: once a compilation."""
    traced = []

    def energy(params, structure, neighbors):
        traced.append(neighbors.index.shape)
        return model.energy(params, structure, neighbors)

    return potential(model.species, model.cutoff, model.init, energy), traced


def inputs(model, structure):
    return structure, neighbor_list(model.cutoff).allocate(structure)


def hot(atoms, kelvin):
    noise = np.random.default_rng(0).normal(0, 1, (len(atoms), 3))
    atoms.set_momenta(np.sqrt(atoms.get_masses()[:, None] * ase.units.kB * kelvin) * noise)
    return atoms


# ASE calculator


@BY_CASE
def test_calculator_says_what_the_potential_says(model, make):
    structure, params = make(), model.init(None)
    atoms = atoms_of(structure, model.species)
    atoms.calc = PotentialCalculator(model, params)
    evaluate = jax.jit(
        lambda *args: (
            energy_and_forces(model.energy, params, *args),
            stress(model.energy, params, *args),
        )
    )
    (energy, forces), virial = evaluate(*inputs(model, structure))
    assert_close(atoms.get_potential_energy(), energy, 1e-12)
    assert_close(atoms.get_potential_energy(force_consistent=True), energy, 1e-12)
    assert_close(atoms.get_forces(), forces, 1e-12)
    assert atoms.get_forces().dtype == np.float64
    if atoms.cell.rank == 3:
        assert_close(atoms.get_stress(), full_3x3_to_voigt_6_stress(virial), 1e-12)


@BY_CASE
def test_forces_and_stress_are_derivatives_by_ases_finite_differences(model, make):
    atoms = atoms_of(make(), model.species)
    atoms.calc = PotentialCalculator(model, model.init(None))
    numeric = calculate_numerical_forces(atoms, eps=1e-5, iatoms=[0, 2])
    assert np.abs(numeric).max() > 1e-3
    assert np.abs(atoms.get_forces()[[0, 2]] - numeric).max() < 1e-5
    if atoms.cell.rank == 3:
        numeric = calculate_numerical_stress(atoms, eps=1e-5)
        assert np.abs(atoms.get_stress() - numeric).max() < 1e-7


@pytest.mark.parametrize("cell", [None, (5.43, 5.43, 0), (9, 0, 0)])
def test_stress_needs_a_cell_of_three_vectors(cell):
    atoms = silicon()
    atoms.cell, atoms.pbc = cell, np.array(cell or (0, 0, 0)) > 0
    atoms.calc = PotentialCalculator(SW, SW_PARAMS)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        atoms.get_stress()


def test_results_follow_the_atoms():
    atoms = silicon()
    calculator = atoms.calc = PotentialCalculator(SW, SW_PARAMS)
    fresh = lambda: PotentialCalculator(SW, SW_PARAMS)
    changes = {
        "positions": lambda: atoms.rattle(0.1),
        "cell": lambda: atoms.set_cell(1.02 * atoms.cell, scale_atoms=True),
        "pbc": lambda: atoms.set_pbc((True, False, True)),
        "number": lambda: atoms.pop(),
    }
    before = atoms.get_potential_energy()
    for what, change in changes.items():
        change()
        atoms.get_stress()
        after = atoms.get_potential_energy()
        assert abs(after - before) > 1e-3, what
        assert_close(after, fresh().get_property("energy", atoms), 1e-12)
        assert_close(atoms.get_forces(), fresh().get_property("forces", atoms), 1e-11)
        assert_close(atoms.get_stress(), fresh().get_property("stress", atoms), 1e-11)
        before = after
    other = silicon(0.2)
    calculator.calculate(other, ["energy"])
    assert "forces" not in calculator.results


def test_results_follow_the_parameters():
    model, traced = counted()
    atoms = silicon()
    atoms.calc = PotentialCalculator(model, SW_PARAMS)
    before = atoms.get_potential_energy()
    atoms.calc.params = {**SW_PARAMS, "epsilon": 2 * SW_PARAMS["epsilon"]}
    assert_close(atoms.get_potential_energy(), 2 * before, 1e-12)
    assert len(traced) == 1


def test_only_what_is_asked_for_is_computed():
    model, traced = counted()
    asked = []

    def novelty_fn(structure, neighbors):
        asked.append(neighbors.index.shape)
        return jnp.sum(neighbors.mask, axis=-1)

    atoms = silicon()
    calculator = atoms.calc = PotentialCalculator(model, SW_PARAMS, novelty_fn, 2.9)
    assert calculator.implemented_properties[-1] == "novelty"
    atoms.get_potential_energy()
    assert set(calculator.results) == {"energy", "free_energy"}
    assert len(traced) == 1
    atoms.get_forces()
    assert set(calculator.results) == {"energy", "free_energy", "forces"}
    assert len(traced) == 2
    assert not asked
    novelty = calculator.get_property("novelty", atoms)
    assert novelty.dtype == np.float64
    assert np.array_equal(novelty, np.full(8, 4.0))
    assert "stress" not in calculator.results
    assert (len(traced), len(asked)) == (2, 1)
    calculator.get_property("novelty", atoms)
    atoms.rattle(0.01)
    calculator.get_property("novelty", atoms)
    assert "energy" not in calculator.results
    assert (len(traced), len(asked)) == (2, 1)


def test_novelty_is_a_property_only_of_a_calculator_that_has_it():
    atoms = silicon()
    atoms.calc = PotentialCalculator(SW, SW_PARAMS)
    assert "novelty" not in atoms.calc.implemented_properties
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("novelty", atoms)
    PotentialCalculator(SW, SW_PARAMS, lambda s, n: s.mask)
    assert "novelty" not in atoms.calc.implemented_properties


def test_an_error_is_raised_again_when_asked_again():
    atoms = silicon()
    atoms.calc = PotentialCalculator(SW, SW_PARAMS)
    atoms.get_potential_energy()
    atoms.positions[3, 1] = np.nan
    for _ in range(2):
        with pytest.raises(errors.GeometryError, match=r"atom 3: .*not finite"):
            atoms.get_potential_energy()
    atoms = silicon()
    atoms.symbols[5] = "Ge"
    atoms.calc = PotentialCalculator(SW, SW_PARAMS)
    for _ in range(2):
        with pytest.raises(errors.SpeciesError, match="atom 5: Ge"):
            atoms.get_forces()


def test_a_calculator_without_atoms_says_so():
    with pytest.raises(errors.OptionError, match="no atoms"):
        PotentialCalculator(SW, SW_PARAMS).get_potential_energy()


def test_dynamics_conserves_energy_and_compiles_a_few_times():
    model, traced = counted()
    atoms = hot(silicon(0.0), 2500.0)
    atoms.calc = PotentialCalculator(model, SW_PARAMS)
    dynamics = VelocityVerlet(atoms, timestep=0.5 * ase.units.fs)
    total = []
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    kinetic = atoms.get_kinetic_energy()
    dynamics.run(300)
    assert len(total) == 301
    assert np.ptp(total) < 2e-3 * kinetic
    assert atoms.get_kinetic_energy() < 0.8 * kinetic
    assert len(traced) <= 3


def test_similar_structures_share_what_is_compiled():
    model, traced = counted()
    atoms = silicon()
    atoms.calc = PotentialCalculator(model, SW_PARAMS)
    for scale in (1.0, 0.8, 1.0, 0.6, 0.8, 1.2, 0.61, 0.6):
        atoms.set_cell(5.43 * scale * np.eye(3), scale_atoms=True)
        atoms.get_potential_energy()
    capacities = [shape[1] for shape in traced]
    assert capacities == [32, 64]
    # a calculator of the same potential takes what is compiled
    another = silicon()
    another.calc = PotentialCalculator(model, SW_PARAMS)
    another.get_potential_energy()
    assert len(traced) == 2


def test_results_do_not_depend_on_what_was_computed_before():
    crowded = silicon()
    crowded.set_cell(0.6 * crowded.cell.array, scale_atoms=True)
    fresh, used = (PotentialCalculator(stillinger_weber(), SW_PARAMS) for _ in range(2))
    used.get_property("energy", crowded)
    atoms = silicon()
    for name in ("energy", "forces", "stress"):
        assert np.array_equal(used.get_property(name, atoms), fresh.get_property(name, atoms))


def test_relaxation_with_the_cell_finds_the_crystal():
    model, traced = counted()
    atoms = silicon(0.1)
    atoms.set_cell(atoms.cell @ np.diag([1.05, 0.97, 1.02]), scale_atoms=True)
    atoms.calc = PotentialCalculator(model, SW_PARAMS)
    assert LBFGS(UnitCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    # cohesive energy and lattice constant of the potential's diamond crystal
    assert_close(atoms.get_potential_energy() / 8, -2 * SW_PARAMS["epsilon"], 1e-6)
    assert_close(atoms.get_volume() ** (1 / 3), 2.0951 * 2 ** (1 / 6) * 4 / 3**0.5, 1e-4)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    # forces and stress, once or twice each
    assert len(traced) <= 4


def test_calculator_can_be_copied_and_its_results_written(tmp_path):
    atoms = silicon()
    atoms.calc = PotentialCalculator(SW, SW_PARAMS, lambda s, n: jnp.ones(len(s.mask)))
    atoms.get_forces()
    atoms.calc.get_property("novelty", atoms)
    again = copy.deepcopy(atoms)
    again.rattle(0.1)
    assert again.get_potential_energy() != atoms.get_potential_energy()
    for name in ("a.extxyz", "a.traj"):
        write(tmp_path / name, atoms)
        assert_close(read(tmp_path / name).get_forces(), atoms.get_forces(), 1e-7)


def test_single_precision_gives_arrays_in_double():
    atoms = silicon()
    expected = float(SW.energy(SW_PARAMS, *inputs(SW, systems.si8(0.05))))
    with jax.enable_x64(False):
        params = SW.init(None)
        atoms.calc = PotentialCalculator(SW, params)
        assert atoms.get_forces().dtype == atoms.get_stress().dtype == np.float64
        energy = atoms.get_potential_energy()
        assert type(energy) is float
        assert 0 < abs(energy - expected) < 1e-3
        neighbor_fn, energy_fn = jax_md_pair(SW, params, atoms)
        neighbors = neighbor_fn.allocate(atoms.positions)
        for shift in (5.43, 1.0, 0.0):
            neighbors = neighbors.update(atoms.positions + shift)
            energy = jax.jit(energy_fn)(atoms.positions, neighbor=neighbors)
            assert energy.dtype == np.float32
            assert abs(energy - expected) < 1e-3


def test_importing_does_not_import_jax_md():
    code = "import sys, jaxvae_md.interop; assert not {'jax_md', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# jax_md


def pair_of(model, atoms, **kwargs):
    params = model.init(None)
    neighbor_fn, energy_fn = jax_md_pair(model, params, atoms, **kwargs)
    value_and_force = jax.jit(
        lambda r, n: jax.tree.map(
            lambda x, sign: sign * x, jax.value_and_grad(energy_fn)(r, neighbor=n), (1, -1)
        )
    )
    return neighbor_fn, energy_fn, value_and_force


@BY_CASE
def test_pair_says_what_the_potential_says_wrapped_or_not(model, make):
    structure, params = make(), model.init(None)
    own = jax.jit(lambda *args: energy_and_forces(model.energy, params, *args))
    expected = own(*inputs(model, structure))
    neighbor_fn, _, evaluate = pair_of(model, to_atoms(structure, model.species))
    built = neighbor_fn.allocate(structure.position)
    assert not built.did_buffer_overflow
    rng = np.random.default_rng(0)
    turns = rng.integers(-3, 4, (5, len(structure.mask), 3)) * structure.pbc
    small = rng.normal(0, 0.02, structure.position.shape)
    for turn in (0 * turns[0], *turns):
        wrapped = structure.position + turn @ structure.cell
        kept = neighbor_fn.update(wrapped, built)
        # lattice vectors alone do not make a list stale
        assert np.array_equal(kept.reference_position, built.reference_position)
        for value, reference in zip(evaluate(wrapped, kept), expected, strict=True):
            assert_close(value, reference, 1e-11)
        moved = structure._replace(position=structure.position + small)
        other = own(*inputs(model, moved))
        for value, reference in zip(evaluate(wrapped + small, built), other, strict=True):
            assert_close(value, reference, 1e-11)


def test_a_list_is_built_again_when_atoms_moved_and_then_fits():
    atoms = silicon()
    neighbor_fn, _, evaluate = pair_of(SW, atoms)
    built = neighbor_fn.allocate(atoms.positions, extra_capacity=40)
    far = atoms.positions + np.random.default_rng(1).normal(0, 0.4, (8, 3)) + [5.43, 0, -10.86]
    update = jax.jit(lambda r, n: n.update(r))
    for after in (update(far, built), neighbor_fn.update(far, built), neighbor_fn.allocate(far)):
        assert_close(after.reference_position, far, 0)
        assert not after.did_buffer_overflow
        value, force = evaluate(far, after)
        moved = atoms.copy()
        moved.positions = far
        moved.calc = PotentialCalculator(SW, SW_PARAMS)
        assert_close(value, moved.get_potential_energy(), 1e-11)
        assert_close(force, moved.get_forces(), 1e-11)


@pytest.mark.parametrize("make", [systems.slab, systems.cluster])
def test_a_cell_vector_that_is_not_periodic_is_a_move_like_any_other(make):
    structure = make()
    neighbor_fn, _, evaluate = pair_of(SW, to_atoms(structure, systems.SI))
    built = neighbor_fn.allocate(structure.position, extra_capacity=8)
    moved = structure.position.copy()
    moved[0] -= structure.cell[2]
    after = built.update(moved)
    assert_close(after.reference_position, moved, 0)
    own = jax.jit(lambda *args: energy_and_forces(SW.energy, SW_PARAMS, *args))
    expected = own(*inputs(SW, structure._replace(position=moved)))
    for value, reference in zip(evaluate(moved, after), expected, strict=True):
        assert_close(value, reference, 1e-11)
    assert abs(evaluate(structure.position, built)[0] - expected[0]) > 0.1


def test_extra_capacity_is_added():
    atoms = silicon()
    neighbor_fn, *_ = pair_of(SW, atoms)
    plain = neighbor_fn.allocate(atoms.positions).pairs.index.shape[1]
    more = neighbor_fn.allocate(atoms.positions, extra_capacity=7).pairs.index.shape[1]
    assert more == plain + 7


def test_gradient_is_the_derivative_on_both_sides_of_a_wrap():
    structure = systems.triclinic()
    neighbor_fn, energy_fn, _ = pair_of(SW, to_atoms(structure, systems.SI))
    neighbors = neighbor_fn.allocate(structure.position)
    wrapped = structure.position + np.array([[2, 0, 0], [0, 0, 0], [-1, 1, 3], [0, -2, 0]]) @ (
        structure.cell
    )
    assert_gradient(lambda r: energy_fn(r, neighbor=neighbors), wrapped)


def test_parameters_can_be_trained():
    atoms = silicon()
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    neighbors = neighbor_fn.allocate(atoms.positions)
    twice = {**SW_PARAMS, "epsilon": 2 * SW_PARAMS["epsilon"]}
    energy = energy_fn(atoms.positions, neighbor=neighbors)
    assert_close(energy_fn(atoms.positions, neighbors, params=twice, t=3.0), 2 * energy, 1e-12)
    assert_gradient(lambda p: energy_fn(atoms.positions, neighbor=neighbors, params=p), SW_PARAMS)


def test_what_would_deform_the_cell_is_refused():
    from jax_md import quantity

    atoms = silicon()
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    r = jnp.asarray(atoms.positions)
    neighbors = neighbor_fn.allocate(r)
    for calling in (
        lambda: energy_fn(r, neighbor=neighbors, box=5.0),
        lambda: jax.jit(energy_fn)(r, neighbor=neighbors, box=5.0),
        lambda: neighbors.update(r, box=5.0),
        lambda: neighbor_fn.update(r, neighbors, box=5.0),
        lambda: neighbor_fn.allocate(r, box=5.0),
    ):
        with pytest.raises(errors.OptionError, match="box is given, but the cell is fixed"):
            calling()
    with pytest.raises(errors.OptionError, match="the cell is fixed"):
        quantity.stress(energy_fn, r, 5.43 * jnp.eye(3), neighbor=neighbors)


def test_other_atoms_are_refused():
    atoms = silicon()
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    neighbors = neighbor_fn.allocate(atoms.positions)
    with pytest.raises(errors.GeometryError, match=r"\(7, 3\) for 8 atoms"):
        neighbor_fn.allocate(atoms.positions[1:])
    with pytest.raises(errors.GeometryError, match=r"\(7, 3\) for 8 atoms"):
        energy_fn(atoms.positions[1:], neighbors)
    atoms.symbols[2] = "C"
    with pytest.raises(errors.SpeciesError, match="atom 2"):
        jax_md_pair(SW, SW_PARAMS, atoms)


def test_nan_is_not_hidden():
    atoms = silicon()
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    neighbors = neighbor_fn.allocate(atoms.positions)
    lost = jnp.asarray(atoms.positions).at[2, 0].set(jnp.nan)
    assert np.isnan(energy_fn(lost, neighbors))
    assert np.isnan(energy_fn(lost, neighbors.update(lost)))
    with pytest.raises(errors.GeometryError, match="atom 2"):
        neighbor_fn.allocate(lost)


def test_overflow_is_flagged_and_sticky():
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), -1).reshape(-1, 3)
    structure = systems.make(20 + 3 * corners, 40 * np.eye(3))
    neighbor_fn, *_ = pair_of(SW, to_atoms(structure, systems.SI))
    neighbors = neighbor_fn.allocate(structure.position)
    update = jax.jit(lambda r, n: n.update(r))
    assert not update(structure.position + 1.0, neighbors).did_buffer_overflow
    packed = update(20 + corners, neighbors)
    assert packed.did_buffer_overflow
    again = update(structure.position, packed)
    assert_close(again.reference_position, structure.position, 0)
    assert again.did_buffer_overflow
    assert not neighbor_fn.allocate(20 + corners).did_buffer_overflow


def run_nve(energy_fn, shift_fn, dt, state, neighbors, num_steps):
    """Positions, total energy and whether the list overflowed."""
    from jax_md import quantity, simulate

    _, step = simulate.nve(energy_fn, shift_fn, dt * units.FEMTOSECOND)

    def one(carry, _):
        state, neighbors = carry
        neighbors = neighbors.update(state.position)
        state = step(state, neighbor=neighbors)
        kinetic = quantity.kinetic_energy(momentum=state.momentum, mass=state.mass)
        energy = energy_fn(state.position, neighbor=neighbors) + kinetic
        return (state, neighbors), (state.position, energy, kinetic)

    scan = jax.jit(lambda *carry: lax.scan(one, carry, length=num_steps))
    (_, neighbors), recorded = scan(state, neighbors)
    assert not neighbors.did_buffer_overflow
    return [np.asarray(a) for a in recorded]


def begin(neighbor_fn, energy_fn, shift_fn, atoms, kelvin):
    from jax_md import simulate

    init, _ = simulate.nve(energy_fn, shift_fn, units.FEMTOSECOND)
    neighbors = neighbor_fn.allocate(atoms.positions, extra_capacity=16)
    position, mass = jnp.asarray(atoms.positions), jnp.asarray(atoms.get_masses())
    kT = units.BOLTZMANN * kelvin
    return init(jax.random.key(0), position, kT, mass=mass, neighbor=neighbors), neighbors


def test_hot_silicon_in_jax_md_conserves_energy_across_the_boundary():
    from jax_md import space

    atoms = bulk("Si", cubic=True)
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    _, wrapping = space.periodic(atoms.cell.lengths())
    state, neighbors = begin(neighbor_fn, energy_fn, wrapping, atoms, 3000.0)
    position, energy, kinetic = run_nve(energy_fn, wrapping, 0.5, state, neighbors, 400)
    assert ((position >= 0) & (position <= 5.44)).all()
    jumps = np.abs(np.diff(position, axis=0)).max(axis=(1, 2)) > 5.43 / 2
    assert jumps.sum() > 10
    assert kinetic[200:].mean() < 0.8 * kinetic[0]
    assert np.ptp(energy) < 2e-3 * kinetic[0]


@pytest.mark.parametrize("make", [systems.si8, systems.triclinic, systems.slab])
def test_wrapping_does_not_change_a_trajectory(make):
    from jax_md import space

    structure = make()
    atoms = to_atoms(structure, systems.SI)
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    _, free = space.free()
    state, neighbors = begin(neighbor_fn, energy_fn, free, atoms, 1500.0)
    expected, *_ = run_nve(energy_fn, free, 0.5, state, neighbors, 60)
    if structure.pbc.all():
        _, wrapping = space.periodic_general(
            jnp.asarray(structure.cell.T), fractional_coordinates=False
        )
    else:
        _, wrapping = space.periodic(jnp.array([5.43, 5.43, 1e4]))
    position, *_ = run_nve(energy_fn, wrapping, 0.5, state, neighbors, 60)
    turns = (position - expected) @ np.linalg.inv(structure.cell)
    nearest = np.round(turns) if structure.pbc.all() else np.round(turns) * structure.pbc
    assert np.abs(nearest).max() > 0
    assert_close(position - nearest @ structure.cell, expected, 1e-9)


@pytest.mark.parametrize("wrapped", [False, True])
def test_jax_md_follows_our_own_trajectory(wrapped):
    from jax_md import space

    structure = systems.si8()
    atoms = to_atoms(structure, systems.SI)
    simulator = simulate.nve(SW, dt=1.0)
    ours = simulator.init(
        jax.random.key(0),
        SW_PARAMS,
        structure,
        simulator.neighbor_fns.allocate(structure, extra=1.5),
        1500.0,
    )
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    _, shift_fn = space.periodic(5.43) if wrapped else space.free()
    state, neighbors = begin(neighbor_fn, energy_fn, shift_fn, atoms, 1500.0)
    assert_close(state.momentum, ours.dynamics.momentum, 1e-12)
    _, trajectory = jax.jit(lambda s: simulate.rollout(simulator, SW_PARAMS, s, 20))(ours)
    assert int(trajectory.error) == 0
    position, *_ = run_nve(energy_fn, shift_fn, 1.0, state, neighbors, 20)
    turns = np.round((position - trajectory.position) / 5.43)
    assert (np.abs(turns).max() > 0) == wrapped
    assert np.abs(position - 5.43 * turns - trajectory.position).max() < 1e-8


def test_a_jax_md_loop_compiles_once():
    from jax_md import simulate, space

    model, traced = counted()
    atoms = silicon()
    neighbor_fn, energy_fn, _ = pair_of(model, atoms)
    _, shift_fn = space.periodic(5.43)
    state, neighbors = begin(neighbor_fn, energy_fn, shift_fn, atoms, 1500.0)
    _, step = simulate.nve(energy_fn, shift_fn, units.FEMTOSECOND)

    @jax.jit
    def ten(state, neighbors):
        def one(_, carry):
            state, neighbors = carry
            return step(state, neighbor=neighbors), neighbors.update(state.position)

        return lax.fori_loop(0, 10, one, (state, neighbors))

    state, neighbors = ten(state, neighbors)
    before = len(traced)
    for _ in range(3):
        state, neighbors = ten(state, neighbors)
    assert len(traced) == before
    assert ten._cache_size() == 1
    fresh = neighbor_fn.allocate(state.position, extra_capacity=16)
    assert jax.tree.structure(fresh) == jax.tree.structure(neighbors)


def test_a_molecule_in_free_space():
    from jax_md import space

    atoms = atoms_of(systems.cluster())
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    _, free = space.free()
    state, neighbors = begin(neighbor_fn, energy_fn, free, atoms, 1000.0)
    _, energy, kinetic = run_nve(energy_fn, free, 0.5, state, neighbors, 100)
    assert np.ptp(energy) < 2e-3 * kinetic[0]


def test_the_pair_does_not_depend_on_what_becomes_of_the_atoms():
    atoms = silicon()
    structure = from_atoms(atoms, systems.SI)
    neighbor_fn, energy_fn, _ = pair_of(SW, atoms)
    atoms.rattle(0.1)
    neighbors = neighbor_fn.allocate(structure.position)
    expected = SW.energy(SW_PARAMS, *inputs(SW, structure))
    assert_close(energy_fn(structure.position, neighbors), expected, 1e-11)
