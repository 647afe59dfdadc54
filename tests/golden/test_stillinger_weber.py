"""Stillinger-Weber against LAMMPS (see lj_golden.md)."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, stillinger_weber, stress
from tests import systems
from tests.asserts import assert_close

GOLDEN = dict(np.load(Path(__file__).with_name("lj_golden.npz")))
CASES = [str(c) for c in GOLDEN["metal__cases"] if str(c).startswith("sw_")]


@pytest.mark.parametrize("name", CASES)
def test_energy_forces_and_stress_equal_lammps(name):
    reference = {key: GOLDEN[f"metal__{name}__{key}"] for key in ("energy", "forces", "stress")}
    structure = systems.make(GOLDEN[f"metal__{name}__positions"], GOLDEN[f"metal__{name}__cell"])
    sw = stillinger_weber()
    neighbors = neighbor_list(sw.cutoff).allocate(structure)

    @jax.jit
    def run(structure, neighbors):
        state = sw.init(None), structure, neighbors
        return *energy_and_forces(sw.energy, *state), stress(sw.energy, *state)

    energy, forces, tensor = run(structure, neighbors)
    assert_close(energy, reference["energy"], 1e-12)
    assert_close(forces, reference["forces"], 1e-10)
    assert_close(tensor, reference["stress"], 1e-10)
