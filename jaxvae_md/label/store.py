"""Labels on disk: a line of JSON each, written when it is known."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxvae_md import atomic
from jaxvae_md._typing import Labeller
from jaxvae_md.label.answer import Label, asked

if TYPE_CHECKING:
    from ase import Atoms

_log = logging.getLogger(__name__)


def remembered(labeller: Labeller, path: str | Path) -> Labeller:
    """The labeller with a memory on disk: no structure is ever computed twice.

    A line that was torn by a kill or altered is taken out, and its structure computed again; so
    are labels of another `reference` than that of the labeller, if it has one.

    ```python
    labeller = remembered(get_labeller("my_dft:label"), "labels.jsonl")
    ```
    """
    path, reference = Path(path), getattr(labeller, "reference", None)
    known, writing = stored_labels(path, reference), threading.Lock()

    def remember(atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray | None]:
        name = fingerprint(atoms)
        if name not in known:
            # one that changes the current folder must not move that of the run
            with contextlib.chdir("."):
                known[name] = asked(labeller, atoms)
            # several threads may ask
            with writing:
                store_label(path, name, known[name], reference)
        return known[name]

    for name in ("reference", "num_workers"):
        if hasattr(labeller, name):
            setattr(remember, name, getattr(labeller, name))
    return remember


def stored_labels(path: Path, reference: str | None = None) -> dict[str, Label]:
    """The labels of whole lines by fingerprint; other lines are taken out of the file.

    Those of another reference stay there, and are not returned.

    ```python
    known = stored_labels(Path("labels.jsonl"))
    ```
    """
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
            if entry.get("reference") == reference:
                stress = entry.get("stress")
                known[entry["structure"]] = Label(
                    entry["energy"],
                    np.array(entry["forces"]),
                    None if stress is None else np.array(stress),
                )
    if whole != lines:
        atomic.write_bytes(path, b"".join(whole))
    return known


def store_label(path: Path, name: str, label: Label, reference: str | None = None) -> None:
    """Adds a line to the file, all of it or nothing. **Raises:** `WriteError`.

    ```python
    store_label(Path("labels.jsonl"), fingerprint(atoms), label)
    ```
    """
    entry = {"structure": name, "energy": label.energy, "forces": label.forces.tolist()}
    if label.stress is not None:
        entry["stress"] = label.stress.tolist()
    if reference is not None:
        entry["reference"] = reference
    text = json.dumps(entry, allow_nan=False).encode()
    with atomic.writing(path), open(path, "ab") as file:
        length = file.seek(0, os.SEEK_END)
        try:
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, length)
            raise


def fingerprint(atoms: Atoms) -> str:
    """The same for the same structure, to the last bit.

    ```python
    fingerprint(atoms) == fingerprint(atoms.copy())
    ```
    """
    parts = (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    return hashlib.sha256(content).hexdigest()
