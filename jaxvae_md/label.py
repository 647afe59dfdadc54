"""Labels: a structure to energy and forces, by a potential of the package or by any function."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm import tqdm

from jaxvae_md import atomic
from jaxvae_md._typing import Labeller, Params
from jaxvae_md.errors import LabelError, OptionError, WriteError
from jaxvae_md.neighbors import neighbor_list
from jaxvae_md.potentials.potential import Potential, energy_and_forces
from jaxvae_md.potentials.stillinger_weber import stillinger_weber
from jaxvae_md.structure import from_atoms

if TYPE_CHECKING:
    from ase import Atoms

_log = logging.getLogger(__name__)


def potential_labeller(potential: Potential, params: Params) -> Labeller:
    """A potential of the package as the reference. **Raises:** `SpeciesError` when called.

    ```python
    labeller = potential_labeller(stillinger_weber(), stillinger_weber().init(key))
    energy, forces = labeller(atoms)
    ```
    """
    fns = neighbor_list(potential.cutoff)
    compiled = jax.jit(lambda s, n: energy_and_forces(potential.energy, params, s, n))

    def labeller(atoms: Atoms) -> tuple[float, np.ndarray]:
        structure = from_atoms(atoms, potential.species)
        energy, forces = compiled(structure, fns.allocate(structure, multiple=8))
        return float(energy), np.asarray(forces)

    return labeller


def get_labeller(name: str) -> Labeller | None:
    """The labeller that the command line names: `sw`, `none` or `module:function`.

    A function takes ASE Atoms and returns (energy in eV, forces [n, 3] in eV / angstrom). Modules
    are also looked for in the current folder. **Raises:** `OptionError`.

    ```python
    labeller = get_labeller("my_dft:label")
    ```
    """
    if name == "none":
        return None
    if name == "sw":
        potential = stillinger_weber()
        return potential_labeller(potential, potential.init(jax.random.key(0)))
    module, colon, function = name.partition(":")
    remedy = "give sw, none, or module:function, where function(atoms) returns (energy, forces)"
    if not colon or not module or not function:
        raise OptionError(f"labeller {name!r} is not known", remedy=remedy)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        labeller: Labeller = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise OptionError(
            f"labeller {name!r} cannot be imported ({reason})", remedy=remedy
        ) from None
    if not callable(labeller):
        raise OptionError(f"labeller {name!r} is not a function", remedy=remedy)
    return labeller


def remembered(labeller: Labeller, path: str | Path) -> Labeller:
    """The labeller with a memory on disk: no structure is ever computed twice.

    Each label is one line of JSON, written when it is known; a line that was torn by a kill or
    altered is taken out, and its structure computed again.

    ```python
    labeller = remembered(get_labeller("my_dft:label"), "labels.jsonl")
    ```
    """
    path = Path(path)
    known = _stored_labels(path)

    def remember(atoms: Atoms) -> tuple[float, np.ndarray]:
        name = _fingerprint(atoms)
        if name not in known:
            known[name] = _asked(labeller, atoms)
            _store_label(path, name, *known[name])
        return known[name]

    return remember


def _stored_labels(path: Path) -> dict[str, tuple[float, np.ndarray]]:
    """The labels of whole lines; the others are taken out of the file."""
    if not path.exists():
        return {}
    known, whole = {}, []
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        checksum, _, text = line.partition(b" ")
        try:
            if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(text[:-1]):
                raise ValueError("checksum")
            entry = json.loads(text)
        except ValueError:
            _log.warning("%s, line %d: damaged; its structure is labelled again", path, number + 1)
        else:
            whole.append(line)
            known[entry["structure"]] = (entry["energy"], np.array(entry["forces"]))
    if whole != lines:
        atomic.write_bytes(path, b"".join(whole))
    return known


def _store_label(path: Path, name: str, energy: float, forces: np.ndarray) -> None:
    entry = {"structure": name, "energy": energy, "forces": forces.tolist()}
    text = json.dumps(entry, allow_nan=False).encode()
    with atomic.writing(path), open(path, "ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(text), text))
        file.flush()
        os.fsync(file.fileno())


def _fingerprint(atoms: Atoms) -> str:
    """The same for the same structure, to the last bit."""
    parts = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return hashlib.sha256(content).hexdigest()


def label(frames: Sequence[Atoms], labeller: Labeller, progress: bool = False) -> list[Atoms]:
    """Copies of the frames with the reference's energy and forces attached.

    **Raises:** `LabelError` when the labeller raises or returns the wrong shape or NaN.

    ```python
    labelled = label(generated, get_labeller("sw"))
    ```
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    out = []
    for number, atoms in enumerate(tqdm(frames, desc="label", unit="frame", disable=not progress)):
        try:
            energy, forces = _asked(labeller, atoms)
        except LabelError as error:
            raise error.at(frame=number) from error.__cause__
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
        out.append(copy)
    return out


def _asked(labeller: Labeller, atoms: Atoms) -> tuple[float, np.ndarray]:
    """What a labeller says of a structure. **Raises:** `LabelError` for what is no label."""
    try:
        # one that changes the current folder must not move that of the run
        with contextlib.chdir("."):
            answer = labeller(atoms.copy())
    except (LabelError, WriteError):
        raise
    # one that calls sys.exit must not end the run as if it were done
    except (Exception, SystemExit) as error:
        raise LabelError(
            f"the labeller raised {type(error).__name__}: {error}",
            remedy="try it on this frame alone",
        ) from error
    try:
        energy, forces = answer
        energy, forces = float(energy), np.asarray(forces, float)
        if forces.shape == (len(atoms), 3) and np.isfinite([energy, *forces.flat]).all():
            return energy, forces
        returned = f"energy {energy} and forces of shape {forces.shape}"
        if forces.shape == (len(atoms), 3):
            returned += ", not all of them finite"
    except (TypeError, ValueError):
        returned = f"a {type(answer).__name__}"
    raise LabelError(
        f"the labeller returned {returned}",
        remedy="return (energy, forces), both finite: eV for the whole cell, and eV/angstrom of "
        f"shape ({len(atoms)}, 3)",
    )


def check_same_reference(
    frames: Sequence[Atoms], labeller: Labeller, name: str, tolerance: float = 1e-3
) -> None:
    """Refuses a labeller that did not make the labels it would be mixed with.

    Labels frames again and compares the forces, to `tolerance` (eV / angstrom): all of them for
    the embedded reference, three of them for others, which may be expensive.
    **Raises:** `LabelError`.

    ```python
    check_same_reference(frames, get_labeller("sw"), "sw")
    ```
    """
    numbers = np.arange(len(frames))
    if name != "sw":
        numbers = np.unique(np.linspace(0, len(frames) - 1, 3).astype(int))
    for number in map(int, numbers):
        atoms = frames[number]
        try:
            (again,) = label([atoms], labeller)
        except LabelError as error:
            raise LabelError(
                f"the labeller {name} cannot label this frame of the data ({error.message})",
                frame=number,
                remedy="use --labeller none, or the labeller that made the data",
            ) from error
        worst = np.abs(again.get_forces() - atoms.get_forces()).max()
        shift = abs(again.get_potential_energy() - atoms.get_potential_energy()) / len(atoms)
        if not (worst <= tolerance and shift <= tolerance):
            raise LabelError(
                f"the labeller {name} did not make these labels: its forces differ by up to "
                f"{worst:.3g} eV/angstrom, its energy by {shift:.3g} eV/atom",
                frame=number,
                remedy="labels of two references must not be mixed: use --labeller none, or the "
                "labeller that made the data",
            )
