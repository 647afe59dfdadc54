"""Extended XYZ in, checked, and out, written atomically; maps for chemiscope."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from jaxvae_md.atomic import replacing
from jaxvae_md.errors import FileError, GeometryError, InputError, LabelError, SpeciesError
from jaxvae_md.neighbors import host_pairs
from jaxvae_md.structure import from_atoms, species_table

if TYPE_CHECKING:
    from ase import Atoms

_OVERLAP = 0.3
"""angstrom; nearer than any two nuclei of a sensible frame"""
_SEARCHED = 2.0


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


def first_frame(path: str | Path) -> Atoms:
    """The first frame of an extended XYZ file, without reading the others. **Raises:** `FileError`.

    ```python
    start = first_frame("trajectory.extxyz")
    ```
    """
    return next(_parsed(Path(path)))


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
    # within so small a distance alone, the search would be through very many cells
    i, j, shift = host_pairs(structure, _SEARCHED)
    apart = structure.position[j] + shift @ structure.cell - structure.position[i]
    overlapping = np.nonzero(np.sum(apart**2, axis=1) < _OVERLAP**2)[0]
    if len(overlapping):
        first = overlapping[0]
        raise GeometryError(
            f"two atoms at the same place (atom {j[first]} is within {_OVERLAP} angstrom)",
            atom=int(i[first]),
            remedy="remove one of them",
        )
    if labelled:
        _check_labels(atoms)


def write_frames(path: str | Path, frames: Sequence[Atoms]) -> None:
    """Writes extended XYZ atomically: the file is whole or not there. **Raises:** `WriteError`.

    ```python
    write_frames("generated.extxyz", frames)
    ```
    """
    from ase.io import write

    with replacing(path) as temporary:
        write(temporary, list(frames), format="extxyz")


def write_chemiscope(
    path: str | Path,
    frames: Sequence[Atoms],
    properties: Mapping[str, Float[np.ndarray, " m"] | Sequence[str]],
    name: str = "environments",
) -> None:
    """An interactive map for chemiscope (chemiscope.org): a point for every atom, to click on.

    **Arguments:** `path` ends in .json or .json.gz; `properties` columns over the atoms of all
    frames, numbers or texts: the first two are the axes, the third the colour. What is not
    finite is drawn at the largest finite value of its column. **Raises:** `InputError` for a
    column of another length, `WriteError`.

    ```python
    write_chemiscope("map.json.gz", frames, {"latent 1": z[:, 0], "latent 2": z[:, 1], "score": s})
    ```
    """
    import chemiscope

    num, columns = sum(map(len, frames)), {}
    for title, values in properties.items():
        if len(values) != num:
            raise InputError(
                f"{title!r} has {len(values)} values for {num} atoms", remedy="give one per atom"
            )
        column = np.asarray(values)
        if column.dtype.kind in "fiub":
            column = column.astype(float)
            column = np.where(
                np.isfinite(column), column, np.max(column[np.isfinite(column)], initial=0)
            )
        columns[title] = {"target": "atom", "values": column}
    axes = list(columns)
    map_settings = {axis: {"property": title} for axis, title in zip("xy", axes, strict=False)}
    if len(axes) > 2:
        map_settings["color"] = {"property": axes[2]}
    # its writer takes the kind of file from the name
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chemiscope.write_input(
            str(temporary),
            structures=[bare(atoms) for atoms in frames],
            metadata={"name": name},
            properties=columns,
            environments=chemiscope.all_atomic_environments(list(frames), cutoff=5.0),
            settings={"map": map_settings, "structure": [{"unitCell": True}]},
        )


def bare(atoms: Atoms) -> Atoms:
    """A copy with elements, positions and cell alone.

    ```python
    bare(atoms).info  # {}
    ```
    """
    from ase import Atoms

    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def frames_text(frames: Sequence[Atoms]) -> str:
    """Frames as extended XYZ, for a file that grows.

    ```python
    file.write(frames_text(new_frames))
    ```
    """
    from ase.io import write

    buffer = StringIO()
    write(buffer, list(frames), format="extxyz")
    return buffer.getvalue()


def _read(path: Path) -> list[Atoms]:
    frames = list(_parsed(path))
    if not frames:
        raise FileError("no frames", file=path, remedy="give a file with at least one frame")
    return frames


def _parsed(path: Path) -> Iterator[Atoms]:
    """The frames of a file, one by one."""
    from ase.io import iread

    if not path.is_file():
        raise FileError("no such file", file=path, remedy="give the path of an extxyz file")
    number = 0
    format = "extxyz" if ".extxyz" in path.suffixes or ".xyz" in path.suffixes else None
    try:
        for atoms in iread(path, ":", format=format):
            yield atoms
            number += 1
    except KeyError as error:
        raise SpeciesError(
            f"unknown element or key {error}",
            file=path,
            frame=number,
            remedy="use the chemical symbol of an element",
        ) from None
    except Exception as error:
        # ASE raises whatever its parsers meet, from ValueError to UnicodeDecodeError
        raise FileError(
            f"cannot be read ({type(error).__name__}: {error})",
            file=path,
            frame=number,
            remedy="write it as extended XYZ with ase.io.write(..., format='extxyz')",
        ) from None


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
