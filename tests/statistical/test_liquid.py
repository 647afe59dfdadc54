"""The Lennard-Jones liquid against published averages, and how well its energy is kept.

In reduced units: sigma is an angstrom, epsilon an eV.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import units
from jaxvae_md.pair_list import PairList, pair_list
from jaxvae_md.potentials import evaluate, lennard_jones
from jaxvae_md.simulate import begin, chunks, nve, nvt_langevin, nvt_nose_hoover, run
from jaxvae_md.structure import Structure
from tests import systems
from tests.argon import MASS
from tests.statistical.averages import mean_and_error

pytestmark = pytest.mark.statistical

TAU = MASS**0.5 / units.FEMTOSECOND
"""fs in the unit of time sigma sqrt(m / epsilon)"""


def lattice(num_cells: int, density: float) -> Structure:
    """A face-centred cubic crystal, which melts at once."""
    sites = 0.5 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    whole = systems.repeated(systems.make(sites, np.eye(3)), (num_cells,) * 3)
    scale = (4 / density) ** (1 / 3)
    return systems.make(scale * whole.position, scale * whole.cell, rattle=0.02)


ENSEMBLES = {
    "langevin": lambda lj, kelvin: nvt_langevin(lj, 0.005 * TAU, kelvin, 1 / TAU, skin=0.3),
    "nose_hoover": lambda lj, kelvin: nvt_nose_hoover(lj, 0.005 * TAU, kelvin, 0.5 * TAU, skin=0.3),
}


@pytest.mark.parametrize(
    ("ensemble", "density", "energy", "pressure"),
    [
        # NIST's coexistence point, and LAMMPS with the same cutoff (see golden/nist_lj.md)
        ("langevin", 0.77681, -5.5179, 0.0076),
        ("langevin", 0.820, -5.791, 0.571),
        ("nose_hoover", 0.860, -6.027, 1.282),
    ],
)
def test_energy_and_pressure_of_the_liquid(ensemble, density, energy, pressure):
    kT, num_steps = 0.85, 120_000
    lj = lennard_jones(("Ar",), 3.0, 1.0, 1.0, "cut", tail=True)
    structure = systems.single(lattice(5, density))
    num, volume = len(structure.position), np.linalg.det(structure.cell)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), lj.init(None))
    simulator = ENSEMBLES[ensemble](lj, kT / units.BOLTZMANN)
    state = begin(simulator, params, structure, jax.random.key(0), 2 * kT / units.BOLTZMANN)
    assert isinstance(state.neighbors, PairList)
    fns = pair_list(lj.cutoff, 0.0)
    fresh = fns.allocate(structure, extra=1.6)

    @jax.jit
    def virials(positions):
        def one(position):
            moved = jax.tree.map(jnp.asarray, structure)._replace(position=position)
            pairs = fns.update(moved, fresh)
            return evaluate.forces_and_virial(lj, params, moved, pairs)[1], pairs.overflow

        return jax.lax.map(one, positions)

    energies, works, kelvin = [], [], []
    for part in chunks(simulator, params, state, num_steps, record_every=20, chunk=2000):
        assert int(part.trajectory.error) == 0
        work, overflow = virials(part.trajectory.position)
        assert not np.any(overflow)
        energies.append(part.trajectory.potential_energy)
        works.append(work)
        kelvin.append(part.trajectory.temperature)
    energies, works, kelvin = map(np.concatenate, (energies, works, kelvin))
    mean, error = mean_and_error(energies / num)
    assert error < 0.003, "too short a run to tell"
    assert abs(mean - energy) < 0.01, f"{mean:.4f} +- {error:.4f}"
    # the kinetic part is known
    measured, error_p = mean_and_error(density * kT + works / (3 * volume))
    assert error_p < 0.01, "too short a run to tell"
    assert abs(measured - pressure) < 0.03, f"{measured:.4f} +- {error_p:.4f}"
    mean_T, error_T = mean_and_error(kelvin * units.BOLTZMANN)
    print(
        f"{ensemble} {density}: U {mean:.4f}({error:.4f}) p {measured:.4f}({error_p:.4f}) "
        f"T {mean_T:.4f}({error_T:.4f})"
    )
    assert error_T < 0.003, "too short a run to tell"
    assert abs(mean_T - kT) < 3 * error_T + 0.002, f"{mean_T:.4f} +- {error_T:.4f}"


SWITCHED = lennard_jones(("Ar",), 2.5, 1.0, 1.0, "switch")


def total_energy(dt: float, tau: float, start, record_every: int = 20):
    """Times (tau) and energies per atom (epsilon) from a liquid at constant energy."""
    structure, momentum = start
    simulator = nve(SWITCHED, dt * TAU, skin=0.4)
    state = begin(simulator, SWITCHED.init(None), structure, jax.random.key(0), momentum=momentum)
    energies = []
    num = len(structure.position)
    for part in chunks(
        simulator,
        SWITCHED.init(None),
        state,
        round(tau / dt),
        record_every=record_every,
        chunk=5000,
    ):
        assert int(part.trajectory.error) == 0
        kinetic = 0.5 * (3 * num - 3) * units.BOLTZMANN * part.trajectory.temperature
        energies.append((part.trajectory.potential_energy + kinetic) / num)
    energies = np.concatenate(energies)
    return dt * record_every * np.arange(1, len(energies) + 1), energies


@pytest.fixture(scope="module")
def liquid():
    """Positions and momenta of a liquid of 108 atoms at a temperature of about one."""
    simulator = nvt_langevin(SWITCHED, 0.005 * TAU, 1.0 / units.BOLTZMANN, 1 / TAU, skin=0.4)
    structure = lattice(3, 0.8)
    trajectory = run(
        simulator,
        SWITCHED.init(None),
        structure,
        jax.random.key(0),
        4000,
        initial_temperature=2.0 / units.BOLTZMANN,
        record_every=4000,
        chunk=4000,
    )
    momentum = trajectory.momentum[-1] - trajectory.momentum[-1].mean(axis=0)
    return structure._replace(position=trajectory.position[-1]), momentum


def test_energy_does_not_drift_in_a_hundred_thousand_steps(liquid):
    times, energies = total_energy(0.002, 200.0, liquid)
    slope = np.polyfit(times, energies, 1)[0]
    print(f"slope {slope:.3g} epsilon / tau, std {energies.std():.3g}")
    assert 0 < energies.std() < 1e-3
    assert abs(slope) < 1e-6


def test_error_of_the_energy_falls_with_the_square_of_the_time_step(liquid):
    spread = [
        total_energy(dt, 1.6, liquid, round(0.016 / dt))[1].std() for dt in (0.004, 0.002, 0.001)
    ]
    assert spread[2] > 0
    for coarse, fine in pairwise(spread):
        assert 3.8 < coarse / fine < 4.2
