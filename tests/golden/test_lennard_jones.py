"""Lennard-Jones against LAMMPS (see lj_golden.md) and NIST (see nist_lj.md)."""

from functools import lru_cache
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, lennard_jones, stress
from jaxvae_md.structure import Structure
from tests.asserts import assert_close

GOLDEN = dict(np.load(Path(__file__).with_name("lj_golden.npz")))
CUTOFF = float(GOLDEN["lj__rc"])
SCHEMES = ("cut", "shift", "force_shift")
CONFIGS = [str(c) for c in GOLDEN["lj__configs"]]


def periodic(position, cell, types) -> Structure:
    num = len(position)
    return Structure(position, cell, np.ones(3, bool), types.astype(np.int32), np.ones(num, bool))


@lru_cache
def computed(config: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Energy, forces and stress in every scheme."""
    start = f"lj__{config}__"
    structure = periodic(*(GOLDEN[start + name] for name in ("positions", "cell", "types")))
    neighbors = neighbor_list(CUTOFF).allocate(structure)

    @jax.jit
    def run(structure, neighbors):
        out = {}
        for scheme in SCHEMES:
            lj = lennard_jones(
                ("A", "B"), CUTOFF, GOLDEN["lj__sigma"], GOLDEN["lj__epsilon"], scheme
            )
            state = lj.init(None), structure, neighbors
            out[scheme] = *energy_and_forces(lj.energy, *state), stress(lj.energy, *state)
        return out

    return jax.tree.map(np.asarray, run(structure, neighbors))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("config", CONFIGS)
def test_energy_forces_and_stress_equal_lammps(config, scheme):
    for name, value in zip(("energy", "forces", "stress"), computed(config)[scheme], strict=True):
        assert_close(value, GOLDEN[f"lj__{config}__{scheme}__{name}"], 1e-12)


@pytest.mark.parametrize(
    ("cutoff", "scheme", "energy", "virial"),
    [
        (3.0, "cut", -16.790321304625863, -46.24919674630891),
        (4.0, "cut", -17.06045322027088, -47.86882819107237),
        (3.0, "force_shift", -15.001402286915358, -43.096005539177895),
        (3.0, "shift", -16.08347331961906, -46.24919674630891),
    ],
)
def test_energy_and_virial_equal_nist(nist_configuration, cutoff, scheme, energy, virial):
    atoms = ase.io.read(nist_configuration)
    structure = periodic(atoms.positions, atoms.cell.array, np.zeros(len(atoms)))
    neighbors = neighbor_list(cutoff).allocate(structure)
    lj = lennard_jones(("X",), cutoff, 1.0, 1.0, scheme)

    @jax.jit
    def run(structure, neighbors):
        state = lj.init(None), structure, neighbors
        return lj.energy(*state), stress(lj.energy, *state)

    mine, tensor = run(structure, neighbors)
    assert_close(mine, energy, 1e-12)
    assert_close(-np.trace(tensor) * atoms.get_volume(), virial, 1e-12)
