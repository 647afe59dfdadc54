"""Lennard-Jones against LAMMPS (see lj_golden.md) and NIST (see nist_lj.md)."""

from functools import lru_cache
from pathlib import Path

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae_md import all_pairs
from jaxvae_md.all_pairs import AllPairs
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.pair_list import PairList, pair_list
from jaxvae_md.potentials import energy_and_forces, evaluate, lennard_jones, stress
from jaxvae_md.potentials.lennard_jones import tail_correction
from jaxvae_md.structure import Structure
from tests import systems
from tests.asserts import assert_close

GOLDEN = dict(np.load(Path(__file__).with_name("lj_golden.npz")))
CUTOFF = float(GOLDEN["lj__rc"])
STYLES = ("cut", "shift", "force_shift", "tail")
CONFIGS = [str(c) for c in GOLDEN["lj__configs"]]
EVERY_KIND = pytest.mark.parametrize("kind", [PairList, AllPairs])


def periodic(position, cell, types) -> Structure:
    num = len(position)
    return Structure(position, cell, np.ones(3, bool), types.astype(np.int32), np.ones(num, bool))


def kob_andersen(style: str):
    options = {"scheme": "cut", "tail": True} if style == "tail" else {"scheme": style}
    return lennard_jones(("A", "B"), CUTOFF, GOLDEN["lj__sigma"], GOLDEN["lj__epsilon"], **options)


def configuration(config: str) -> Structure:
    names = ("positions", "cell", "types")
    return periodic(*(GOLDEN[f"lj__{config}__{name}"] for name in names))


@lru_cache
def computed(config: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Energy, forces and stress in every style, by gradients."""
    structure = configuration(config)
    neighbors = neighbor_list(CUTOFF).allocate(structure)

    @jax.jit
    def run(structure, neighbors):
        out = {}
        for style in STYLES:
            lj = kob_andersen(style)
            state = lj.init(None), structure, neighbors
            out[style] = *energy_and_forces(lj.energy, *state), stress(lj.energy, *state)
        return out

    return jax.tree.map(np.asarray, run(structure, neighbors))


def allocated(structure: Structure, cutoff: float, kind: type) -> PairList | AllPairs:
    """Pairs of the kind that is asked for, whatever the number of atoms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            all_pairs, "_MOST_TERMS", dict.fromkeys((4, 8), 0 if kind is PairList else 10**9)
        )
        pairs = pair_list(cutoff, 0.0).allocate(structure)
    assert isinstance(pairs, kind)
    assert not pairs.overflow
    return pairs


@lru_cache
def summed(config: str, kind: type, dtype: str = "float64") -> dict[str, tuple[np.ndarray, ...]]:
    """Energy, forces and virial in every style, by sums over pairs."""
    structure = configuration(config)
    structure = systems.single(structure) if dtype == "float32" else structure
    pairs = allocated(structure, CUTOFF, kind)

    @jax.jit
    def run(structure, pairs):
        out = {}
        for style in STYLES:
            lj = kob_andersen(style)
            state = lj, lj.init(None), structure, pairs
            out[style] = evaluate.energy(*state), *evaluate.forces_and_virial(*state)
        return out

    return jax.tree.map(np.asarray, run(structure, pairs))


def golden(config: str, style: str, name: str) -> np.ndarray:
    return GOLDEN[f"lj__{config}__{style}__{name}"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("config", CONFIGS)
def test_energy_forces_and_stress_equal_lammps(config, style):
    for name, value in zip(("energy", "forces", "stress"), computed(config)[style], strict=True):
        assert_close(value, golden(config, style, name), 1e-12)


@EVERY_KIND
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("config", CONFIGS)
def test_sums_over_pairs_equal_lammps(config, style, kind):
    energy, forces, virial = summed(config, kind)[style]
    assert_close(energy, golden(config, style, "energy"), 1e-12)
    assert_close(forces, golden(config, style, "forces"), 1e-12)
    assert_close(virial, np.trace(golden(config, style, "virial")), 1e-12)


@pytest.mark.slow
@EVERY_KIND
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("config", ["triclinic", "mix256"])
def test_sums_over_pairs_in_single_precision_are_near_lammps(config, style, kind):
    energy, forces, virial = summed(config, kind, "float32")[style]
    assert energy.dtype == forces.dtype == virial.dtype == np.float32
    assert_close(energy, golden(config, style, "energy"), 2e-6)
    # a force of 80 changes by 1e-5 of it when a position is rounded
    assert_close(forces, golden(config, style, "forces"), 2e-5)
    assert_close(virial, np.trace(golden(config, style, "virial")), 5e-5)


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
    structure = nist(nist_configuration)
    neighbors = neighbor_list(cutoff).allocate(structure)
    pairs = [allocated(structure, cutoff, kind) for kind in (PairList, AllPairs)]
    lj = lennard_jones(("X",), cutoff, 1.0, 1.0, scheme)

    @jax.jit
    def run(structure, neighbors, pairs):
        state = lj.init(None), structure, neighbors
        out = [(lj.energy(*state), -jnp.trace(stress(lj.energy, *state)) * 8.0**3)]
        for one in pairs:
            by_sums = lj, lj.init(None), structure, one
            out.append((evaluate.energy(*by_sums), evaluate.forces_and_virial(*by_sums)[1]))
        return out

    for mine, work in run(structure, neighbors, pairs):
        assert_close(mine, energy, 1e-12)
        assert_close(work, virial, 1e-12)


def nist(path) -> Structure:
    atoms = ase.io.read(path)
    return periodic(atoms.positions, atoms.cell.array, np.zeros(len(atoms)))


@pytest.mark.parametrize(
    ("cutoff", "correction"), [(3.0, -0.5451660014945707), (4.0, -0.23007839283143153)]
)
def test_tail_correction_equals_nist(nist_configuration, cutoff, correction):
    lj = lennard_jones(("X",), cutoff)
    energy, _ = tail_correction(lj.init(None), nist(nist_configuration), cutoff)
    assert_close(energy, correction, 1e-14)
