"""Files: extended XYZ in, checked; extended XYZ and checkpoints out, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvae_md.errors import FileError, GeometryError, InputError, LabelError, SpeciesError
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.structure import from_atoms, species_table

if TYPE_CHECKING:
    from ase import Atoms

_OVERLAP = 0.3
"""angstrom; nearer than any two nuclei of a sensible frame"""
_MANIFEST = "manifest.json"


def read_frames(path: str | Path, labelled: bool = True) -> list[Atoms]:
    """Reads and checks all frames of an extended XYZ file (or another format that ASE knows).

    **Arguments:** `labelled` asks for energy and forces in every frame. **Raises:** `FileError`,
    `SpeciesError`, `GeometryError` or `LabelError`, naming file, frame and atom.

    ```python
    frames = read_frames("train.extxyz")
    ```
    """
    frames = _read(Path(path))
    for number, atoms in enumerate(frames):
        try:
            check_frame(atoms, labelled)
        except InputError as error:
            raise error.at(file=path, frame=number) from None
    return frames


def check_frame(atoms: Atoms, labelled: bool = True) -> None:
    """Raises the typed error of the first thing that is wrong with a frame.

    ```python
    check_frame(ase.build.bulk("Si"), labelled=False)
    ```
    """
    if len(atoms) == 0:
        raise GeometryError("no atoms", remedy="remove the frame")
    unknown = np.nonzero(atoms.numbers < 1)[0]
    if len(unknown):
        raise SpeciesError(
            f"unknown element {atoms[int(unknown[0])].symbol!r}",
            atom=int(unknown[0]),
            remedy="give the chemical symbol",
        )
    volume = abs(np.linalg.det(atoms.cell.complete().array))
    if np.any(atoms.pbc & (atoms.cell.lengths() < 1e-3)) or not volume > 1e-3:
        raise GeometryError(
            f"the cell is singular (volume {volume:.3g} cubic angstrom, pbc {atoms.pbc.tolist()})",
            remedy="give three independent lattice vectors, or switch pbc off",
        )
    structure = from_atoms(atoms, species_table([atoms]))
    i, j, _ = host_pairs(structure, _OVERLAP)
    if len(i):
        raise GeometryError(
            f"two atoms at the same place (atom {j[0]} is within {_OVERLAP} angstrom)",
            atom=int(i[0]),
            remedy="remove one of them",
        )
    if labelled:
        _check_labels(atoms)


def write_frames(path: str | Path, frames: Sequence[Atoms]) -> None:
    """Writes extended XYZ atomically: the file is whole or not there.

    ```python
    write_frames("generated.extxyz", frames)
    ```
    """
    from ase.io import write

    with _replaced(path) as temporary:
        write(temporary, list(frames), format="extxyz")


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file atomically."""
    with _replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _replaced(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the file's place when all went well, and goes otherwise."""
    path = Path(path)
    # the ending stays: it decides whether ASE compresses
    temporary = path.with_name(f".part-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(folder: str | Path, tree: dict[str, Any]) -> None:
    """Saves a nested dict of arrays with Orbax; a SHA-256 manifest is written last.

    The folder appears under its name only when everything is in it.

    ```python
    save_checkpoint("run/checkpoints/vae", {"params": params})
    ```
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(temporary, tree)
    (temporary / _MANIFEST).write_text(json.dumps(_digests(temporary), indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_checkpoint(folder: str | Path) -> dict[str, Any]:
    """Loads what `save_checkpoint` saved, as numpy arrays, after checking every digest.

    **Raises:** `FileError` when a file is missing, foreign or altered.

    ```python
    params = load_checkpoint("run/checkpoints/vae")["params"]
    ```
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    try:
        expected = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise FileError(
            f"no readable checkpoint ({error})", file=folder, remedy="use an earlier checkpoint"
        ) from None
    found = _digests(folder)
    altered = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if altered:
        raise FileError(
            f"{altered[0]} is missing or was altered after it was written",
            file=folder,
            remedy="use an earlier checkpoint",
        )
    with ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(folder, restore_args=None)
    return _as_numpy(restored)


def _read(path: Path) -> list[Atoms]:
    from ase.io import iread

    if not path.is_file():
        raise FileError("no such file", file=path, remedy="give the path of an extxyz file")
    frames: list[Atoms] = []
    format = "extxyz" if ".extxyz" in path.suffixes or ".xyz" in path.suffixes else None
    try:
        for atoms in iread(path, ":", format=format):
            frames.append(atoms)
    except KeyError as error:
        raise SpeciesError(
            f"unknown element or key {error}",
            file=path,
            frame=len(frames),
            remedy="use the chemical symbol of an element",
        ) from None
    except Exception as error:
        # ASE raises whatever its parsers meet, from ValueError to UnicodeDecodeError
        raise FileError(
            f"cannot be read ({type(error).__name__}: {error})",
            file=path,
            frame=len(frames),
            remedy="write it as extended XYZ with ase.io.write(..., format='extxyz')",
        ) from None
    if not frames:
        raise FileError("no frames", file=path, remedy="give a file with at least one frame")
    return frames


def _check_labels(atoms: Atoms) -> None:
    results = atoms.calc.results if atoms.calc is not None else {}
    for name in ("energy", "forces"):
        if name not in results:
            raise LabelError(
                f"no {name}",
                remedy="give energy (eV, the whole cell) in the comment line and forces "
                "(eV / angstrom) as columns, under these names",
            )
    try:
        energy = float(results["energy"])
        forces = np.asarray(results["forces"], float).reshape(len(atoms), 3)
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"energy or forces are not numbers of the right shape ({error})",
            remedy="give one energy for each frame and three force components for each atom",
        ) from None
    if not np.isfinite(energy):
        raise LabelError("the energy is not finite", remedy="remove the frame or label it again")
    finite = np.isfinite(forces).all(axis=1)
    if not finite.all():
        raise LabelError(
            "the force is not finite",
            atom=int(np.argmin(finite)),
            remedy="remove the frame or label it again",
        )


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _as_numpy(value) for key, value in tree.items()}
    return np.asarray(tree)
