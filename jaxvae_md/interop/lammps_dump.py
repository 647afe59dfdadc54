"""What LAMMPS wrote: text dumps with custom columns, checked to the last line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxvae_md.errors import FileError, InputError, SpeciesError
from jaxvae_md.structure import checked_species

if TYPE_CHECKING:
    from ase import Atoms

_POSITIONS = (("xu", "yu", "zu"), ("xsu", "ysu", "zsu"), ("x", "y", "z"), ("xs", "ys", "zs"))
"""columns of positions, the unwrapped ones first"""


def read_lammps_dump(
    path: str | Path,
    species: Sequence[str],
    rotation: Float[np.ndarray, "3 3"] | None = None,
    energy_column: str = "c_pe",
) -> list[Atoms]:
    """All frames of a LAMMPS text dump (`dump custom`, units metal), atoms sorted by id.

    | columns | become |
    |---|---|
    | id; type or element | the order; the species |
    | xu yu zu, xsu.., x y z or xs.. | positions in angstrom; unwrapped by ix iy iz where given |
    | vx vy vz | velocities (ASE's units) |
    | fx fy fz | forces (eV / angstrom) |
    | `energy_column` (of `compute pe all pe/atom`) | energies and their sum, energy (eV) |
    | mass | masses (amu) |

    Step and time of a frame are in `info["timestep"]` and `info["time"]`, the corner of the box is
    the atoms' `celldisp`. A sum of atomic energies lacks a tail correction. ASE's own reader takes
    a frame that lacks lines without a word, and gives frames with forces an energy of zero.

    **Arguments:** `species` are the atom types in order, from 1; `rotation` is what
    `write_lammps_data` returned, to turn everything back. **Raises:** `FileError` for a file that
    is damaged or ends early, naming frame and line; `SpeciesError` for a type outside the table.

    ```python
    frames = read_lammps_dump("dump.lammpstrj", ("O", "Si"), rotation=turn)
    ```
    """
    path, table = Path(path), checked_species(species)
    if not path.is_file():
        raise FileError("no such file", file=path, remedy="give the path of a LAMMPS text dump")
    turn = np.eye(3) if rotation is None else np.asarray(rotation, float)
    frames = []
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = _Lines(file)
        while lines.more():
            try:
                frames.append(_frame(lines, table, turn, energy_column))
            except InputError as error:
                raise error.at(file=path, frame=len(frames)) from None
            lines.frame_ends()
    if not frames:
        raise FileError("no frames", file=path, remedy="give a dump with at least one frame")
    return frames


class _Lines:
    """The lines of a file, with the number of the last one and of the last good frame's end."""

    def __init__(self, file: IO[str]) -> None:
        self._file: Iterator[str] = file
        self._ahead: str | None = None
        self.number = self.good = 0

    def more(self) -> bool:
        if self._ahead is None:
            self._ahead = next(self._file, "")
        return self._ahead != ""

    def next(self) -> str:
        if not self.more():
            raise self.ended(f"the file ends after line {self.number}, within a frame")
        line, self._ahead = str(self._ahead), None
        self.number += 1
        if not line.endswith("\n"):
            raise self.ended(f"line {self.number} is the last and has no end")
        return line.strip()

    def frame_ends(self) -> None:
        self.good = self.number

    def ended(self, what: str) -> FileError:
        keep = f"keep the {self.good} lines of the frames before it (head -n {self.good})"
        return FileError(what, remedy=keep if self.good else "run LAMMPS again")

    def damaged(self, what: str, number: int | None = None) -> FileError:
        return FileError(
            f"line {self.number if number is None else number}: {what}",
            remedy="repair the line, or remove the frame; dump custom writes what is read here",
        )


class _Columns:
    """The lines of a frame's atoms, in the file's order."""

    def __init__(self, lines: _Lines, names: list[str], num: int) -> None:
        self._lines, self.names, self.before = lines, names, lines.number
        rows = []
        for _ in range(num):
            rows.append(lines.next().split())
            if len(rows[-1]) != len(names):
                raise lines.damaged(f"{len(rows[-1])} columns instead of {len(names)}")
        self._cells = np.array(rows, str).reshape(num, len(names))

    def words(self, name: str) -> np.ndarray:
        return self._cells[:, self.names.index(name)]

    def numbers(self, *names: str, kind: type = float) -> np.ndarray | None:
        """Columns side by side; None where one of them is absent."""
        if not set(names) <= set(self.names):
            return None
        out = np.zeros((len(self._cells), len(names)), kind)
        for column, name in enumerate(names):
            try:
                out[:, column] = self.words(name).astype(kind)
            except (ValueError, OverflowError):
                wrong = (n for n, word in enumerate(self.words(name)) if not _is(kind, word))
                bad = next(wrong, 0)
                raise self.damaged(f"{name} is {self.words(name)[bad][:40]!r}", bad) from None
        return out

    def damaged(self, what: str, row: int = -1) -> FileError:
        return self._lines.damaged(what, self.before + 1 + row)


def _frame(
    lines: _Lines, species: tuple[str, ...], rotation: np.ndarray, energy_column: str
) -> Atoms:
    from ase import Atoms
    from ase.calculators.lammps import convert
    from ase.calculators.singlepoint import SinglePointCalculator

    header, names = _header(lines)
    cell, origin, pbc = header["BOX BOUNDS"]
    columns = _Columns(lines, names, header["NUMBER OF ATOMS"])
    order, back = _order(columns), rotation.T
    atoms = Atoms(
        _symbols(columns, species, order),
        positions=_positions(columns, cell, origin)[order] @ back,
        cell=cell @ back,
        pbc=pbc,
        celldisp=origin @ back,
    )
    if (mass := columns.numbers("mass")) is not None:
        atoms.set_masses(convert(mass[order, 0], "mass", "metal", "ASE"))
    if (velocity := columns.numbers("vx", "vy", "vz")) is not None:
        atoms.set_velocities(convert(velocity[order] @ back, "velocity", "metal", "ASE"))
    results: dict[str, Any] = {}
    if (forces := columns.numbers("fx", "fy", "fz")) is not None:
        results["forces"] = forces[order] @ back
    if (energies := columns.numbers(energy_column)) is not None:
        results |= {"energies": energies[order, 0], "energy": float(energies.sum())}
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["timestep"] = header["TIMESTEP"]
    if "TIME" in header:
        atoms.info["time"] = header["TIME"]
    return atoms


def _order(columns: _Columns) -> np.ndarray:
    ids = columns.numbers("id", kind=int)
    if ids is None:
        raise columns.damaged("no column id, so the order of the atoms is not known")
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < len(ids):
        raise columns.damaged(f"{counts.max()} atoms have id {values[np.argmax(counts)]}")
    return np.argsort(ids[:, 0])


def _symbols(columns: _Columns, species: tuple[str, ...], order: np.ndarray) -> list[str]:
    types = columns.numbers("type", kind=int)
    written = columns.words("element")[order] if "element" in columns.names else None
    if types is None and written is None:
        raise columns.damaged("neither type nor element among the columns")
    types = None if types is None else types[order, 0]
    symbols = []
    for atom in range(len(order)):
        word = None if written is None else str(written[atom])
        if types is not None and not 1 <= types[atom] <= len(species):
            raise SpeciesError(
                f"type {types[atom]}, but there are {len(species)} species",
                atom=atom,
                remedy="give the species of all types in order",
            )
        symbol = word if types is None else species[types[atom] - 1]
        if symbol not in species or word not in (None, symbol):
            raise SpeciesError(
                f"element {word}"
                + ("" if types is None else f" is type {types[atom]}")
                + f", the species are {', '.join(species)}",
                atom=atom,
                remedy="give the species in the order of LAMMPS's types",
            )
        symbols.append(symbol)
    return symbols


def _positions(columns: _Columns, cell: np.ndarray, origin: np.ndarray) -> np.ndarray:
    for names in _POSITIONS:
        values = columns.numbers(*names)
        if values is None:
            continue
        if "s" in names[0]:
            values = values @ cell + origin
        turns = columns.numbers("ix", "iy", "iz", kind=int)
        return values if "u" in names[0] or turns is None else values + turns @ cell
    raise columns.damaged("no positions among the columns (x y z, xs.., xu.. or xsu..)")


def _header(lines: _Lines) -> tuple[dict[str, Any], list[str]]:
    """The items before the atoms, and the names of their columns."""
    header: dict[str, Any] = {}
    while True:
        line = lines.next()
        name = line.removeprefix("ITEM: ")
        if name == line:
            raise lines.damaged(f"{line[:40]!r} instead of an ITEM")
        if name == "UNITS":
            if (units := lines.next()) != "metal":
                raise lines.damaged(f"units are {units}; only metal is read")
        elif name == "TIMESTEP":
            header[name] = _number(lines, int)
        elif name == "TIME":
            header[name] = _number(lines, float)
        elif name == "NUMBER OF ATOMS":
            header[name] = _number(lines, int)
        elif name.startswith("BOX BOUNDS"):
            header["BOX BOUNDS"] = _box(lines, name.split()[2:])
        elif name.startswith("ATOMS"):
            missing = {"TIMESTEP", "NUMBER OF ATOMS", "BOX BOUNDS"} - set(header)
            if missing:
                raise lines.damaged(f"atoms before {', '.join(sorted(missing))}")
            return header, name.split()[1:]
        else:
            raise lines.damaged(f"unknown item {name!r}")


def _number(lines: _Lines, kind: type) -> Any:
    text = lines.next()
    try:
        return kind(text)
    except ValueError:
        raise lines.damaged(f"{text[:40]!r} is not a number") from None


def _box(lines: _Lines, words: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell (rows), corner and periodicity from the three lines of a box."""
    from ase.io.lammpsrun import construct_cell

    tilted, general = words[:3] == ["xy", "xz", "yz"], words[:2] == ["abc", "origin"]
    flags = words[3:] if tilted else words[2:] if general else words
    if len(flags) != 3:
        raise lines.damaged("no boundaries (pp pp pp, say) after BOX BOUNDS")
    rows, width = [], 4 if general else 3 if tilted else 2
    for _ in range(3):
        text = lines.next()
        try:
            rows.append([float(word) for word in text.split()])
        except ValueError:
            raise lines.damaged(f"{text[:60]!r} are not numbers") from None
        if len(rows[-1]) != width:
            raise lines.damaged(f"{len(rows[-1])} numbers instead of {width}")
    bounds = np.array(rows)
    pbc = np.array([flag == "pp" for flag in flags])
    if general:
        return bounds[:, :3], bounds[:, 3], pbc
    tilt = bounds[:, 2] if tilted else np.zeros(3)
    cell, origin = construct_cell(bounds[:, :2].ravel(), tilt)
    return cell, origin, pbc


def _is(kind: type, word: str) -> bool:
    try:
        kind(word)
    except ValueError:
        return False
    return True
