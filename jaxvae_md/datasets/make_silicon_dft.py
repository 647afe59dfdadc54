"""Makes the embedded DFT set of silicon with Quantum ESPRESSO: `silicon_dft.extxyz.gz`.

    python -m jaxvae_md.datasets.make_silicon_dft FOLDER

Some 300 frames of five labels, and 88 held out of kinds that no label covers (amorphous silicon,
other crystal phases, an interstitial), in cells of 2 to 16 atoms. Thermal and molten frames come
from Langevin dynamics with Stillinger-Weber, and everything follows from one seed. Two processes
of pw.x side by side take some two hours of two cores; the labels are kept in FOLDER as they come,
and the same call goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk, diamond100, diamond111
from ase.io import iread, write

from jaxvae_md import atomic
from jaxvae_md.datasets.sampling import sampled, simulated
from jaxvae_md.io import frames_text
from jaxvae_md.label import Espresso, label_many

LATTICE = 5.477
"""angstrom; of the reference at 0 K"""
HELD_OUT = ("amorphous", "phase", "interstitial")
"""labels of the frames that are held out"""


def main(folder: str, seed: int = 2026) -> None:
    """Writes both files of the set into the folder."""
    jax.config.update("jax_enable_x64", True)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    structures = out / f"silicon_dft.structures_{seed}.extxyz"
    if not structures.exists():
        text = frames_text(list(_frames(np.random.default_rng(seed))))
        atomic.write_bytes(structures, text.encode())
    # as they were written: digits that the file does not hold would make them others
    frames = list(iread(structures))
    # interleaved, so that what is finished first is a smaller set of all kinds
    order = np.random.default_rng(seed).permutation(len(frames))
    with ThreadPoolExecutor(2) as executor:
        labelled, rejected = label_many(
            [frames[number] for number in order],
            Espresso(),
            out / "silicon_dft.labels.jsonl",
            executor,
            progress=True,
        )
    for one in rejected:
        print(f"{frames[order[one.frame]].info['label']} is left out: {one.reason}")
    kinds = {frame.info["label"]: None for frame in frames}
    labelled.sort(key=lambda atoms: list(kinds).index(atoms.info["label"]))
    parts = {
        "silicon_dft": [a for a in labelled if a.info["label"] not in HELD_OUT],
        "silicon_dft_held_out": [a for a in labelled if a.info["label"] in HELD_OUT],
    }
    for name, part in parts.items():
        write(out / f"{name}.extxyz.gz", part, format="extxyz")
        print(f"{name}: {len(part)} frames")


def _frames(rng: np.random.Generator) -> Iterator[Atoms]:
    """All frames without labels, those to be held out last."""
    primitive, cubic = bulk("Si", a=LATTICE), bulk("Si", a=LATTICE, cubic=True)
    double = primitive * (2, 2, 2)

    def each(starts: list[Atoms], label: str, kelvin: float, num: int, **spacing: int):
        for start in starts:
            for atoms in sampled(start, kelvin, num, rng, **spacing):
                yield _named(atoms, label, kelvin)

    for kelvin in (300.0, 600.0, 900.0, 1200.0):
        yield from each([cubic], "crystal", kelvin, 14)
    yield from each([double], "crystal", 700.0, 4)

    for start, num, largest in ((primitive, 40, 0.07), (cubic, 22, 0.04)):
        for _ in range(num):
            strain = rng.uniform(-largest, largest, (3, 3))
            atoms = start.copy()
            atoms.set_cell(start.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
            atoms.rattle(0.06, rng=rng)
            yield _named(atoms, "strained", 300.0)

    missing = [start[1:] for start in (cubic, double)]
    for kelvin in (300.0, 700.0, 1100.0):
        yield from each(missing[:1], "vacancy", kelvin, 12)
        yield from each(missing[1:], "vacancy", kelvin, 7)

    slabs = [_slab(diamond100, 1, 8), _slab(diamond111, 1, 8), _slab(diamond100, 2, 7)]
    for kelvin in (300.0, 700.0, 1100.0):
        yield from each(slabs[:2], "surface", kelvin, 8)
        yield from each(slabs[2:], "surface", kelvin, 4)

    for kelvin, density in ((2000.0, 1.0), (2600.0, 1.06), (3300.0, 1.0)):
        for start, num in ((cubic, 14), (double, 6)):
            dense = start.copy()
            dense.set_cell(start.cell * density ** (-1 / 3), scale_atoms=True)
            molten = simulated(dense, 6000.0, 2500, rng)[-1]
            yield from each([molten], "melt", kelvin, num, equilibration=1000, spacing=300)

    for _ in range(4):
        melt = simulated(double, 3500.0, 3000, rng)[-1]
        glass = simulated(simulated(melt, 1600.0, 5000, rng)[-1], 1000.0, 5000, rng)[-1]
        yield from each([glass], "amorphous", 300.0, 7)

    for atoms in _phases():
        for scale in (0.97, 1.0, 1.03):
            for noise in (0.03, 0.1):
                other = atoms.copy()
                other.set_cell(scale * atoms.cell.array, scale_atoms=True)
                other.rattle(noise, rng=rng)
                yield _named(other, "phase", 300.0)

    # at the tetrahedral and the hexagonal place, and beside a bond
    for place in ((0.5, 0.5, 0.5), (0.625, 0.625, 0.375), (0.2, 0.05, 0.1)):
        defect = cubic + Atoms("Si", [np.array(place) @ cubic.cell])
        defect.set_cell(1.02 * defect.cell.array, scale_atoms=True)
        for kelvin in (300.0, 800.0):
            yield from each([defect], "interstitial", kelvin, 5)


def _slab(make, width: int, layers: int) -> Atoms:
    atoms = make("Si", size=(width, 1, layers), a=LATTICE, vacuum=5.0)
    atoms.pbc = True
    return atoms


def _phases() -> list[Atoms]:
    """Hexagonal diamond, beta-tin, simple hexagonal, simple and face-centered cubic silicon.

    Lattices near those of Yin and Cohen, Phys. Rev. B 26, 5668 (1982).
    """
    hexagonal = Atoms(
        "Si4",
        scaled_positions=[
            (1 / 3, 2 / 3, 0.0625),
            (2 / 3, 1 / 3, 0.5625),
            (1 / 3, 2 / 3, 0.4375),
            (2 / 3, 1 / 3, 0.9375),
        ],
        cell=bulk("Mg", "hcp", a=LATTICE / 2**0.5, c=LATTICE * 2 / 3**0.5).cell,
        pbc=True,
    )
    beta_tin = Atoms(
        "Si4",
        scaled_positions=[(0, 0, 0), (0, 0.5, 0.25), (0.5, 0.5, 0.5), (0.5, 0, 0.75)],
        cell=[4.81, 4.81, 2.65],
        pbc=True,
    )
    simple_hexagonal = Atoms(
        "Si2", [(0, 0, 0), (0, 0, 2.46)], cell=[[2.64, 0, 0], [1.32, 2.286, 0], [0, 0, 4.92]]
    )
    simple_hexagonal.pbc = True
    cubic = bulk("Si", "sc", a=2.53) * (2, 1, 1)
    return [hexagonal, beta_tin, simple_hexagonal, cubic, bulk("Si", "fcc", a=3.89, cubic=True)]


def _named(atoms: Atoms, label: str, kelvin: float) -> Atoms:
    plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    plain.info.update(label=label, temperature=float(kelvin))
    return plain


if __name__ == "__main__":
    main(sys.argv[1])
