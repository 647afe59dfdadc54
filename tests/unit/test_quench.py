"""Energy minimisation on the host: any size, any start."""

import jax
import numpy as np
import pytest

from jaxvae_md import errors
from jaxvae_md.errors import GeometryError, OptionError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.pair_list import PairList
from jaxvae_md.potentials import stillinger_weber
from jaxvae_md.simulate import begin, loop, nve, quench
from tests import systems
from tests.argon import ARGON, PARAMS, crystal
from tests.asserts import assert_close

MANY = crystal((5, 4, 4), rattle=0.4)


def energy_and_force(potential, params, structure):
    """By a list of its own, through the energy's gradient."""
    on_host = jax.tree.map(np.asarray, structure)
    neighbors = neighbor_list(potential.cutoff, 0.0).allocate(on_host)
    of_position = lambda x: potential.energy(params, on_host._replace(position=x), neighbors)
    energy, slope = jax.jit(jax.value_and_grad(of_position))(on_host.position)
    return energy, np.abs(slope).max()


def test_a_crystal_far_from_its_sites_returns_to_them(monkeypatch):
    kinds = []
    allocate = loop.allocate
    kept = lambda *a, **o: kinds.append(allocate(*a, **o)) or kinds[-1]
    monkeypatch.setattr(loop, "allocate", kept)
    relaxed = quench(ARGON, PARAMS, MANY, tolerance=1e-6)
    assert isinstance(kinds[0], PairList)
    assert int(relaxed.error) == 0
    assert relaxed.max_force <= 1e-6
    perfect, _ = energy_and_force(ARGON, PARAMS, crystal((5, 4, 4)))
    energy, force = energy_and_force(ARGON, PARAMS, relaxed.structure)
    assert_close(energy, perfect, 1e-8)
    assert_close(relaxed.energy, energy, 1e-12)
    assert_close(relaxed.max_force, force, 1e-6)
    assert np.abs(relaxed.structure.position - MANY.position).max() > 0.5, "beyond the first list"


def test_atoms_that_nearly_overlap_part():
    structure = crystal((2, 2, 2))
    structure.position[1] = structure.position[0] + [0.3, 0.1, 0.0]
    assert energy_and_force(ARGON, PARAMS, structure)[1] > 1e6
    relaxed = quench(ARGON, PARAMS, structure)
    assert int(relaxed.error) == 0
    assert energy_and_force(ARGON, PARAMS, relaxed.structure)[1] <= 1e-3
    assert relaxed.energy < 0


def test_fixed_atoms_stay_in_single_precision():
    silicon = stillinger_weber()
    structure = systems.single(systems.si8(rattle=0.1))
    fixed = np.arange(8) < 3
    relaxed = quench(silicon, silicon.init(None), structure, fixed=fixed, tolerance=2e-3)
    assert int(relaxed.error) == 0
    assert relaxed.structure.position.dtype == np.float32
    moved = np.abs(relaxed.structure.position - structure.position).max(axis=1)
    assert np.array_equal(moved == 0, fixed)
    assert energy_and_force(silicon, silicon.init(None), relaxed.structure)[1] > 0.1, "all free"
    whole = quench(silicon, silicon.init(None), structure, tolerance=2e-3)
    assert whole.energy < relaxed.energy


def test_steps_that_were_too_few_are_told_and_kept():
    relaxed = quench(ARGON, PARAMS, MANY, max_steps=50)
    assert int(relaxed.error) == errors.NOT_CONVERGED
    start, _ = energy_and_force(ARGON, PARAMS, MANY)
    assert relaxed.energy < start


def test_parameters_that_are_not_finite_are_told():
    relaxed = quench(ARGON, PARAMS | {"epsilon": np.nan * PARAMS["epsilon"]}, crystal())
    assert int(relaxed.error) & errors.NOT_FINITE
    assert np.isfinite(relaxed.structure.position).all()


def test_wrong_input_is_refused():
    with pytest.raises(OptionError, match="fixed has shape"):
        quench(ARGON, PARAMS, crystal(), fixed=np.zeros(3, bool))
    twins = crystal()
    twins.position[1] = twins.position[0]
    with pytest.raises(GeometryError, match="less than"):
        quench(ARGON, PARAMS, twins)


def test_a_quench_leads_into_a_simulation():
    relaxed = quench(ARGON, PARAMS, crystal(rattle=0.2))
    state = begin(nve(ARGON), PARAMS, relaxed.structure, jax.random.key(0), 10.0)
    assert np.isfinite(state.dynamics.force).all()
