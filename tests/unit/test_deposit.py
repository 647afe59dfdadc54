"""Growth at a surface: energy, zones, arrivals, departures, continuation."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from jaxvae_md.errors import GeometryError, OptionError, RunError, SpeciesError
from jaxvae_md.potentials import lennard_jones, tersoff
from jaxvae_md.simulate import beam, begin_deposit, deposit, energy_balance, zoned_langevin
from jaxvae_md.simulate.loop import _jit_recorded
from jaxvae_md.structure import Structure, from_atoms
from tests.asserts import assert_close

KEY = jax.random.key(0)
ARGON = lennard_jones(("Ar",), 6.0, 3.4, 0.0104, "switch")
PARAMS = ARGON.init(None)
COLD = zoned_langevin(ARGON, dt=4.0, temperature=20.0, friction=0.01)
ATOM = beam(Atoms("Ar"), ("Ar",), energy=0.05)


def slab(layers: int = 5) -> Structure:
    """Layers of fcc argon, 2.63 angstrom apart, with a surface along z."""
    atoms = bulk("Ar", "fcc", a=5.26, cubic=True) * (3, 3, (layers + 1) // 2)
    atoms = atoms[atoms.positions[:, 2] < 2.63 * layers - 1]
    atoms.pbc = (True, True, False)
    return from_atoms(atoms, ("Ar",))


def begun(capacity: int = 130, layers: int = 7, **options):
    options = {"initial_temperature": 20.0, "thermostatted": 3.0} | options
    return begin_deposit(COLD, PARAMS, slab(layers), KEY, capacity=capacity, **options)


@cache
def grown():
    """The start, and what happened at each of four arrivals."""
    start = begun()
    return start, list(deposit(COLD, PARAMS, start, ATOM, 4, 200, record_every=50))


def test_energy_is_what_it_was_and_what_came_and_went():
    start, growths = grown()
    first = energy_balance(COLD, PARAMS, start)
    assert first["heat"] == first["brought"] == first["carried"] == 0
    for growth in growths:
        balance = energy_balance(COLD, PARAMS, growth.deposit)
        assert balance["conserved"] == pytest.approx(first["conserved"], abs=1e-3)
    # what is compared with is large beside that
    assert abs(balance["heat"]) > 0.02
    assert balance["brought"] == pytest.approx(4 * 0.05, abs=1e-9)


def test_the_error_of_the_balance_is_that_of_the_time_step():
    def off(dt):
        simulator = zoned_langevin(ARGON, dt=dt, temperature=20.0, friction=0.01)
        options = {"capacity": 130, "initial_temperature": 20.0, "thermostatted": 3.0}
        start = begin_deposit(simulator, PARAMS, slab(7), KEY, **options)
        *_, last = deposit(simulator, PARAMS, start, ATOM, 1, round(800 / dt), record_every=20)
        both = [energy_balance(simulator, PARAMS, d)["conserved"] for d in (start, last.deposit)]
        return abs(both[1] - both[0])

    assert off(2.5) < 0.4 * off(10.0)


def test_fixed_atoms_stay_and_arrivals_are_atoms_of_the_beam():
    start, growths = grown()
    num, fixed = int(start.state.structure.mask.sum()), np.asarray(start.state.dynamics.fixed)[:, 0]
    assert 0 < fixed.sum() < num
    position = np.asarray(start.state.structure.position)
    for number, growth in enumerate(growths, 1):
        assert growth.mask.sum() == num + number
        assert int(growth.deposit.num_arrivals) == number
        assert np.all(growth.trajectory.position[:, fixed] == position[fixed])
        assert np.any(
            growth.trajectory.position[-1, ~fixed & growth.mask] != position[~fixed & growth.mask]
        )
        # who has not arrived does not move
        assert not np.any(growth.trajectory.momentum[:, ~growth.mask])


def test_all_arrivals_share_what_is_compiled():
    _, growths = grown()
    assert _jit_recorded(COLD, 200, 50)._cache_size() == 1
    assert not any(int(growth.trajectory.error) for growth in growths)


def test_a_simulation_goes_on_bit_by_bit():
    _, growths = grown()
    again = list(deposit(COLD, PARAMS, growths[1].deposit, ATOM, 4, 200, record_every=50))
    assert len(again) == 2
    for one, other in zip(again, growths[2:], strict=True):
        assert np.all(one.trajectory.position == other.trajectory.position)
        assert np.all(one.trajectory.momentum == other.trajectory.momentum)
    assert energy_balance(COLD, PARAMS, again[-1].deposit) == energy_balance(
        COLD, PARAMS, growths[-1].deposit
    )


def test_a_beam_has_its_energy_and_angle():
    oblique = beam(Atoms("Ar"), ("Ar",), energy=0.2, angle=40.0)
    start = begun()
    slot = int(start.state.structure.mask.sum())
    (growth,) = deposit(COLD, PARAMS, start, oblique, 1, 1, record_every=1)
    momentum = growth.trajectory.momentum[0, slot]
    mass = float(growth.deposit.state.dynamics.mass[slot, 0])
    assert momentum @ momentum / (2 * mass) == pytest.approx(0.2, rel=1e-9)
    angle = np.degrees(np.arccos(-momentum[2] / np.linalg.norm(momentum)))
    assert angle == pytest.approx(40.0, abs=1e-6)


def test_what_flies_away_is_counted_and_its_energy_too():
    start = begun(extra=2.0)
    # an atom of the surface is shot upwards
    dynamics = start.state.dynamics
    shot = int(np.argmax(np.where(start.state.structure.mask, dynamics.position[:, 2], -np.inf)))
    momentum = dynamics.momentum.at[shot].set(jnp.array([0.0, 0.0, 6.0]))
    start = start._replace(
        state=start.state._replace(dynamics=dynamics._replace(momentum=momentum))
    )
    first = energy_balance(COLD, PARAMS, start)["conserved"]
    *_, last = deposit(COLD, PARAMS, start, ATOM, 3, 400, record_every=100)
    assert int(last.deposit.num_left) == 1
    assert not last.mask[shot] or int(last.deposit.num_arrivals) > 1
    balance = energy_balance(COLD, PARAMS, last.deposit)
    assert balance["carried"] > 0.2
    assert balance["conserved"] == pytest.approx(first, abs=5e-3)


def test_molecules_arrive_whole_and_turned():
    # as long as this potential wants it
    oxygen = beam(Atoms("O2", [[0, 0, 0], [0, 0, 1.5]]), ("O", "Si"), energy=0.5)
    atoms = bulk("Si", "diamond", a=5.432, cubic=True) * (1, 1, 2)
    atoms.pbc = (True, True, False)
    silicon = tersoff(("O", "Si"))
    simulator = zoned_langevin(silicon, dt=0.5, temperature=300.0)
    params = silicon.init(None)
    substrate = from_atoms(atoms, ("O", "Si"))
    start = begin_deposit(simulator, params, substrate, KEY, capacity=20, thermostatted=3.0)
    first = energy_balance(simulator, params, start)["conserved"]
    *_, last = deposit(simulator, params, start, oxygen, 2, 20, record_every=10)
    assert last.mask.sum() == 20
    arrived = np.nonzero(last.species[last.mask] == 0)[0]
    assert len(arrived) == 4
    position = last.trajectory.position[-1]
    bonds = position[[17, 19]] - position[[16, 18]]
    assert np.all(np.abs(np.linalg.norm(bonds, axis=1) - 1.5) < 0.1)
    assert abs(bonds[0] @ bonds[1]) < 0.99 * np.prod(np.linalg.norm(bonds, axis=1))
    balance = energy_balance(simulator, params, last.deposit)
    assert balance["brought"] < -4  # their bonds
    assert balance["conserved"] == pytest.approx(first, abs=1e-2)


def test_capacity_that_is_exhausted_is_an_error_after_what_is_good():
    num = len(slab(7).mask)
    start = begun(capacity=num + 1)
    growths = deposit(COLD, PARAMS, start, ATOM, 3, 50, record_every=50)
    assert next(growths).mask.all()
    with pytest.raises(RunError, match="arrival 2 finds no room"):
        next(growths)


def test_a_surface_that_is_crowded_above_is_an_error():
    start = begun(capacity=300)
    slow = beam(Atoms("Ar"), ("Ar",), energy=1e-6)
    with pytest.raises(RunError, match="no free place"):
        list(deposit(COLD, PARAMS, start, slow, 100, 1, record_every=1))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": 3}, GeometryError, "is 5.26 angstrom thick"),
        ({"fixed": 3.0}, OptionError, "fix 6 or more"),
        ({"capacity": 10}, OptionError, "the substrate has 126 atoms"),
    ],
)
def test_substrates_that_do_not_serve_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        begun(**change)


def test_a_periodic_substrate_has_no_surface():
    periodic = slab(7)._replace(pbc=np.ones(3, bool))
    with pytest.raises(GeometryError, match="no surface along z"):
        begin_deposit(COLD, PARAMS, periodic, KEY, capacity=200)


def test_bad_beams_are_refused():
    with pytest.raises(OptionError, match="energy"):
        beam(Atoms("Ar"), ("Ar",), energy=0.0)
    with pytest.raises(OptionError, match="angle"):
        beam(Atoms("Ar"), ("Ar",), energy=1.0, angle=90.0)
    with pytest.raises(SpeciesError):
        beam(Atoms("O"), ("Ar",), energy=1.0)
    with pytest.raises(OptionError, match="multiple of record_every"):
        next(deposit(COLD, PARAMS, begun(), ATOM, 1, 30, record_every=20))


def test_single_precision_stays_single_and_nearly_conserves():
    single = slab(7)
    single = single._replace(
        position=single.position.astype(np.float32), cell=single.cell.astype(np.float32)
    )
    params = jax.tree.map(lambda a: a.astype(np.float32), PARAMS)
    options = {"capacity": 130, "initial_temperature": 20.0, "thermostatted": 3.0}
    start = begin_deposit(COLD, params, single, KEY, **options)
    *_, last = deposit(COLD, params, start, ATOM, 2, 100, record_every=50)
    assert last.trajectory.position.dtype == np.float32
    balances = [energy_balance(COLD, params, d)["conserved"] for d in (start, last.deposit)]
    assert_close(balances[1], balances[0], 1e-3)
