"""The embedded silicon set."""

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
    from ase.io import iread

    with as_file(files("jaxvae_md.datasets") / "silicon.extxyz.gz") as path:
        return list(iread(path, format="extxyz"))
