"""Makes the embedded silicon set with the package's own simulator: `silicon.extxyz.gz`.

    python -m jaxvae_md.datasets.make_silicon [OUT.extxyz.gz]

Five labels, thirty frames each, energies, forces and stress by Stillinger-Weber; thermal and
molten frames come from Langevin dynamics. Everything follows from one seed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, diamond111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from jaxvae_md.datasets.sampling import sampled, simulated
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials import energy_and_forces, stillinger_weber, stress
from jaxvae_md.structure import from_atoms

LATTICE = 5.431
"""angstrom; the potential's own at 0 K"""


def main(out: str, seed: int = 2026) -> None:
    """Writes the set."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(seed)
    write(out, list(_frames(rng)), format="extxyz")


def _frames(rng: np.random.Generator) -> Iterator[Atoms]:
    crystal = bulk("Si", cubic=True, a=LATTICE) * (2, 2, 2)

    for kelvin in (300, 900, 1500):
        yield from _sample(crystal, "crystal", kelvin, 10, rng)

    for _ in range(30):
        strain = rng.uniform(-0.06, 0.06, (3, 3))
        strained = crystal.copy()
        strained.set_cell(crystal.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
        yield from _sample(strained, "strained", float(rng.choice([100, 300, 600])), 1, rng)

    for kelvin in (300, 800, 1300):
        vacancy = crystal.copy()
        del vacancy[int(rng.integers(64))]
        yield from _sample(vacancy, "vacancy", kelvin, 10, rng)

    for kelvin in (300, 700, 1100):
        for make, size in ((diamond100, (3, 3, 6)), (diamond111, (3, 3, 6))):
            slab = make("Si", size=size, a=LATTICE, vacuum=7.0)
            slab.pbc = True
            yield from _sample(slab, "surface", kelvin, 5, rng)

    for kelvin, density in ((1900, 1.0), (2500, 1.05), (3200, 1.0)):
        dense = crystal.copy()
        dense.set_cell(crystal.cell * density ** (-1 / 3), scale_atoms=True)
        molten = simulated(dense, 5000.0, 2500, rng)[-1]
        yield from _sample(molten, "melt", kelvin, 10, rng, equilibration=1500, spacing=300)


def _sample(
    start: Atoms, label: str, kelvin: float, num: int, rng: np.random.Generator, **spacing: int
) -> Iterator[Atoms]:
    """`num` labelled frames of one run."""
    for atoms in sampled(start, kelvin, num, rng, **spacing):
        yield _labelled(atoms, label, kelvin)


def _labelled(atoms: Atoms, label: str, kelvin: float) -> Atoms:
    potential = stillinger_weber()
    params = potential.init(jax.random.key(0))
    structure = from_atoms(atoms, ("Si",))
    neighbors = neighbor_list(potential.cutoff).allocate(structure)
    energy, forces = energy_and_forces(potential.energy, params, structure, neighbors)
    virial = np.asarray(stress(potential.energy, params, structure, neighbors))
    plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    plain.info.update(label=label, temperature=float(kelvin), reference="Stillinger-Weber")
    plain.calc = SinglePointCalculator(
        plain,
        energy=float(energy),
        forces=np.asarray(forces),
        stress=virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
    )
    return plain


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "silicon.extxyz.gz")
