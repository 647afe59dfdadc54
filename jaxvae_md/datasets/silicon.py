"""The embedded silicon sets."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


def silicon() -> list[Atoms]:
    """150 silicon frames with energies (eV), forces (eV / angstrom) and stress.

    Five labels in `info["label"]`, thirty frames each: crystal (300 to 1500 K), strained,
    vacancy, surface ((100) and (111) slabs) and melt. Made by `datasets/make_silicon.py` with
    the Stillinger-Weber potential, the embedded reference.

    ```python
    frames = silicon()
    frames[0].get_potential_energy(), frames[0].info["label"]
    ```
    """
    return _read("silicon")


def silicon_dft() -> list[Atoms]:
    """299 silicon frames with energies (eV), forces (eV / angstrom) and stress of PBE.

    Five labels in `info["label"]`: crystal (300 to 1200 K), strained, vacancy, surface ((100) and
    (111) slabs) and melt, in cells of 2 to 16 atoms. Made by `datasets/make_silicon_dft.py`, which
    tells how, with Quantum ESPRESSO; `info["reference"]` has its settings. `Espresso()`, or
    `--labeller qe`, labels more in the same way.

    ```python
    frames = silicon_dft()
    frames[0].get_stress(voigt=False), frames[0].info["reference"]
    ```
    """
    return _read("silicon_dft")


def silicon_dft_held_out() -> list[Atoms]:
    """88 frames to judge with, of kinds that no label of `silicon_dft` covers.

    Labels: amorphous (16 atoms), phase (hexagonal diamond, beta-tin, simple hexagonal, simple and
    face-centered cubic silicon) and interstitial. By the same reference.

    ```python
    frames = [atoms for atoms in silicon_dft_held_out() if atoms.info["label"] == "amorphous"]
    ```
    """
    return _read("silicon_dft_held_out")


def _read(name: str) -> list[Atoms]:
    from ase.io import iread

    with as_file(files("jaxvae_md.datasets") / f"{name}.extxyz.gz") as path:
        return list(iread(path, format="extxyz"))
